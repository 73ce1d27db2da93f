"""The Ollama client library asks every kind of provider for embeddings."""

import os

import ollama
from checks import KEY, MODEL, URL, check, done
from provider_embeddings import vector, words

headers = {"authorization": f"Bearer {KEY}"}
client = ollama.Client(host=URL.removesuffix("/v1"), headers=headers, timeout=60)
TEXTS = ["Good morning", "how are you today?"]

for model in os.environ["SELVEDGE_EMBED"].split(","):
    answer = client.embed(model=model, input=TEXTS)
    got = [list(one) for one in answer.embeddings]
    check(f"{model}: vectors", got == list(map(vector, TEXTS)), got)
    check(f"{model}: usage as billed", answer.prompt_eval_count == sum(map(words, TEXTS)), answer)
    check(f"{model}: under the name asked for", answer.model == model, answer)
    got = list(client.embed(model=model, input="one text", dimensions=3).embeddings[0])
    check(f"{model}: one text, shortened", got == vector("one text", 3), got)
    got = list(client.embeddings(model=model, prompt="the older way").embedding)
    check(f"{model}: the older way", got == vector("the older way"), got)

for model, status in ((MODEL, 400), ("nobody", 404)):
    try:
        client.embed(model=model, input="text")
        check(f"{model} makes no embeddings", False)
    except ollama.ResponseError as error:
        check(f"{model} makes no embeddings", error.status_code == status, error)
        check("by name", model in error.error, error.error)
done()
