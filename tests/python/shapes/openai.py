"""OpenAI's chat completions."""

from .common import ARGUMENTS, KEY, Wrong, broken_sse, known, sse, turn

STREAM = "text/event-stream"
garble = broken_sse
PATH = "/v1/chat/completions"
FIELDS = ["model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens"]
FIELDS += ["temperature", "top_p", "tools", "tool_choice", "stop", "n", "user"]


def is_authentic(_, headers, __):
    return headers.get("authorization") == f"Bearer {KEY}"


def understand(path, body):
    return understood(body, body.get("model")) if path == PATH else None


def understood(body, model):
    known("chat.completions", body, FIELDS)
    last = body["messages"][-1]
    calls = [call for message in body["messages"] for call in message.get("tool_calls") or []]
    if last["role"] == "tool" and last["tool_call_id"] not in [call["id"] for call in calls]:
        raise Wrong("a result of no call")
    content = last["content"]
    if isinstance(content, list):
        content = "".join(part["text"] for part in content)
    tools = [tool["function"]["name"] for tool in body.get("tools", [])]
    stream = body.get("stream", False)
    if stream and not body.get("stream_options", {}).get("include_usage"):
        raise Wrong("a stream that does not ask for its usage")
    return turn(model, stream, tools, content if last["role"] == "tool" else None)


def usage(turn):
    if not turn.usage:
        return {}
    counts = {"prompt_tokens": turn.usage[0], "completion_tokens": turn.usage[1]}
    return {"usage": {**counts, "total_tokens": sum(turn.usage)}}


def head(turn, kind):
    return {"id": "c1", "object": kind, "created": 1, "model": turn.model}


def whole(turn):
    message = {"role": "assistant", "content": turn.text}
    reason = "stop"
    if turn.tool:
        function = {"name": turn.tool, "arguments": "".join(ARGUMENTS)}
        calls = [{"id": "call_1", "type": "function", "function": function}]
        message, reason = {"role": "assistant", "content": None, "tool_calls": calls}, "tool_calls"
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    return {**head(turn, "chat.completion"), "choices": [choice], **usage(turn)}


def stream(turn):
    deltas = [{"role": "assistant", "content": ""}]
    if turn.tool:
        function = {"name": turn.tool, "arguments": ""}
        calls = [{"index": 0, "id": "call_1", "type": "function", "function": function}]
        deltas += [{"tool_calls": calls}]
        for piece in ARGUMENTS:
            deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    else:
        deltas += [{"content": word} for word in turn.words]
    own = head(turn, "chat.completion.chunk")
    ended = [None] * len(deltas) + ["tool_calls" if turn.tool else "stop"]
    out = []
    for delta, reason in zip([*deltas, {}], ended):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        out.append(sse({**own, "choices": [choice]}))
    if turn.usage:
        out.append(sse({**own, "choices": [], **usage(turn)}))
    return [*out, b"data: [DONE]\n\n"]


def error(status, message):
    said = {"message": message, "type": "error", "param": None, "code": str(status)}
    return {"error": said}, []
