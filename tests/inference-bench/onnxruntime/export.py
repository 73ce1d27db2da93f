"""Writes a BERT that makes embeddings as ONNX, for `cargo xtask bench inference`.

export.py FOLDER OUT reads `config.json` and `model.safetensors` as Hugging Face lays them out.
The graph is what ONNX Runtime's own optimizer makes of such a model (its fused attention, norms
and GELU), with the mean over the tokens and the length of one behind it, so that the runtime has
nothing left to find and nothing is computed in Python.
"""

import json
import struct
import sys
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

# Of the fused operators.
FUSED = "com.microsoft"
# The newest set whose operators are all used here (LayerNormalization came with it).
OPSET = 17


def tensors(path):
    """The weights of a safetensors file, all of them in f32."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    found = {}
    for name, info in header.items():
        if info["dtype"] != "F32":
            continue
        begin, end = (8 + length + at for at in info["data_offsets"])
        found[name] = numpy.frombuffer(data[begin:end], numpy.float32).reshape(info["shape"])
    return found


class Graph:
    """A graph in the making."""

    def __init__(self, weights):
        self.weights = weights
        self.nodes = []
        self.constants = {}

    def constant(self, name, value):
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(numpy.ascontiguousarray(value), name)
        return name

    def weight(self, name):
        return self.constant(name, self.weights[name])

    def turned(self, name):
        return self.constant(name + ".T", self.weights[name].T)

    def node(self, kind, inputs, name, domain="", outputs=None, **attributes):
        outputs = outputs or [name]
        self.nodes.append(
            helper.make_node(kind, inputs, outputs, name=name, domain=domain, **attributes)
        )
        return outputs[0]


def layer(graph, config, at, rows):
    """One layer: attention and what is fed forward, each added and normed."""
    name = f"encoder.layer.{at}"
    own = f"{name}.attention.self"
    parts = ("query", "key", "value")
    weight = numpy.concatenate([graph.weights[f"{own}.{part}.weight"].T for part in parts], 1)
    bias = numpy.concatenate([graph.weights[f"{own}.{part}.bias"] for part in parts])
    inputs = [
        rows,
        graph.constant(f"{own}.weight", weight),
        graph.constant(f"{own}.bias", bias),
        "mask",
    ]
    heads = config["num_attention_heads"]
    seen = graph.node("Attention", inputs, f"{own}.seen", FUSED, num_heads=heads)
    rows = added(graph, config, f"{name}.attention.output", seen, rows)
    wide = graph.node("MatMul", [rows, graph.turned(f"{name}.intermediate.dense.weight")],
                      f"{name}.wide")
    wide = graph.node("BiasGelu", [wide, graph.weight(f"{name}.intermediate.dense.bias")],
                      f"{name}.gated", FUSED)
    return added(graph, config, f"{name}.output", wide, rows)


def added(graph, config, name, input, rows):
    """A product, added to the rows before it and normed."""
    product = graph.node("MatMul", [input, graph.turned(f"{name}.dense.weight")], f"{name}.product")
    inputs = [
        product,
        rows,
        graph.weight(f"{name}.LayerNorm.weight"),
        graph.weight(f"{name}.LayerNorm.bias"),
        graph.weight(f"{name}.dense.bias"),
    ]
    return graph.node("SkipLayerNormalization", inputs, f"{name}.added", FUSED,
                      epsilon=config["layer_norm_eps"])


def pooled(graph, rows):
    """The mean of the rows that the mask has, brought to length one."""
    mask = graph.node("Cast", ["mask"], "mask.float", to=TensorProto.FLOAT)
    axis = graph.constant("axis", numpy.array([1], numpy.int64))
    mask = graph.node("Unsqueeze", [mask, graph.constant("last", numpy.array([2], numpy.int64))],
                      "mask.rows")
    sums = graph.node("ReduceSum", [graph.node("Mul", [rows, mask], "masked"), axis], "sums",
                      keepdims=0)
    count = graph.node("ReduceSum", [mask, axis], "count", keepdims=0)
    mean = graph.node("Div", [sums, count], "mean")
    return graph.node("LpNormalization", [mean], "vectors", axis=1, p=2)


def main(folder, out):
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
        sys.exit(f"{folder} is no BERT with GELU")
    graph = Graph(tensors(folder / "model.safetensors"))
    embeddings = "embeddings"
    inputs = [
        "tokens",
        "kinds",
        graph.weight(f"{embeddings}.word_embeddings.weight"),
        graph.weight(f"{embeddings}.position_embeddings.weight"),
        graph.weight(f"{embeddings}.token_type_embeddings.weight"),
        graph.weight(f"{embeddings}.LayerNorm.weight"),
        graph.weight(f"{embeddings}.LayerNorm.bias"),
        "mask",
    ]
    rows = graph.node("EmbedLayerNormalization", inputs, "rows", FUSED,
                      outputs=["rows", "mask.index"], epsilon=config["layer_norm_eps"])
    for at in range(config["num_hidden_layers"]):
        rows = layer(graph, config, at, rows)
    vectors = pooled(graph, rows)
    sides = ["texts", "length"]
    given = [helper.make_tensor_value_info(name, TensorProto.INT32, sides)
             for name in ("tokens", "kinds", "mask")]
    made = [helper.make_tensor_value_info(vectors, TensorProto.FLOAT,
                                          ["texts", config["hidden_size"]])]
    whole = helper.make_graph(graph.nodes, "bert", given, made, list(graph.constants.values()))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, 1)]
    # The oldest format that has this set of operators.
    onnx.save(helper.make_model(whole, opset_imports=opsets, ir_version=8), str(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
