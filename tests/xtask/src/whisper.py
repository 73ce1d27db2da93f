"""Lays a Whisper model of CTranslate2 out as Hugging Face does.

    python3 whisper.py MODEL.BIN CONFIG.JSON TOKENIZER.JSON FOLDER

Runs nothing of the package that the files are from, and needs Python alone: tensors are cut out of
the one file and put into the other as the bytes they are (half precision). The layout of the file
is that of CTranslate2's "model_spec.py": a version, names and numbers with their lengths before
them.
"""

import json
import struct
import sys
from pathlib import Path

BINARY, CONFIG, TOKENIZER, FOLDER = map(Path, sys.argv[1:])
HALF = 4  # The number of half precision among CTranslate2's types.
source = BINARY.open("rb")


def numbers(form):
    return struct.unpack("<" + form, source.read(struct.calcsize("<" + form)))


def name():
    (length,) = numbers("H")
    return source.read(length)[:-1].decode()


found, scalars = {}, {}
version = numbers("I")
if (version, name()) != ((6,), "WhisperSpec"):
    sys.exit("not a Whisper model of the version that is read here")
numbers("I")
(count,) = numbers("I")
for _ in range(count):
    key = name()
    (rank,) = numbers("B")
    shape = numbers(f"{rank}I")
    kind, length = numbers("BI")
    data = source.read(length)
    if rank:
        found[key] = (list(shape), kind, data)
    elif length == 2:
        (scalars[key],) = struct.unpack("<h", data)

tensors = {}


def put(target, key, parts=1, at=0):
    """One of the equal parts that a tensor has along its first side."""
    shape, kind, data = found[key]
    if kind != HALF:
        sys.exit(f"{key} is not in half precision")
    size = len(data) // parts
    tensors[target] = ([shape[0] // parts, *shape[1:]], data[at * size : (at + 1) * size])


def linear(target, key, parts=1, at=0):
    put(f"{target}.weight", f"{key}/weight", parts, at)
    put(f"{target}.bias", f"{key}/bias", parts, at)


def norm(target, key):
    put(f"{target}.weight", f"{key}/gamma")
    put(f"{target}.bias", f"{key}/beta")


def attention(target, key, cross):
    # Of itself queries, keys and values are one tensor; of another, keys and values are.
    places = [(0, 1, 0), (1, 2, 0), (1, 2, 1)] if cross else [(0, 3, at) for at in range(3)]
    for part, (number, parts, at) in zip("qkv", places, strict=True):
        linear(f"{target}.{part}_proj", f"{key}/linear_{number}", parts, at)
        if part == "k":
            # It is all zeros here, and not there.
            del tensors[f"{target}.k_proj.bias"]
    linear(f"{target}.out_proj", f"{key}/linear_{2 if cross else 1}")
    norm(f"{target}_layer_norm", f"{key}/layer_norm")


layers = {}
for side in ("encoder", "decoder"):
    here = f"model.{side}"
    put(f"{here}.embed_positions.weight", f"{side}/position_encodings/encodings")
    norm(f"{here}.layer_norm", f"{side}/layer_norm")
    at = 0
    while f"{side}/layer_{at}/ffn/linear_0/weight" in found:
        layer, key = f"{here}.layers.{at}", f"{side}/layer_{at}"
        attention(f"{layer}.self_attn", f"{key}/self_attention", False)
        if side == "decoder":
            attention(f"{layer}.encoder_attn", f"{key}/attention", True)
        linear(f"{layer}.fc1", f"{key}/ffn/linear_0")
        linear(f"{layer}.fc2", f"{key}/ffn/linear_1")
        norm(f"{layer}.final_layer_norm", f"{key}/ffn/layer_norm")
        at += 1
    layers[side] = at
for convolution in ("conv1", "conv2"):
    linear(f"model.encoder.{convolution}", f"encoder/{convolution}")
put("model.decoder.embed_tokens.weight", "decoder/embeddings/weight")

header, place = {}, 0
for key in sorted(tensors):
    shape, data = tensors[key]
    header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [place, place + len(data)]}
    place += len(data)
text = json.dumps(header, separators=(",", ":")).encode()
text += b" " * (-len(text) % 8)
FOLDER.mkdir(parents=True, exist_ok=True)
with (FOLDER / "model.safetensors").open("wb") as out:
    out.write(struct.pack("<Q", len(text)) + text)
    for key in sorted(tensors):
        out.write(tensors[key][1])

said = json.loads(CONFIG.read_text())


def shape_of(key):
    return tensors[key][0]


width = shape_of("model.encoder.conv1.weight")[0]
config = {"model_type": "whisper", "activation_function": "gelu", "d_model": width}
for side in ("encoder", "decoder"):
    config[f"{side}_layers"] = layers[side]
    config[f"{side}_attention_heads"] = scalars[f"{side}/num_heads"]
    config[f"{side}_ffn_dim"] = shape_of(f"model.{side}.layers.0.fc1.weight")[0]
config |= {
    "num_mel_bins": shape_of("model.encoder.conv1.weight")[1],
    "max_source_positions": shape_of("model.encoder.embed_positions.weight")[0],
    "max_target_positions": shape_of("model.decoder.embed_positions.weight")[0],
    "vocab_size": shape_of("model.decoder.embed_tokens.weight")[0],
}
writing = {
    "is_multilingual": config["vocab_size"] >= 51_865,
    "suppress_tokens": said["suppress_ids"],
    "begin_suppress_tokens": said["suppress_ids_begin"],
}
(FOLDER / "config.json").write_text(json.dumps(config, indent=2) + "\n")
(FOLDER / "generation_config.json").write_text(json.dumps(writing) + "\n")
(FOLDER / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
