"""Google's Gemini API: `v1beta/models/MODEL:generateContent` and `:streamGenerateContent`.

Requests are read by the official client's own types, which know no other fields.
"""

import re

from google.genai import types
from pydantic import ValidationError

from .common import KEY, Wrong, broken_sse, known, sse, turn

STREAM = "text/event-stream"
garble = broken_sse
STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND"}
STATUS |= {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL"}
TYPES = {
    "contents": types.Content,
    "systemInstruction": types.Content,
    "tools": types.Tool,
    "toolConfig": types.ToolConfig,
    "generationConfig": types.GenerationConfig,
}


def is_authentic(path, headers, _):
    return headers.get("x-goog-api-key") == KEY and "key=" not in path


def understand(path, body):
    asked = re.fullmatch(r"/v1beta/models/([^/:]+):(generateContent|streamGenerateContent\?alt=sse)", path)
    if not asked:
        return None
    known("GenerateContentRequest", body, TYPES)
    try:
        for name, given in body.items():
            for one in given if isinstance(given, list) else [given]:
                TYPES[name].model_validate(one)
    except ValidationError as error:
        raise Wrong(str(error)) from error
    for content in body["contents"]:
        if content["role"] not in ("user", "model"):
            raise Wrong(f"a role {content['role']}")
    declared = [one for tool in body.get("tools", []) for one in tool["functionDeclarations"]]
    results = [part.get("functionResponse") for part in body["contents"][-1]["parts"]]
    result = results[0]["response"]["output"] if results[0] else None
    if results[0] and results[0]["name"] not in [one["name"] for one in declared]:
        raise Wrong("a result of no tool")
    return turn(asked[1], "stream" in asked[2], [one["name"] for one in declared], result)


def usage(counts):
    prompt, answer = counts
    total = {"totalTokenCount": prompt + answer}
    # Thinking is counted beside the answer, and billed with it.
    thought = {"thoughtsTokenCount": 3, "candidatesTokenCount": answer - 3}
    return {"promptTokenCount": prompt, **thought, **total}


def chunk(turn, parts, last):
    candidate = {"content": {"role": "model", "parts": parts}, "index": 0}
    if last:
        candidate["finishReason"] = "STOP"
    answer = {"candidates": [candidate], "modelVersion": turn.model, "responseId": "r1"}
    # Each chunk tells the count so far.
    if turn.usage and last:
        answer["usageMetadata"] = usage(turn.usage)
    elif turn.usage:
        answer["usageMetadata"] = {"promptTokenCount": turn.usage[0]}
    return answer


def parts(turn):
    if turn.tool:
        call = {"name": turn.tool, "args": {"city": "Ghent"}}
        return [{"functionCall": call, "thoughtSignature": "c2lnbmVk"}]
    return [{"text": word} for word in turn.words]


def whole(turn):
    return chunk(turn, parts(turn) if turn.tool else [{"text": turn.text}], last=True)


def stream(turn):
    pieces = [sse(chunk(turn, [part], last=False)) for part in parts(turn)]
    return [*pieces, sse(chunk(turn, [{"text": ""}], last=True))]


def error(status, message):
    wait = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}
    details = [wait] if status == 429 else []
    said = {"code": status, "message": message, "status": STATUS[status], "details": details}
    return {"error": said}, []
