"""Embeddings as each kind of provider gives them, for provider_server.py.

A vector is a function of its text alone, of parts that 32-bit floats hold exactly, so that a test can
say what a client must see. A prompt has as many tokens as words.
"""

import base64
import re
import struct

SIZE = 8
# What a model takes at once; more is refused as the providers do.
MOST = {"gemini": 100, "cohere": 96}
asked = {}


def vector(text, size=SIZE):
    units = text if isinstance(text, list) else text.encode()
    total = sum((place + 1) * unit for place, unit in enumerate(units)) + len(units)
    return [(total * (place + 3) % 128) / 64 - 1 for place in range(size)]


def words(text):
    return len(text) if isinstance(text, list) else len(text.split())


def openai(body, model):
    given = body["input"]
    tokens = isinstance(given, list) and isinstance(given[0], int)
    inputs = [given] if isinstance(given, str) or tokens else given
    data = []
    for index, text in enumerate(inputs):
        found = vector(text, body.get("dimensions", SIZE))
        if body.get("encoding_format") == "base64":
            found = base64.b64encode(struct.pack(f"<{len(found)}f", *found)).decode()
        data.append({"object": "embedding", "index": index, "embedding": found})
    count = sum(map(words, inputs))
    if model == "embed-short":
        data.pop()
    # Whoever reads them must go by their index.
    data.reverse()
    usage = {"prompt_tokens": count, "total_tokens": count}
    return 200, {"object": "list", "data": data, "model": "theirs", "usage": usage}


def gemini(body, model):
    requests = body["requests"]
    if len(requests) > MOST["gemini"]:
        return 400, {"error": {"code": 400, "message": "at most 100 requests", "status": "INVALID_ARGUMENT"}}
    assert all(request["model"] == f"models/{model}" for request in requests)
    texts = ["".join(part["text"] for part in one["content"]["parts"]) for one in requests]
    sizes = [one.get("outputDimensionality", SIZE) for one in requests]
    values = [{"values": vector(text, size)} for text, size in zip(texts, sizes)]
    count = sum(map(words, texts))
    return 200, {"embeddings": values, "usageMetadata": {"promptTokenCount": count}}


def cohere(body, _):
    texts = body["texts"]
    if len(texts) > MOST["cohere"]:
        return 400, {"message": "at most 96 texts"}
    if body["embedding_types"] != ["float"] or not body["input_type"]:
        return 400, {"message": "which type?"}
    floats = [vector(text, body.get("output_dimension", SIZE)) for text in texts]
    billed = {"input_tokens": sum(map(words, texts))}
    answer = {"id": "e", "texts": texts, "response_type": "embeddings_by_type"}
    return 200, {**answer, "embeddings": {"float": floats}, "meta": {"billed_units": billed}}


def ollama(body, model):
    given = body["input"]
    texts = [given] if isinstance(given, str) else given
    found = [vector(text, body.get("dimensions", SIZE)) for text in texts]
    count = sum(map(words, texts))
    return 200, {"model": model, "embeddings": found, "prompt_eval_count": count}


def titan(body, _):
    text = body["inputText"]
    found = vector(text, body.get("dimensions", SIZE))
    return 200, {"embedding": found, "inputTextTokenCount": words(text)}


PATHS = [
    (r"/v1/embeddings", openai),
    (r"/openai/deployments/[^/]+/embeddings\?api-version=.+", openai),
    (r"/v1beta/models/(?P<model>[^/:]+):batchEmbedContents", gemini),
    (r"/v2/embed", cohere),
    (r"/api/embed", ollama),
    (r"/model/(?P<model>amazon\.titan-embed[^/]+)/invoke", titan),
]


def answer(path, body):
    """The status and the answer to a request for embeddings; none when it is no such request."""
    for pattern, speak in PATHS:
        found = re.fullmatch(pattern, path)
        if not found:
            continue
        model = found.groupdict().get("model") or body.get("model", "")
        asked[model] = asked.get(model, 0) + 1
        if model == "embed-shaky" and asked[model] == 1:
            return 503, {"error": {"message": "one moment", "type": "server_error"}}
        return speak(body, model)
    return None
