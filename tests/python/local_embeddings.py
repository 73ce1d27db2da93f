"""Official clients ask a node for embeddings by a model of its own, as by any other."""

import json
import math
import os
import struct
from pathlib import Path

import ollama
import openai
from checks import KEY, MODEL, URL, check, done, fails
from openai import OpenAI

client = OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60)
create = client.embeddings.create
NAME = "all-minilm-l6-v2"
# Texts, their tokens and their vectors by a reference that shares no code with the node.
CASES = json.loads(Path(os.environ["SELVEDGE_VECTORS"]).read_text())
TEXTS = [case["text"] for case in CASES]
COUNT = sum(case["tokens"] for case in CASES)


def alike(vector, exact):
    dot = sum(a * b for a, b in zip(vector, exact, strict=True))
    return dot / math.hypot(*vector) / math.hypot(*exact)


check("the model is listed", NAME in [model.id for model in client.models.list()])
# The library asks for base64 unless it is told otherwise.
answer = create(model=NAME, input=TEXTS)
got = [item.embedding for item in answer.data]
worst = min(alike(vector, case["vector"]) for vector, case in zip(got, CASES, strict=True))
check("vectors are those of the reference", worst > 0.99999, worst)
check("their places", [item.index for item in answer.data] == list(range(len(TEXTS))), answer)
usage = (answer.usage.prompt_tokens, answer.usage.total_tokens)
check("usage is what was read", usage == (COUNT, COUNT), answer.usage)
single = create(model=NAME, input=TEXTS[4], encoding_format="float", dimensions=384)
alone = [struct.unpack("f", struct.pack("f", number))[0] for number in single.data[0].embedding]
check("a text alone, as numbers, has the same bits", alone == got[4], alone)
many = create(model=NAME, input=["a", "b"] * 300)
check("of as many texts as there are", len({tuple(item.embedding) for item in many.data}) == 2)



def refuses(what, call):
    return fails(what, openai.BadRequestError, 400, call).body


body = refuses("shorter vectors", lambda: create(model=NAME, input="a", dimensions=64))
check("by name", body["param"] == "dimensions", body)
body = refuses("tokens", lambda: create(model=NAME, input=[[5, 6]]))
check("by name", body["param"] == "input", body)
hello = [{"role": "user", "content": "Hello"}]
chat = client.chat.completions.create
body = refuses("a chat", lambda: chat(model=NAME, messages=hello))
check("says what it makes", "makes embeddings" in body["message"], body)
body = refuses("a completion", lambda: client.completions.create(model=NAME, prompt="Hello"))
check("says what it makes", "makes embeddings" in body["message"], body)
body = refuses("a model that writes", lambda: create(model=MODEL, input="a"))
check("says what it makes", "makes no embeddings" in body["message"], body)

headers = {"authorization": f"Bearer {KEY}"}
other = ollama.Client(host=URL.removesuffix("/v1"), headers=headers, timeout=60)
answer = other.embed(model=NAME, input=TEXTS, options={"num_ctx": 512}, keep_alive="5m")
worst = min(alike(a, case["vector"]) for a, case in zip(answer.embeddings, CASES, strict=True))
check("Ollama's client has the same", worst > 0.99999, worst)
check("and the same usage", answer.prompt_eval_count == COUNT, answer.prompt_eval_count)
older = list(other.embeddings(model=NAME, prompt=TEXTS[4]).embedding)
check("the older way", alike(older, CASES[4]["vector"]) > 0.99999)
try:
    other.embed(model=NAME, input="word " * 300, truncate=False)
    check("a text that must not be cut", False)
except ollama.ResponseError as error:
    check("a text that must not be cut", error.status_code == 400, error)
    check("says what is read", "256 tokens" in error.error, error.error)
done()
