"""The Anthropic client library asks every kind of model: a provider's and one of the mesh."""

import os

import anthropic
from anthropic import Anthropic
from checks import KEY, MODEL, URL, check, done

ANTHROPIC = os.environ["SELVEDGE_ANTHROPIC"]
client = Anthropic(base_url=URL.removesuffix("/v1"), api_key=KEY, max_retries=0, timeout=60)
messages = [{"role": "user", "content": "Good morning!"}]
SAID = "Good morning, how are you?"

for model in ("lab/large", ANTHROPIC):
    answer = client.messages.create(model=model, messages=messages, max_tokens=50)
    check(f"{model} answers", answer.content[0].text == SAID, answer)
    check(f"{model}: under the name asked for", answer.model == model, answer.model)
    check(f"{model}: why it ended", answer.stop_reason == "end_turn", answer)
    usage = (answer.usage.input_tokens, answer.usage.output_tokens)
    check(f"{model}: usage as billed", usage == (21, 7), answer.usage)
    with client.messages.stream(model=model, messages=messages, max_tokens=50) as stream:
        text = list(stream.text_stream)
        final = stream.get_final_message()
    check(f"{model} streams", "".join(text) == SAID, text)
    check(f"{model}: piece by piece", len(text) == 7, text)
    check(f"{model}: a stream's usage", final.usage.output_tokens == 7, final.usage)

answer = client.messages.create(model=MODEL, messages=messages, max_tokens=12, temperature=0)
check("a model of the mesh answers", answer.usage.output_tokens == 12, answer)
check("and says why it ended", answer.stop_reason == "max_tokens", answer)
with client.messages.stream(model=MODEL, messages=messages, max_tokens=12, temperature=0) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
check("and streams", text == answer.content[0].text or len(text) > 0, text)

counted = client.messages.count_tokens(model=ANTHROPIC, messages=messages)
check("a provider counts", counted.input_tokens == 42, counted)
counted = client.messages.count_tokens(model=MODEL, messages=messages)
check("the node counts for its own models", counted.input_tokens == answer.usage.input_tokens, counted)

picture = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
try:
    shown = [{"role": "user", "content": [picture]}]
    client.messages.create(model=MODEL, messages=shown, max_tokens=9)
    check("a model of the mesh sees no pictures", False)
except anthropic.BadRequestError as error:
    check("what cannot be done is refused by name", "image" in str(error), error)
    check("in this API's own shape", error.body["type"] == "error", error.body)
try:
    client.messages.create(model="nobody", messages=messages, max_tokens=9)
    check("a model that nobody has", False)
except anthropic.NotFoundError as error:
    check("a model that nobody has is not found", "nobody" in str(error), error)
wrong = Anthropic(base_url=URL.removesuffix("/v1"), api_key="sk-selvedge-wrong", max_retries=0)
try:
    wrong.messages.create(model=MODEL, messages=messages, max_tokens=9)
    check("a wrong key", False)
except anthropic.AuthenticationError as error:
    check("a wrong key is refused", error.body["error"]["type"] == "authentication_error", error)
done()
