"""The OpenAI client library asks every kind of provider for embeddings."""

import os

import openai
from checks import KEY, MODEL, URL, check, done, fails
from openai import OpenAI
from provider_embeddings import vector, words

client = OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60)
TEXTS = ["Good morning", "how are you today?", "a", "ö 中文"]
MODELS = os.environ["SELVEDGE_EMBED"].split(",")
create = client.embeddings.create

listed = [model.id for model in client.models.list()]
for model in MODELS:
    check(f"{model} is listed", model in listed, listed)
    # The library asks for base64 unless it is told otherwise.
    answer = create(model=model, input=TEXTS)
    got = [item.embedding for item in answer.data]
    check(f"{model}: vectors in the order of the texts", got == list(map(vector, TEXTS)), got)
    check(f"{model}: their places", [item.index for item in answer.data] == [0, 1, 2, 3], answer)
    check(f"{model}: under the name asked for", answer.model == model, answer.model)
    count = sum(map(words, TEXTS))
    usage = (answer.usage.prompt_tokens, answer.usage.total_tokens)
    check(f"{model}: usage as billed", usage == (count, count), answer.usage)
    answer = create(model=model, input="one text", encoding_format="float", dimensions=3)
    got = answer.data[0].embedding
    check(f"{model}: numbers, shortened", got == vector("one text", 3), answer)
    many = [f"text {number}" for number in range(60)]
    got = [item.embedding for item in create(model=model, input=many).data]
    check(f"{model}: in as many parts as it takes", got == list(map(vector, many)), len(got))

lab = MODELS[0]
answer = create(model=lab, input=[[5, 6], [7]])
got = [item.embedding for item in answer.data]
check("tokens where they are understood", got == [vector([5, 6]), vector([7])], answer)
for model in MODELS:
    if model.split("/")[0] in ("lab", "azure"):
        continue
    refused = fails(
        f"{model}: tokens", openai.BadRequestError, 400, lambda: create(model=model, input=[1, 2])
    )
    check(f"{model}: names the field", refused.body["param"] == "input", refused.body)


def refuses(what, kind, status, model, given="text", **more):
    return fails(what, kind, status, lambda: create(model=model, input=given, **more))


error = refuses("a model that generates text", openai.BadRequestError, 400, MODEL)
check("says so", "makes no embeddings" in error.body["message"], error.body)
refuses("a model that nobody has", openai.NotFoundError, 404, "nobody")
refuses("no input", openai.BadRequestError, 400, lab, [])
refuses("an empty input", openai.BadRequestError, 400, lab, [""])
refuses("too many inputs", openai.BadRequestError, 400, lab, ["a"] * 2049)
refuses("no dimensions", openai.BadRequestError, 400, lab, dimensions=0)
error = refuses("another format", openai.BadRequestError, 400, lab, encoding_format="hex")
check("by name", error.body["param"] == "encoding_format", error.body)
error = refuses("Anthropic", openai.BadRequestError, 400, "claude/claude-sonnet-4-5")
check("has no embeddings", "has no embeddings" in error.body["message"], error.body)
refuses("too few vectors", openai.InternalServerError, 503, "lab/embed-short", ["a", "b"])
got = create(model="lab/embed-shaky", input="again").data[0].embedding
check("a provider that failed once is asked again", got == vector("again"), got)
done()
