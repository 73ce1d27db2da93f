"""Ollama's chat. Requests may say what the official client's own types can say."""

import json

from ollama import _types

from .common import Wrong, known, turn

STREAM = "application/x-ndjson"
HEAD = {"created_at": "2026-01-01T00:00:00Z"}


def is_authentic(_, headers, __):
    return "authorization" not in headers


def garble(piece):
    return piece.replace(b"{", b"[", 1)


def understand(path, body):
    if path != "/api/chat":
        return None
    known("ChatRequest", body, _types.ChatRequest.model_fields)
    known("Options", body.get("options") or {}, _types.Options.model_fields)
    for message in body["messages"]:
        # A server takes the ids of calls, which the client's types lack.
        known("Message", message, [*_types.Message.model_fields, "tool_call_id"])
        for call in message.get("tool_calls") or []:
            if not isinstance(call["function"]["arguments"], dict):
                raise Wrong("arguments that are no object")
    last = body["messages"][-1]
    tools = [tool["function"]["name"] for tool in body.get("tools") or []]
    result = last["content"] if last["role"] == "tool" else None
    return turn(body["model"], body.get("stream", True), tools, result)


def done(turn):
    ended = {"done": True, "done_reason": "stop", "total_duration": 5_000_000}
    if turn.usage:
        ended |= {"prompt_eval_count": turn.usage[0], "eval_count": turn.usage[1]}
    return ended


def message(turn, text):
    said = {"role": "assistant", "content": text}
    if turn.tool:
        said["tool_calls"] = [{"function": {"name": turn.tool, "arguments": {"city": "Ghent"}}}]
    return said


def whole(turn):
    text = "" if turn.tool else turn.text
    return {"model": turn.model, **HEAD, "message": message(turn, text), **done(turn)}


def stream(turn):
    head = {"model": turn.model, **HEAD}
    texts = [""] if turn.tool else turn.words
    lines = [{**head, "message": message(turn, text), "done": False} for text in texts]
    lines.append({**head, "message": {"role": "assistant", "content": ""}, **done(turn)})
    return [json.dumps(line).encode() + b"\n" for line in lines]


def error(status, message):
    return {"error": message}, []
