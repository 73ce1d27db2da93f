"""The Triton client library asks a learned model, over REST and over gRPC."""

import os

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http
from checks import KEY, MODEL, URL, check, done
from tritonclient.utils import InferenceServerException

headers = {"authorization": f"Bearer {KEY}"}
address = URL.removeprefix("http://").removesuffix("/v1")
ROUND = os.environ["SELVEDGE_ROUND"]
ROWS = np.array([[0.9, 0.1], [0.1, 0.9], [0.8, 0.2]], dtype=np.float32)


def refuses(what, status, call):
    try:
        seen = call()
    except InferenceServerException as error:
        check(what, error.status() == status, (error.status(), error.message()))
        check(f"{what}: says why", len(error.message()) > 10, error.message())
        return error.message()
    check(what, False, seen)


seen = {}
for kind, triton, codes in (
    ("REST", http, {"bad": "400", "none": "404"}),
    ("gRPC", grpc, {"bad": "StatusCode.INVALID_ARGUMENT", "none": "StatusCode.NOT_FOUND"}),
):
    client = triton.InferenceServerClient(address)

    def infer(rows, name="input", datatype="FP32", model=MODEL, **more):
        tensor = triton.InferInput(name, list(rows.shape), datatype)
        tensor.set_data_from_numpy(rows)
        # One library writes into the headers it is given.
        return client.infer(model, [tensor], headers=dict(headers), **more)

    check(f"{kind}: it is ready", client.is_model_ready(MODEL, headers=headers))
    now = {"model_version": ROUND, "headers": headers}
    check(f"{kind}: in this version", client.is_model_ready(MODEL, **now))
    old = {"model_version": "1", "headers": headers}
    check(f"{kind}: and in no other", not client.is_model_ready(MODEL, **old))
    told = client.get_model_metadata(MODEL, headers=headers)
    if kind == "gRPC":
        told = {
            "versions": list(told.versions),
            "platform": told.platform,
            "inputs": [{"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in told.inputs],
            "outputs": [{"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in told.outputs],
        }
    check(f"{kind}: its version is its round", told["versions"] == [ROUND], told)
    check(f"{kind}: its input", told["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 2]}], told)
    wanted = [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "class", "datatype": "INT64", "shape": [-1]},
    ]
    check(f"{kind}: its outputs", told["outputs"] == wanted, told)

    result = infer(ROWS, request_id="r-7")
    answer = result.get_response()
    version = answer.model_version if kind == "gRPC" else answer["model_version"]
    check(f"{kind}: who answered", version == ROUND, answer)
    shares, classes = result.as_numpy("probabilities"), result.as_numpy("class")
    check(f"{kind}: probabilities", shares.dtype == np.float32 and shares.shape == (3, 2), shares)
    check(f"{kind}: they add up", np.allclose(shares.sum(axis=1), 1), shares)
    check(f"{kind}: classes", classes.dtype == np.int64 and classes.tolist() == [1, 0, 1], classes)
    check(f"{kind}: the likeliest", (shares.argmax(axis=1) == classes).all(), (shares, classes))
    seen[kind] = shares.tobytes()
    only = infer(ROWS, outputs=[triton.InferRequestedOutput("class")], model_version=ROUND)
    check(f"{kind}: what is wanted", only.as_numpy("probabilities") is None and only.as_numpy("class").shape == (3,))

    said = refuses(f"{kind}: another shape", codes["bad"], lambda: infer(np.zeros((1, 3), np.float32)))
    check(f"{kind}: what would fit", "[-1, 2]" in said, said)
    refuses(f"{kind}: another input", codes["bad"], lambda: infer(ROWS, name="pixels"))
    refuses(f"{kind}: another type", codes["bad"], lambda: infer(ROWS.astype(np.float64), datatype="FP64"))
    hole = ROWS.copy()
    hole[1, 1] = np.nan
    said = refuses(f"{kind}: no number", codes["bad"], lambda: infer(hole))
    check(f"{kind}: and where", "value 3" in said, said)
    refuses(f"{kind}: too many", codes["bad"], lambda: infer(np.zeros((1025, 2), np.float32)))
    said = refuses(f"{kind}: an old version", codes["none"], lambda: infer(ROWS, model_version="1"))
    check(f"{kind}: which there is", f"version {ROUND}" in said, said)
    refuses(f"{kind}: another output", codes["bad"], lambda: infer(ROWS, outputs=[triton.InferRequestedOutput("logits")]))
    refuses(f"{kind}: nobody's model", codes["none"], lambda: infer(ROWS, model="nobody"))
    client.close()

check("both say the same", seen["REST"] == seen["gRPC"])
tensor = http.InferInput("input", [3, 2], "FP32")
tensor.set_data_from_numpy(ROWS, binary_data=False)
client = http.InferenceServerClient(address)
wanted = [http.InferRequestedOutput(name, binary_data=False) for name in ("class", "probabilities")]
result = client.infer(MODEL, [tensor], outputs=wanted, headers=dict(headers))
check("and in JSON", result.as_numpy("probabilities").astype(np.float32).tobytes() == seen["REST"])
client.close()
done()
