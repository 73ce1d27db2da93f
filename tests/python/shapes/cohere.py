"""Cohere's chat, version 2."""

from .common import ARGUMENTS, KEY, Wrong, broken_sse, known, sse, turn

STREAM = "text/event-stream"
garble = broken_sse
FIELDS = ["model", "messages", "stream", "max_tokens", "temperature", "tools", "tool_choice"]
FIELDS += ["p", "k", "stop_sequences", "seed", "response_format", "strict_tools", "thinking"]
FIELDS += ["frequency_penalty", "presence_penalty", "logprobs", "documents", "citation_options"]
MESSAGE = {
    "system": ["role", "content"],
    "user": ["role", "content"],
    "assistant": ["role", "content", "tool_calls", "tool_plan", "citations"],
    "tool": ["role", "content", "tool_call_id"],
}


def is_authentic(_, headers, __):
    return headers.get("authorization") == f"Bearer {KEY}"


def understand(path, body):
    if path != "/v2/chat":
        return None
    known("chat", body, FIELDS)
    for message in body["messages"]:
        known(message["role"], message, MESSAGE[message["role"]])
    last = body["messages"][-1]
    calls = [call for message in body["messages"] for call in message.get("tool_calls", [])]
    if last["role"] == "tool" and last["tool_call_id"] not in [call["id"] for call in calls]:
        raise Wrong("a result of no call")
    tools = [tool["function"]["name"] for tool in body.get("tools", [])]
    content = last["content"]
    if isinstance(content, list):
        content = "".join(part["text"] for part in content)
    result = content if last["role"] == "tool" else None
    return turn(body["model"], body["stream"], tools, result)


def usage(counts):
    billed = {"input_tokens": counts[0], "output_tokens": counts[1]}
    # What is billed is not what was counted: templates are not paid for.
    tokens = {"input_tokens": counts[0] + 490, "output_tokens": counts[1] + 2}
    return {"billed_units": billed, "tokens": tokens}


def finish(turn):
    ended = {"finish_reason": "TOOL_CALL" if turn.tool else "COMPLETE"}
    return {**ended, "usage": usage(turn.usage)} if turn.usage else ended


def call(turn, arguments):
    function = {"name": turn.tool, "arguments": arguments}
    return {"id": f"{turn.tool}_1", "type": "function", "function": function}


def whole(turn):
    message = {"role": "assistant", "content": [{"type": "text", "text": turn.text}]}
    if turn.tool:
        calls = [call(turn, "".join(ARGUMENTS))]
        message = {"role": "assistant", "tool_plan": "I look it up.", "tool_calls": calls}
    return {"id": "c1", "message": message, **finish(turn)}


def event(kind, message=None, **more):
    value = {"type": kind, **more}
    if message is not None:
        value["delta"] = {"message": message}
    return sse(value, kind)


def stream(turn):
    empty = {"content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    out = [event("message-start", {"role": "assistant", **empty}, id="c1")]
    if turn.tool:
        out.append(event("tool-plan-delta", {"tool_plan": "I look it up."}))
        out.append(event("tool-call-start", {"tool_calls": call(turn, "")}, index=0))
        for piece in ARGUMENTS:
            delta = {"tool_calls": {"function": {"arguments": piece}}}
            out.append(event("tool-call-delta", delta, index=0))
        out.append(event("tool-call-end", index=0))
    else:
        out.append(event("content-start", {"content": {"type": "text", "text": ""}}, index=0))
        for word in turn.words:
            out.append(event("content-delta", {"content": {"text": word}}, index=0))
        out.append(event("content-end", index=0))
    end = {"type": "message-end", "delta": finish(turn)}
    return [*out, sse(end, "message-end")]


def error(status, message):
    return {"id": "e1", "message": message}, []
