"""The Triton client library asks over the Open Inference Protocol's REST."""

import os

import numpy as np
import tritonclient.http as triton
from checks import KEY, MODEL, URL, check, done
from provider_embeddings import vector, words
from tritonclient.utils import InferenceServerException

headers = {"authorization": f"Bearer {KEY}"}
client = triton.InferenceServerClient(URL.removeprefix("http://").removesuffix("/v1"))
TEXTS = ["Good morning", "how are you today?", "ö 中文"]
MODELS = os.environ["SELVEDGE_EMBED"].split(",")


def texts(given, name="text_input", binary=True):
    array = np.array([text.encode() for text in given], dtype=np.object_)
    tensor = triton.InferInput(name, list(array.shape), "BYTES")
    tensor.set_data_from_numpy(array, binary_data=binary)
    return [tensor]


def infer(model, given, binary=True, **more):
    # The library writes into the headers it is given.
    return client.infer(model, texts(given, binary=binary), headers=dict(headers), **more)


def refuses(what, status, call):
    try:
        seen = call()
    except InferenceServerException as error:
        check(what, error.status() == str(status), (error.status(), error.message()))
        check(f"{what}: says why", len(error.message()) > 10, error.message())
        return error.message()
    check(what, False, seen)


check("the server lives", client.is_server_live())
check("and is ready", client.is_server_ready())
server = client.get_server_metadata(headers=headers)
check("and says who it is", server["name"] == "selvedge", server)
check("and what it speaks", "binary_tensor_data" in server["extensions"], server)

known = {"embed-v4.0": 1536, "gemini-embedding-001": 3072}
for model in MODELS:
    check(f"{model} is ready", client.is_model_ready(model, headers=headers))
    told = client.get_model_metadata(model, headers=headers)
    check(f"{model}: its input", told["inputs"][0]["name"] == "text_input", told)
    size = known.get(model.split("/")[1])
    if size:
        wanted = {"name": "embedding", "datatype": "FP32", "shape": [-1, size]}
        check(f"{model}: its output", told["outputs"] == [wanted], told)
    for binary in (True, False):
        wanted = [triton.InferRequestedOutput("embedding", binary_data=binary)]
        result = infer(model, TEXTS, binary, outputs=wanted, request_id="r-7")
        got = result.as_numpy("embedding")
        check(f"{model}: a tensor", got.dtype == np.float32 and got.shape == (3, 8), got)
        check(f"{model}: its vectors", got.tolist() == list(map(vector, TEXTS)), got)
        answer = result.get_response()
        check(f"{model}: the request's name", answer["id"] == "r-7", answer)
        count = answer["parameters"]["prompt_tokens"]
        check(f"{model}: usage as billed", count == sum(map(words, TEXTS)), answer)

result = infer("cohere/embed-v4.0", TEXTS, parameters={"dimensions": 3})
got = result.as_numpy("embedding").tolist()
check("what a model makes needs not be named", got == [vector(text, 3) for text in TEXTS], got)

told = client.get_model_metadata(MODEL, headers=headers)
check("a model of text says so", told["outputs"][0]["name"] == "text_output", told)
options = {"max_tokens": 12, "temperature": 0.0, "seed": 3}
first = infer(MODEL, ["Good morning!"], parameters=options)
count = first.get_response()["parameters"]["completion_tokens"]
check("and generates it", count == 12 and first.as_numpy("text_output").shape == (1,), count)
again = infer(MODEL, ["Good morning!"], False, parameters=options)
same = first.as_numpy("text_output").tolist() == again.as_numpy("text_output").tolist()
check("the same each time", same, again.get_response())
answer = infer("claude/claude-sonnet-4-5", ["Good morning!"]).as_numpy("text_output")
check("a provider's too", answer[0].decode() == "Good morning, how are you?", answer)

check("a model that nobody has is not ready", not client.is_model_ready("nobody", headers=headers))
refuses("nor told of", 404, lambda: client.get_model_metadata("nobody", headers=headers))
refuses("nor asked", 404, lambda: infer("nobody", ["a"]))
refuses("another version", 404, lambda: infer(MODEL, ["a"], model_version="2"))
refuses("two texts to go on with", 400, lambda: infer(MODEL, ["a", "b"]))
wanted = [triton.InferRequestedOutput("embedding")]
refuses("vectors of a model of text", 400, lambda: infer(MODEL, ["a"], outputs=wanted))
lab = MODELS[0]
refuses("another input", 400, lambda: client.infer(lab, texts(["a"], "ids"), headers=dict(headers)))
said = refuses("a sequence", 400, lambda: infer(lab, ["a"], sequence_id=5))
check("by name", "sequence" in said, said)
packed = {"request_compression_algorithm": "gzip"}
refuses("a packed body", 415, lambda: client.infer(lab, texts(["a"]), headers=dict(headers), **packed))
refuses("money without a key", 401, lambda: client.infer("cohere/embed-v4.0", texts(["a"])))
kept = {**headers, "x-selvedge-label": "mesh"}
refuses("data that may not leave", 403, lambda: client.infer(lab, texts(["a"]), headers=kept))
client.close()
done()
