"""The OpenAI client library meets the exact cache: what is given again, and what never is."""

import json
import os
import threading
import time

import httpx
import openai
from checks import KEY, URL, check, done, fails
from openai import OpenAI

PROVIDER = os.environ["SELVEDGE_PROVIDER"]
ANTHROPIC = os.environ["SELVEDGE_ANTHROPIC"]
SAID = "Good morning, how are you?"
mine = OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60)
theirs = OpenAI(base_url=URL, api_key=os.environ["SELVEDGE_OTHER"], max_retries=0, timeout=60)
plain = httpx.Client(trust_env=False, timeout=60)


def ask(text, client=mine, say=None, **more):
    """The answer, and what the cache did."""
    request = {"model": "lab/large", "temperature": 0, "max_tokens": 50, **more}
    headers = {"x-selvedge-cache": say} if say else {}
    raw = client.chat.completions.with_raw_response.create(
        messages=[{"role": "user", "content": text}], extra_headers=headers, **request
    )
    answer = raw.parse()
    if request.get("stream"):
        answer = list(answer)
    reason = raw.headers.get("x-selvedge-cache-reason")
    return answer, " ".join(filter(None, [raw.headers["x-selvedge-cache"], reason]))


def asked(text):
    """How often the provider was asked this."""
    seen = plain.get(f"{PROVIDER}/seen").json()["seen"]
    return sum(text in json.dumps(request["body"]) for request in seen)


def does(text, expected, times, **more):
    """Asks, and checks what the cache did and how often the provider was asked."""
    answer, did = ask(text, **more)
    check(f"{text}: {expected}", did == expected, did)
    check(f"{text}: asked {times} times", asked(text) == times, asked(text))
    return answer


for model in ("lab/large", ANTHROPIC):
    text = f"whole {model}"
    first = does(text, "miss", 1, model=model)
    again = does(text, "hit", 1, model=model)
    check("the same answer", again == first and again.choices[0].message.content == SAID, again)

body = {"temperature": 0, "max_tokens": 50, "model": "lab/large"}
body["messages"] = [{"content": "whole lab/large", "role": "user"}]
mixed = json.dumps(dict(reversed(body.items())), indent=3)
headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
reply = plain.post(f"{URL}/chat/completions", content=mixed, headers=headers)
check("another order and layout is a hit", reply.headers["x-selvedge-cache"] == "hit", reply)
check("a hit has an age", int(reply.headers["age"]) < 60, reply.headers)
twice = '{"model": "lab/large", "temperature": 0, "temperature": 0, "messages": []}'
reply = plain.post(f"{URL}/chat/completions", content=twice, headers=headers)
check("what is ambiguous is never a hit", reply.headers.get("x-selvedge-cache") != "hit", reply)

does("whole lab/large", "miss", 2, max_tokens=51)
does("whole lab/large", "miss", 3, client=theirs)
does("whole lab/large", "hit", 3, client=theirs)

does("by chance", "bypass sampled", 1, temperature=1)
does("by chance", "miss", 2, temperature=1, say="sampled")
does("by chance", "hit", 2, temperature=1, say="sampled")
does("by chance", "bypass sampled", 3, temperature=1)
does("by seed", "miss", 1, temperature=1, seed=7)
does("by seed", "hit", 1, temperature=1, seed=7)
does("by seed", "miss", 2, temperature=1, seed=8)

does("unkept", "bypass no-store", 1, say="no-store")
does("unkept", "miss", 2)
does("unkept", "hit", 2, say="no-store")
does("unkept", "bypass no-cache", 3, say="no-cache")
does("unkept", "hit", 3, say="only-if-cached")
fails("only what is kept", openai.APIStatusError, 504, lambda: ask("new", say="only-if-cached"))
check("and nobody is asked", asked("new") == 0)
fails("unknown words", openai.BadRequestError, 400, lambda: ask("new", say="sometimes"))

for model in ("lab/large", ANTHROPIC):
    text = f"stream {model}"
    usage = {"include_usage": True}
    first = does(text, "miss", 1, model=model, stream=True, stream_options=usage)
    again = does(text, "hit", 1, model=model, stream=True, stream_options=usage)
    check("the same events", again == first and len(first) > 7, again)
    does(text, "miss", 2, model=model)
for count in (1, 2):
    try:
        ask("cut", model="lab/cut", stream=True)
        check("a cut stream is no answer", False)
    except openai.APIError:
        check(f"a cut stream is not kept ({count})", asked("cut") == count, asked("cut"))

results = []
threads = [
    threading.Thread(target=lambda: results.append(ask("together", model="lab/held")))
    for _ in range(5)
]
for thread in threads:
    thread.start()
waiting = "selvedge_cache_coalesced_total 4"
patience = time.monotonic() + 50
while waiting not in plain.get(URL.replace("/v1", "/metrics")).text:
    check("four wait for the fifth", time.monotonic() < patience)
plain.get(f"{PROVIDER}/go")
for thread in threads:
    thread.join()
did = sorted(did for _, did in results)
check("one asks for all", did == ["hit coalesced"] * 4 + ["miss"], did)
check("at once", asked("together") == 1, asked("together"))
check("and all have it", all(a.choices[0].message.content == SAID for a, _ in results), results)
done()
