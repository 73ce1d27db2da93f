"""Anthropic's messages."""

from .common import ARGUMENTS, KEY, Wrong, broken_sse, known, sse, turn

STREAM = "text/event-stream"
garble = broken_sse
FIELDS = ["model", "messages", "max_tokens", "stream", "system", "temperature", "tools"]
FIELDS += ["tool_choice", "stop_sequences", "top_p", "top_k", "metadata", "thinking"]
KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
KINDS |= {429: "rate_limit_error", 500: "api_error"}


def is_authentic(_, headers, __):
    own = headers.get("x-api-key") == KEY and "authorization" not in headers
    return own and headers.get("anthropic-version") == "2023-06-01"


def understand(path, body):
    if path != "/v1/messages":
        return None
    known("messages", body, FIELDS)
    if not isinstance(body.get("max_tokens"), int):
        raise Wrong("no max_tokens")
    last = body["messages"][-1]["content"]
    blocks = [] if isinstance(last, str) else last
    results = [block for block in blocks if block["type"] == "tool_result"]
    result = None
    if results:
        result = results[0]["content"]
        if isinstance(result, list):
            result = "".join(block["text"] for block in result)
    tools = [tool["name"] for tool in body.get("tools", [])]
    return turn(body["model"], body.get("stream", False), tools, result)


def usage(turn):
    if not turn.usage:
        return {}
    return {"usage": {"input_tokens": turn.usage[0], "output_tokens": turn.usage[1]}}


def head(turn):
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": turn.model}


def ended(turn):
    return {"stop_reason": "tool_use" if turn.tool else "end_turn", "stop_sequence": None}


def whole(turn):
    content = {"type": "text", "text": turn.text}
    if turn.tool:
        call = {"type": "tool_use", "id": "toolu_1", "name": turn.tool}
        content = {**call, "input": {"city": "Ghent"}}
    return {**head(turn), "content": [content], **ended(turn), **usage(turn)}


def event(kind, **more):
    return sse({"type": kind, **more}, kind)


def stream(turn):
    open_ = {"content": [], "stop_reason": None, "stop_sequence": None}
    begun = usage(turn._replace(usage=turn.usage and (turn.usage[0], 1)))
    out = [event("message_start", message={**head(turn), **open_, **begun})]
    block = {"type": "text", "text": ""}
    deltas = [{"type": "text_delta", "text": word} for word in turn.words]
    if turn.tool:
        block = {"type": "tool_use", "id": "toolu_1", "name": turn.tool, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ARGUMENTS]
    out.append(event("content_block_start", index=0, content_block=block))
    out += [event("content_block_delta", index=0, delta=delta) for delta in deltas]
    out.append(event("content_block_stop", index=0))
    told = {"usage": {"output_tokens": turn.usage[1]}} if turn.usage else {}
    return [*out, event("message_delta", delta=ended(turn), **told), event("message_stop")]


def error(status, message):
    said = {"type": KINDS[status], "message": message}
    return {"type": "error", "error": said}, []
