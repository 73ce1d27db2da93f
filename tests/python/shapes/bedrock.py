"""Amazon Bedrock's Converse and ConverseStream.

Signatures are computed anew by Amazon's own library, and requests are checked against the model of
the service that it ships.
"""

import base64
import hmac
import json
import re
import struct
import zlib
from urllib.parse import unquote

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.validate import ParamValidator

from .common import AMAZON, ARGUMENTS, Wrong, turn

STREAM = "application/vnd.amazon.eventstream"
REGION = "eu-central-1"
SERVICE = botocore.session.Session().get_service_model("bedrock-runtime")
KINDS = {400: "ValidationException", 401: "UnrecognizedClientException"}
KINDS |= {404: "ResourceNotFoundException", 429: "ThrottlingException"}
KINDS |= {500: "InternalServerException"}
SIGNED = r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/([^/]+)/bedrock/aws4_request, "
SIGNED += r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})"


def is_authentic(path, headers, raw):
    signed = re.fullmatch(SIGNED, headers.get("authorization", ""))
    if not signed or signed[1] != AMAZON[0] or signed[2] != REGION:
        return False
    names = signed[3].split(";")
    if "host" not in names or "x-amz-date" not in names:
        return False
    own = {name: headers[name] for name in names}
    request = AWSRequest("POST", f"http://{headers['host']}{path}", headers=own, data=raw)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(Credentials(*AMAZON), "bedrock", REGION)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    return hmac.compare_digest(auth.signature(text, request), signed[4])


def understand(path, body):
    asked = re.fullmatch(r"/model/([^/]+)/(converse|converse-stream)", path)
    if not asked:
        return None
    action = "ConverseStream" if asked[2] == "converse-stream" else "Converse"
    given = {"modelId": unquote(asked[1]), **blobs(body)}
    report = ParamValidator().validate(given, SERVICE.operation_model(action).input_shape)
    if report.has_errors():
        raise Wrong(report.generate_report())
    tools = [tool["toolSpec"]["name"] for tool in body.get("toolConfig", {}).get("tools", [])]
    results = [block.get("toolResult") for block in body["messages"][-1]["content"]]
    result = results[0]["content"][0]["text"] if results[0] else None
    if results[0] and not tools:
        raise Wrong("results of tools without toolConfig")
    return turn(unquote(asked[1]), action == "ConverseStream", tools, result)


def blobs(value):
    """Bytes are base64 on the wire."""
    if isinstance(value, dict):
        decode = lambda name, one: base64.b64decode(one) if name == "bytes" else blobs(one)  # noqa: E731
        return {name: decode(name, one) for name, one in value.items()}
    return [blobs(one) for one in value] if isinstance(value, list) else value


def usage(counts):
    prompt, answer = counts
    return {"inputTokens": prompt, "outputTokens": answer, "totalTokens": prompt + answer}


def reason(turn):
    return {"stopReason": "tool_use" if turn.tool else "end_turn"}


def whole(turn):
    block = {"text": turn.text}
    if turn.tool:
        call = {"toolUseId": "tooluse_1", "name": turn.tool}
        block = {"toolUse": {**call, "input": {"city": "Ghent"}}}
    output = {"message": {"role": "assistant", "content": [block]}}
    told = {"usage": usage(turn.usage)} if turn.usage else {}
    return {"output": output, **reason(turn), **told, "metrics": {"latencyMs": 5}}


def header(name, value):
    name, value = name.encode(), value.encode()
    return bytes([len(name)]) + name + b"\x07" + struct.pack(">H", len(value)) + value


def event(kind, payload):
    """One message of Amazon's framing: lengths, their CRC, headers, payload, the CRC of it all."""
    headers = header(":event-type", kind) + header(":content-type", "application/json")
    headers += header(":message-type", "event")
    data = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(data), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + data
    return message + struct.pack(">I", zlib.crc32(message))


def garble(piece):
    """One bit of the payload differs from what the checksum was made of."""
    return piece[:-6] + bytes([piece[-6] ^ 1]) + piece[-5:]


def stream(turn):
    out = [event("messageStart", {"role": "assistant"})]
    deltas = [{"text": word} for word in turn.words]
    if turn.tool:
        start = {"toolUse": {"toolUseId": "tooluse_1", "name": turn.tool}}
        out.append(event("contentBlockStart", {"start": start, "contentBlockIndex": 0}))
        deltas = [{"toolUse": {"input": piece}} for piece in ARGUMENTS]
    for delta in deltas:
        out.append(event("contentBlockDelta", {"delta": delta, "contentBlockIndex": 0}))
    out.append(event("contentBlockStop", {"contentBlockIndex": 0}))
    out.append(event("messageStop", reason(turn)))
    told = {"usage": usage(turn.usage)} if turn.usage else {}
    return [*out, event("metadata", {**told, "metrics": {"latencyMs": 5}})]


def error(status, message):
    return {"message": message}, [("x-amzn-errortype", KINDS[status])]
