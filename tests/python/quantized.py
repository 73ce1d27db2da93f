"""Reads two GGUF files with llama.cpp's own Python package and compares what they hold.

Arguments: the file before, the file after, and what `selvedge models quantize --json` said.
"""

import json
import sys

import gguf
import numpy


def check(what, good, seen=None):
    if not good:
        print(f"FAILED {what}: {seen!r}", file=sys.stderr, flush=True)
        sys.exit(1)


def numbers(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float64)


before, after = gguf.GGUFReader(sys.argv[1]), gguf.GGUFReader(sys.argv[2])
with open(sys.argv[3], encoding="utf-8") as file:
    told = json.load(file)
own = {"general.file_type", "general.quantization_version", "GGUF.version", "GGUF.tensor_count"}
own |= {"GGUF.kv_count"}
for name, field in before.fields.items():
    if name in own:
        continue
    same = after.fields.get(name)
    check(f"entry {name}", same is not None and same.contents() == field.contents())
kind = gguf.LlamaFileType(after.fields["general.file_type"].contents())
check("file type", kind.name == f"MOSTLY_{told['type']}", kind)
old = {tensor.name: tensor for tensor in before.tensors}
check("tensors", sorted(old) == sorted(tensor.name for tensor in after.tensors))
said = {tensor["name"]: tensor for tensor in told["tensors"]}
changed = 0
for tensor in after.tensors:
    one = said[tensor.name]
    check(f"type of {tensor.name}", tensor.tensor_type.name == one["to"], tensor.tensor_type)
    check(f"sides of {tensor.name}", list(tensor.shape) == list(old[tensor.name].shape))
    if one["from"] == one["to"]:
        check(f"{tensor.name} is as it was", (tensor.data == old[tensor.name].data).all())
        continue
    changed += 1
    exact, found = numbers(old[tensor.name]), numbers(tensor)
    error = numpy.linalg.norm(exact - found) / numpy.linalg.norm(exact)
    check(f"loss of {tensor.name}", abs(error - one["error"]) < 1e-4, (error, one))
    check(f"loss of {tensor.name} is small", error < 0.2, error)
check("something was turned", changed > 0)
print(f"{changed} of {len(said)} tensors turned, all good")
