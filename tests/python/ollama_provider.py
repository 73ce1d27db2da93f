"""The Ollama client library asks every kind of model: a provider's and one of the mesh."""

import os

import ollama
from checks import KEY, MODEL, URL, check, done

ANTHROPIC = os.environ["SELVEDGE_ANTHROPIC"]
headers = {"authorization": f"Bearer {KEY}"}
client = ollama.Client(host=URL.removesuffix("/v1"), headers=headers, timeout=60)
messages = [{"role": "user", "content": "Good morning!"}]
SAID = "Good morning, how are you?"

names = [model.model for model in client.list().models]
check("models are listed", MODEL in names and "lab/large" in names, names)
shown = client.show(MODEL)
check("a model is shown", shown.details.family == "llama", shown)

for model in ("lab/large", ANTHROPIC):
    answer = client.chat(model=model, messages=messages)
    check(f"{model} answers", answer.message.content == SAID, answer)
    counts = (answer.prompt_eval_count, answer.eval_count)
    check(f"{model}: usage as billed", counts == (21, 7), answer)
    parts = list(client.chat(model=model, messages=messages, stream=True))
    text = "".join(part.message.content or "" for part in parts)
    check(f"{model} streams", text == SAID, text)
    check(f"{model}: its end", parts[-1].done and parts[-1].done_reason == "stop", parts[-1])
    answer = client.generate(model=model, prompt="Good morning!")
    check(f"{model} generates", answer.response == SAID, answer)

answer = client.chat(model=MODEL, messages=messages, options={"num_predict": 12, "temperature": 0})
check("a model of the mesh answers", answer.eval_count == 12, answer)
check("and says why it ended", answer.done_reason == "length", answer)
options = {"num_predict": 5, "temperature": 0}
parts = list(client.generate(model=MODEL, prompt="Hi", options=options, stream=True))
check("and streams", parts[-1].eval_count == 5, parts[-1])
try:
    client.chat(model="nobody", messages=messages)
    check("a model that nobody has", False)
except ollama.ResponseError as error:
    check("a model that nobody has is not found", error.status_code == 404, error)
    check("by name", "nobody" in error.error, error)
done()
