"""The Triton client library asks over the Open Inference Protocol's gRPC."""

import os

import numpy as np
import tritonclient.grpc as triton
from checks import KEY, MODEL, URL, check, done
from provider_embeddings import vector, words
from tritonclient.utils import InferenceServerException

headers = {"authorization": f"Bearer {KEY}"}
client = triton.InferenceServerClient(URL.removeprefix("http://").removesuffix("/v1"))
TEXTS = ["Good morning", "how are you today?", "ö 中文"]
MODELS = os.environ["SELVEDGE_EMBED"].split(",")


def texts(given, name="text_input"):
    array = np.array([text.encode() for text in given], dtype=np.object_)
    tensor = triton.InferInput(name, list(array.shape), "BYTES")
    tensor.set_data_from_numpy(array)
    return [tensor]


def infer(model, given, **more):
    return client.infer(model, texts(given), headers=headers, **more)


def refuses(what, status, call):
    try:
        seen = call()
    except InferenceServerException as error:
        check(what, error.status() == f"StatusCode.{status}", (error.status(), error.message()))
        check(f"{what}: says why", len(error.message()) > 10, error.message())
        return error.message()
    check(what, False, seen)


check("the server lives", client.is_server_live())
check("and is ready", client.is_server_ready())
server = client.get_server_metadata(headers=headers)
check("and says who it is", server.name == "selvedge", server)

for model in MODELS:
    check(f"{model} is ready", client.is_model_ready(model, headers=headers))
    told = client.get_model_metadata(model, headers=headers)
    check(f"{model}: its input", told.inputs[0].name == "text_input", told)
    wanted = [triton.InferRequestedOutput("embedding")]
    result = infer(model, TEXTS, outputs=wanted, request_id="r-7")
    got = result.as_numpy("embedding")
    check(f"{model}: a tensor", got.dtype == np.float32 and got.shape == (3, 8), got)
    check(f"{model}: its vectors", got.tolist() == list(map(vector, TEXTS)), got)
    answer = result.get_response()
    check(f"{model}: the request's name", answer.id == "r-7", answer.id)
    count = answer.parameters["prompt_tokens"].int64_param
    check(f"{model}: usage as billed", count == sum(map(words, TEXTS)), count)

result = infer("cohere/embed-v4.0", TEXTS, parameters={"dimensions": 3})
got = result.as_numpy("embedding").tolist()
check("what a model makes needs not be named", got == [vector(text, 3) for text in TEXTS], got)

options = {"max_tokens": 12, "temperature": 0.0, "seed": 3}
result = infer(MODEL, ["Good morning!"], parameters=options)
count = result.get_response().parameters["completion_tokens"].int64_param
check("a model of text generates it", count == 12, result.get_response())
check("as one element", result.as_numpy("text_output").shape == (1,), result.get_response())
answer = infer("claude/claude-sonnet-4-5", ["Good morning!"]).as_numpy("text_output")
check("a provider's too", answer[0].decode() == "Good morning, how are you?", answer)
many = [f"text {number}" for number in range(2_000)]
got = infer(MODELS[0], many, outputs=wanted).as_numpy("embedding").tolist()
check("large tensors pass", got == list(map(vector, many)), len(got))

check("a model that nobody has is not ready", not client.is_model_ready("nobody", headers=headers))
refuses("nor told of", "NOT_FOUND", lambda: client.get_model_metadata("nobody", headers=headers))
refuses("nor asked", "NOT_FOUND", lambda: infer("nobody", ["a"]))
refuses("another version", "NOT_FOUND", lambda: infer(MODEL, ["a"], model_version="2"))
refuses("two texts to go on with", "INVALID_ARGUMENT", lambda: infer(MODEL, ["a", "b"]))
refuses("vectors of a model of text", "INVALID_ARGUMENT", lambda: infer(MODEL, ["a"], outputs=wanted))
lab = MODELS[0]
said = refuses("a sequence", "INVALID_ARGUMENT", lambda: infer(lab, ["a"], sequence_id=5))
check("by name", "sequence" in said, said)
packed = {"compression_algorithm": "gzip"}
refuses("a packed message", "UNIMPLEMENTED", lambda: infer(lab, TEXTS * 99, **packed))
refuses("what is not served", "UNIMPLEMENTED", lambda: client.get_model_config(lab, headers=headers))
free = "cohere/embed-v4.0"
refuses("money without a key", "UNAUTHENTICATED", lambda: client.infer(free, texts(["a"])))
kept = {**headers, "x-selvedge-label": "mesh"}
refuses("what must stay", "PERMISSION_DENIED", lambda: client.infer(lab, texts(["a"]), headers=kept))
client.close()
done()
