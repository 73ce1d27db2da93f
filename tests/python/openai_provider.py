"""The OpenAI client library asks models of providers, whatever the providers speak."""

import json
import os

import openai
from checks import KEY, MODEL, URL, check, done, fails
from openai import OpenAI

ANTHROPIC = os.environ["SELVEDGE_ANTHROPIC"]
client = OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60)
messages = [{"role": "user", "content": "Good morning!"}]
SAID = "Good morning, how are you?"

names = [model.id for model in client.models.list()]
check("models of providers are listed", "lab/large" in names, names)

for model in ("lab/large", ANTHROPIC, "large"):
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=50)
    check(f"{model} answers", answer.choices[0].message.content == SAID, answer)
    check(f"{model}: under the name asked for", answer.model == model, answer.model)
    # Known to the provider alone, who may charge more for it than the budget has reserved.
    try:
        client.chat.completions.create(model=model, messages=messages, extra_body={"their_own": 1})
        refused = ""
    except openai.BadRequestError as error:
        refused = str(error)
    check(f"{model}: an unknown field is refused under a budget", "their_own" in refused, refused)
    check(f"{model}: why it ended", answer.choices[0].finish_reason == "stop", answer)
    usage = (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    check(f"{model}: usage as billed", usage == (21, 7), answer.usage)

    options = {"include_usage": True}
    stream = client.chat.completions.create(
        model=model, messages=messages, max_tokens=50, stream=True, stream_options=options
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    check(f"{model} streams", text == SAID, text)
    pieces = sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks)
    check(f"{model}: piece by piece", pieces == 7, pieces)
    check(f"{model}: a stream's usage", chunks[-1].usage.total_tokens == 28, chunks[-1])

    plain = list(
        client.chat.completions.create(model=model, messages=messages, max_tokens=50, stream=True)
    )
    unasked = [chunk for chunk in plain if chunk.usage or not chunk.choices]
    check(f"{model}: usage only where it was asked for", not unasked, unasked)

for model in ("lab/large", ANTHROPIC):
    answer = client.responses.create(model=model, input="Good morning!", store=False)
    check(f"{model} responds", answer.output_text == SAID, answer)
    check(f"{model}: usage of a response", answer.usage.total_tokens == 28, answer.usage)
    events = list(client.responses.create(model=model, input="Hi", stream=True, store=False))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    check(f"{model} responds piece by piece", text == SAID, text)
    check(f"{model}: the end of a response", events[-1].type == "response.completed", events[-1])
request = {"input": "Hi", "max_output_tokens": 12, "temperature": 0, "store": False}
answer = client.responses.create(model=MODEL, **request)
check("a model of the mesh responds", answer.usage.output_tokens == 12, answer)
check("and says that it was not done", answer.status == "incomplete", answer)

# The server says the text again: it came as it is, with no chat around it.
asked = {"prompt": "Once upon a time", "max_tokens": 50}
answer = client.completions.create(model="lab/large", **asked, logprobs=1)
check("a text is gone on with", answer.choices[0].text == "Once upon a time" + SAID, answer)
check("under the name asked for", answer.model == "lab/large", answer.model)
check("its usage as billed", answer.usage.total_tokens == 28, answer.usage)
check("with probabilities", answer.choices[0].logprobs.token_logprobs == [-2.5], answer)
options = {"include_usage": True}
chunks = list(
    client.completions.create(model="large", stream=True, stream_options=options, **asked)
)
text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
check("piece by piece", text == SAID, text)
check("to its end", chunks[-2].choices[0].finish_reason == "stop", chunks[-2])
check("with a stream's usage", chunks[-1].usage.total_tokens == 28, chunks[-1])


def text(model, prompt):
    return client.completions.create(model=model, prompt=prompt, max_tokens=5)


refused = fails(
    "a chat is no text", openai.BadRequestError, 400, lambda: text(ANTHROPIC, "Once")
)
check("which is said", "bare text" in refused.body["message"], refused.body)
fails("several texts", openai.BadRequestError, 400, lambda: text("lab/large", ["a", "b"]))

weather = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
answer = client.chat.completions.create(model="lab/large", messages=messages, tools=[weather])
call = answer.choices[0].message.tool_calls[0]
check("tools are called", call.function.name == "weather", answer)
check("with arguments", json.loads(call.function.arguments) == {"city": "Ghent"}, call)
check("and say so", answer.choices[0].finish_reason == "tool_calls", answer)


def ask(model, **more):
    return client.chat.completions.create(model=model, messages=messages, max_tokens=9, **more)


broken = fails("a broken one", openai.InternalServerError, 503, lambda: ask("lab/broken"))
check("is named", "lab" in broken.body["message"], broken.body)

try:
    text = "".join(chunk.choices[0].delta.content or "" for chunk in ask("lab/cut", stream=True))
    check("an answer that is cut is not complete", False, text)
except openai.APIError as error:
    check("an answer that is cut says so", "lab" in str(error), error)

stream = ask("lab/talkative", stream=True)
next(iter(stream))
stream.close()

# Last: its key is left alone from then on.
busy = fails("a busy provider", openai.InternalServerError, 503, lambda: ask("lab/busy"))
check("says when to come back", int(busy.response.headers["retry-after"]) <= 7, busy.response)
check("in its own words", "slow down" in busy.body["message"], busy.body)
done()
