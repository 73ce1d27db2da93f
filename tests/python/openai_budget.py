"""A budget as the client library meets it: what is left, its end, and who may ask for what."""

import os
import time

import openai
from checks import KEY, MODEL, URL, check, done
from openai import OpenAI

LIMIT = int(os.environ["SELVEDGE_LIMIT"])
ACCOUNT = os.environ["SELVEDGE_ACCOUNT"]
client = OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60)
request = {"model": MODEL, "prompt": "x" * 90, "max_tokens": 10, "temperature": 0}
raw = client.completions.with_raw_response

first = raw.create(**request)
usage = first.parse().usage
check("the limit is told", first.headers["x-ratelimit-limit-tokens"] == str(LIMIT), first.headers)
left = int(first.headers["x-ratelimit-remaining-tokens"])
check("what is left is told", left <= LIMIT - usage.total_tokens, first.headers)
check("when the window ends is told", first.headers["x-ratelimit-reset-tokens"][-1] == "s")

# While the other node has something left, a refusal says to come back soon, and the library does so
# by itself. It gives up when it is told that retrying cannot help.
patient = OpenAI(base_url=URL, api_key=KEY, max_retries=5, timeout=60)
spent, answers, refused = usage.total_tokens, 1, None
while refused is None:
    check("no more than the budget", spent <= LIMIT, spent)
    try:
        answer = patient.completions.with_raw_response.create(**request)
    except openai.RateLimitError as error:
        refused = error
    else:
        usage, answers = answer.parse().usage, answers + 1
        spent += usage.total_tokens
        now = int(answer.headers["x-ratelimit-remaining-tokens"])
        check("what is left shrinks", now < left, (now, left))
        left = now
print(f"spent {spent} in {answers} answers", flush=True)
check("all but a rest was served", LIMIT - spent < 2 * usage.total_tokens, spent)

check("its status", refused.status_code == 429, refused)
check("its code", refused.code == "budget_exhausted", refused.body)
check("its type: a month's budget is a quota", refused.type == "insufficient_quota", refused.body)
message = refused.body["message"]
for word in (ACCOUNT, "tokens-month", str(LIMIT)):
    check(f"its message names {word}", word in message, message)
headers = refused.response.headers
seconds, millis = int(headers["retry-after"]), int(headers["retry-after-ms"])
check("when to come back, in whole seconds rounded up", seconds == -(-millis // 1000), headers)
check("what is left is told with it", int(headers["x-ratelimit-remaining-tokens"]) <= left)

check("retrying cannot help", headers["x-should-retry"] == "false" and seconds > 60, headers)
begun = time.monotonic()
try:
    patient.completions.create(**request)
    check("a client that retries is refused", False)
except openai.RateLimitError:
    check("a client that retries gives up at once", time.monotonic() - begun < 2, headers)
try:
    list(client.completions.create(**request, stream=True))
    check("a stream is refused", False)
except openai.RateLimitError as error:
    check("a stream is refused before it begins", error.status_code == 429)
check("models are still listed", MODEL in [model.id for model in client.models.list()])
done()
