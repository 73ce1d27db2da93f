"""The Triton client library asks ONNX models, over REST and over gRPC."""

import json
import os

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http
from checks import KEY, URL, check, done
from tritonclient.utils import InferenceServerException

headers = {"authorization": f"Bearer {KEY}"}
address = URL.removeprefix("http://").removesuffix("/v1")
TYPES = {
    "FP32": np.float32,
    "FP64": np.float64,
    "INT64": np.int64,
    "INT32": np.int32,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}
NAMES = os.environ["SELVEDGE_ONNX"].split(",")
with open(os.environ["SELVEDGE_CASES"]) as file:
    CASES = {case["file"].removesuffix(".onnx"): case for case in json.load(file)}


def array(told):
    data = np.frombuffer(bytes.fromhex(told["data"]), TYPES[told["datatype"]])
    return data.reshape(told["shape"])


def refuses(what, status, call):
    try:
        seen = call()
    except InferenceServerException as error:
        check(what, error.status() == status, (error.status(), error.message()))
        check(f"{what}: says why", len(error.message()) > 10, error.message())
        return error.message()
    check(what, False, seen)
    return ""


def near(got, wanted):
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return False
    if np.issubdtype(wanted.dtype, np.floating):
        return bool(np.all(np.abs(got - wanted) <= 1e-4 * np.maximum(1, np.abs(wanted))))
    return got.tolist() == wanted.tolist()


for kind, triton, bad in (("http", http, "400"), ("grpc", grpc, "StatusCode.INVALID_ARGUMENT")):
    client = triton.InferenceServerClient(address)

    def inputs(case, binary=True, change=lambda name, data: data):
        tensors = []
        for told in case["inputs"]:
            data = change(told["name"], array(told))
            tensor = triton.InferInput(told["name"], list(data.shape), told["datatype"])
            if kind == "http":
                tensor.set_data_from_numpy(data, binary_data=binary)
            else:
                tensor.set_data_from_numpy(data)
            tensors.append(tensor)
        return tensors

    def infer(name, tensors, **more):
        # The library writes into the headers it is given.
        return client.infer(name, tensors, headers=dict(headers), **more)

    for name in NAMES:
        case = CASES[name]
        check(f"{kind} {name} is ready", client.is_model_ready(name, headers=headers))
        told = client.get_model_metadata(name, headers=headers)
        if kind == "grpc":
            said = {one.name: one.datatype for one in told.inputs}
            platform = told.platform
        else:
            said = {one["name"]: one["datatype"] for one in told["inputs"]}
            platform = told["platform"]
        wanted = {one["name"]: one["datatype"] for one in case["inputs"]}
        check(f"{kind} {name}: what it takes", said == wanted, told)
        check(f"{kind} {name}: what it is", platform == "onnx", platform)
        for binary in (True, False) if kind == "http" else (True,):
            more = {}
            if kind == "http":
                outputs = [one["name"] for one in case["outputs"]]
                named = [http.InferRequestedOutput(one, binary_data=binary) for one in outputs]
                more = {"outputs": named}
            result = infer(name, inputs(case, binary), request_id="r-7", **more)
            for told in case["outputs"]:
                got = result.as_numpy(told["name"])
                check(f"{kind} {name} {told['name']}", near(got, array(told)), got)

    case = CASES["mlp"]
    wanted = [triton.InferRequestedOutput("class")]
    result = infer("mlp", inputs(case), outputs=wanted)
    check(f"{kind}: one output", result.as_numpy("probabilities") is None)
    one = infer("mlp", inputs(case, change=lambda _, data: data[:1]))
    check(f"{kind}: another batch", one.as_numpy("class").shape == (1,))
    said = refuses(
        f"{kind}: another shape",
        bad,
        lambda: infer("mlp", inputs(case, change=lambda _, data: data[:, :3])),
    )
    check(f"{kind}: in words", "[5, 3]" in said and "[-1, 4]" in said, said)
    refuses(f"{kind}: no inputs", bad, lambda: infer("lstm", inputs(case)))
    missing = [triton.InferRequestedOutput("logits")]
    refuses(f"{kind}: another output", bad, lambda: infer("mlp", inputs(case), outputs=missing))
    client.close()
done()
