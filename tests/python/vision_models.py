"""The Triton client library asks models that see, over REST and over gRPC, and OpenAI's for vectors of texts."""

import json
import os
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http
from checks import KEY, URL, check, done
from openai import OpenAI
from tritonclient.utils import InferenceServerException

headers = {"authorization": f"Bearer {KEY}"}
address = URL.removeprefix("http://").removesuffix("/v1")
FIXTURES = Path(os.environ["SELVEDGE_PICTURES"])
with open(os.environ["SELVEDGE_CASES"]) as file:
    ALL = json.load(file)
CASES = {
    name: [case for case in ALL if case["model"] == name and case["picture"].endswith(".png")]
    for name in ("vit", "clip")
}


def elements(bytes_):
    return np.array(bytes_, dtype=np.object_)


def pictures(name):
    return elements([(FIXTURES / case["picture"]).read_bytes() for case in CASES[name]])


def apart(got, wanted):
    return float(np.abs(np.asarray(got, dtype=float) - np.asarray(wanted)).max())


for kind, triton, bad in (("http", http, "400"), ("grpc", grpc, "StatusCode.INVALID_ARGUMENT")):
    client = triton.InferenceServerClient(address)

    def infer(name, outputs=None, **inputs):
        tensors = []
        for input_, data in inputs.items():
            tensor = triton.InferInput(input_, list(data.shape), "BYTES")
            tensor.set_data_from_numpy(data)
            tensors.append(tensor)
        if outputs:
            outputs = [triton.InferRequestedOutput(output) for output in outputs]
        # The library writes into the headers it is given.
        return client.infer(name, tensors, outputs=outputs, headers=dict(headers))

    told = client.get_model_metadata("clip", headers=headers)
    if kind == "grpc":
        takes, gives = ([one.name for one in side] for side in (told.inputs, told.outputs))
    else:
        takes, gives = ([one["name"] for one in told[side]] for side in ("inputs", "outputs"))
    check(f"{kind}: what it takes", takes == ["image", "labels"], takes)
    check(f"{kind}: what it gives", gives[-2:] == ["embedding", "text_embedding"], gives)

    result = infer("vit", image=pictures("vit"))
    shares = result.as_numpy("probabilities")
    wanted = [case["shares"] for case in CASES["vit"]]
    check(f"{kind} vit: shares", apart(shares, wanted) < 1e-3, apart(shares, wanted))
    labels = result.as_numpy("label")
    check(f"{kind} vit: five labels", labels.shape == (len(wanted), 5), labels.shape)
    best = [np.argmax(one) for one in wanted]
    check(f"{kind} vit: argmax", list(np.argmax(shares, axis=1)) == best, best)

    texts = CASES["clip"][0]["texts"]
    said = elements([text.encode() for text in texts])
    result = infer("clip", image=pictures("clip"), labels=said)
    shares = result.as_numpy("probabilities")
    wanted = [case["shares"] for case in CASES["clip"]]
    check(f"{kind} clip: shares", apart(shares, wanted) < 1e-3, apart(shares, wanted))
    firsts = [one[0].decode() for one in result.as_numpy("label")]
    best = [texts[int(np.argmax(one))] for one in wanted]
    check(f"{kind} clip: labels", firsts == best, (firsts, best))
    vectors = [case["picture_vector"] for case in CASES["clip"]]
    seen = infer("clip", ["embedding"], image=pictures("clip")).as_numpy("embedding")
    check(f"{kind} clip: vectors of pictures", apart(seen, vectors) < 1e-4, apart(seen, vectors))
    read = infer("clip", labels=said).as_numpy("text_embedding")
    of_texts = CASES["clip"][0]["text_vectors"]
    check(f"{kind} clip: vectors of texts", apart(read, of_texts) < 1e-4, apart(read, of_texts))
    for what, part, call in (
        ("no labels", "labels", lambda: infer("clip", ["label"], image=pictures("clip"))),
        ("no picture", "neither PNG nor JPEG", lambda: infer("vit", image=elements([b"hello"]))),
    ):
        try:
            seen = call()
            check(f"{kind}: {what}", False, seen)
        except InferenceServerException as error:
            told = (error.status(), error.message())
            check(f"{kind}: {what}", error.status() == bad and part in error.message(), told)
    client.close()

openai = OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60)
if os.environ["SELVEDGE_HERE"] == "yes":
    # That API takes no empty text.
    said = [at for at, text in enumerate(texts) if text]
    answer = openai.embeddings.create(model="clip", input=[texts[at] for at in said])
    of_texts = [of_texts[at] for at in said]
    got = [item.embedding for item in answer.data]
    check("embeddings of texts", apart(got, of_texts) < 1e-4, apart(got, of_texts))
    check("usage", answer.usage.prompt_tokens == sum(CASES["clip"][0]["tokens"][at] for at in said), answer.usage)
done()
