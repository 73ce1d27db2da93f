"""A provider on a loopback port: the shapes of OpenAI's chat completions and Anthropic's messages,
and of embeddings everywhere.

The model asked for chooses what happens: most answer, the names in TROUBLE do something else. GET
/seen tells what was received, so that a test can look at bodies and headers.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import provider_embeddings

WORDS = ["Good", " morning", ",", " how", " are", " you", "?"]
USAGE = {"prompt": 21, "answer": 7}
# What is answered where a schema is asked for, and what tools are called with.
FORECAST = '{"city": "Ghent", "degrees": 12}'
ARGUMENTS = ['{"city"', ': "Ghent"}']
seen = []
left = threading.Event()
go = threading.Event()


def openai_usage():
    total = USAGE["prompt"] + USAGE["answer"]
    return {
        "prompt_tokens": USAGE["prompt"],
        "completion_tokens": USAGE["answer"],
        "total_tokens": total,
    }


def anthropic_usage(answer):
    return {"input_tokens": USAGE["prompt"], "output_tokens": answer}


def begun_in(body):
    """The beginning of an answer that is to be gone on with."""
    last = body["messages"][-1]
    content = last["content"] if last["role"] == "assistant" else ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def rest_of(words, body):
    """What is left to say after it, cut otherwise than before."""
    begun, whole = begun_in(body), "".join(words)
    if not begun or not whole.startswith(begun):
        return words
    rest = whole[len(begun) :]
    return [rest[at : at + 5] for at in range(0, len(rest), 5)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/go":
            go.set()
        # Whoever asks for it waits until a client has left in the middle of an answer.
        gone = left.wait(20) if self.path == "/left" else left.is_set()
        if self.path == "/left":
            left.clear()
        self.whole(200, {"seen": seen, "left": gone})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen.append({"path": self.path, "headers": headers, "body": body})
        vectors = provider_embeddings.answer(self.path, body)
        model = body.get("model")
        if vectors:
            self.whole(*vectors)
        elif model in TROUBLE:
            TROUBLE[model](self, body)
        elif self.path == "/v1/chat/completions":
            self.openai(body)
        elif self.path == "/v1/completions":
            self.openai_text(body)
        elif self.path == "/v1/messages":
            self.anthropic(body)
        elif self.path == "/v1/messages/count_tokens":
            self.whole(200, {"input_tokens": 42})
        else:
            self.whole(404, {"error": {"message": "no such path", "type": "not_found"}})

    def whole(self, status, value, headers=()):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def begin(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, value, name=None):
        head = f"event: {name}\n" if name else ""
        self.chunk(f"{head}data: {json.dumps(value)}\n\n".encode())

    def end(self):
        self.wfile.write(b"0\r\n\r\n")

    def openai(self, body, stop_after=None):
        head = {"id": "chatcmpl-up", "created": 1, "model": body["model"]}
        if body.get("tools"):
            return self.openai_tool(body, head)
        schema = body.get("response_format", {}).get("type") == "json_schema"
        words = [FORECAST] if schema else WORDS
        if body.get("continue_final_message"):
            words = rest_of(words, body)
        if not body.get("stream"):
            message = {"role": "assistant", "content": "".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            if body.get("logprobs"):
                tokens = [{"token": word, "logprob": -2.5, "bytes": None} for word in words]
                for token in tokens:
                    token["top_logprobs"] = []
                choice["logprobs"] = {"content": tokens, "refusal": None}
            answer = {**head, "object": "chat.completion", "choices": [choice]}
            return self.whole(200, {**answer, "usage": openai_usage()})
        self.begin()
        head["object"] = "chat.completion.chunk"

        def delta(delta, reason=None):
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            if body.get("logprobs") and delta.get("content"):
                token = {"token": delta["content"], "logprob": -2.5, "bytes": None}
                choice["logprobs"] = {"content": [{**token, "top_logprobs": []}], "refusal": None}
            self.event({**head, "choices": [choice]})

        delta({"role": "assistant", "content": ""})
        for count, word in enumerate(words):
            if count == stop_after:
                self.close_connection = True
                return
            delta({"content": word})
        delta({}, "stop")
        if body.get("stream_options", {}).get("include_usage"):
            self.event({**head, "choices": [], "usage": openai_usage()})
        self.chunk(b"data: [DONE]\n\n")
        self.end()

    def openai_text(self, body):
        head = {"id": "cmpl-up", "object": "text_completion", "created": 1, "model": body["model"]}

        def choice(text, reason=None):
            choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
            if text and body.get("logprobs") is not None:
                choice["logprobs"] = {
                    "tokens": [text],
                    "token_logprobs": [-2.5],
                    "top_logprobs": [{text: -2.5}],
                    "text_offset": [0],
                }
            return choice

        if not body.get("stream"):
            answer = {**head, "choices": [choice(body["prompt"] + "".join(WORDS), "stop")]}
            return self.whole(200, {**answer, "usage": openai_usage()})
        self.begin()
        for word in WORDS:
            self.event({**head, "choices": [choice(word)]})
        self.event({**head, "choices": [choice("", "stop")]})
        if body.get("stream_options", {}).get("include_usage"):
            self.event({**head, "choices": [], "usage": openai_usage()})
        self.chunk(b"data: [DONE]\n\n")
        self.end()

    def openai_tool(self, body, head):
        if body["messages"][-1]["role"] == "tool":
            return self.openai({**body, "tools": None})
        name = body["tools"][0]["function"]["name"]
        call = {"id": "call_1", "type": "function"}
        if body.get("stream"):
            return self.openai_tool_stream(body, head, name, call)
        call["function"] = {"name": name, "arguments": "".join(ARGUMENTS)}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        answer = {**head, "object": "chat.completion", "choices": [choice]}
        self.whole(200, {**answer, "usage": openai_usage()})

    def openai_tool_stream(self, body, head, name, call):
        self.begin()
        head = {**head, "object": "chat.completion.chunk"}
        first = {"index": 0, **call, "function": {"name": name, "arguments": ""}}
        pieces = [{"index": 0, "function": {"arguments": piece}} for piece in ARGUMENTS]
        for count, piece in enumerate([first, *pieces]):
            role = {"role": "assistant", "content": None} if count == 0 else {}
            choice = {"index": 0, "delta": {**role, "tool_calls": [piece]}, "finish_reason": None}
            self.event({**head, "choices": [choice]})
        ended = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
        self.event({**head, "choices": [ended]})
        if body.get("stream_options", {}).get("include_usage"):
            self.event({**head, "choices": [], "usage": openai_usage()})
        self.chunk(b"data: [DONE]\n\n")
        self.end()

    def anthropic(self, body, stop_after=None):
        answered = isinstance(body["messages"][-1]["content"], list) and any(
            block["type"] == "tool_result" for block in body["messages"][-1]["content"]
        )
        called = None if answered else body.get("tools")
        tool = called and {"type": "tool_use", "id": "toolu_1", "name": called[0]["name"]}
        head = {"id": "msg_up", "type": "message", "role": "assistant", "model": body["model"]}
        if not body.get("stream"):
            content = [{"type": "text", "text": "".join(WORDS)}]
            if tool:
                content = [{**tool, "input": {"city": "Ghent"}}]
            usage = anthropic_usage(USAGE["answer"])
            ended = {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None}
            return self.whole(200, {**head, "content": content, **ended, "usage": usage})
        self.begin()
        empty = {"content": [], "stop_reason": None, "stop_sequence": None}
        message = {**head, **empty, "usage": anthropic_usage(1)}
        self.event({"type": "message_start", "message": message}, "message_start")
        block = {"type": "content_block_start", "index": 0}
        opened = {**tool, "input": {}} if tool else {"type": "text", "text": ""}
        self.event({**block, "content_block": opened}, "content_block_start")
        words = ARGUMENTS if tool else rest_of(WORDS, body)
        for count, word in enumerate(words):
            if count == stop_after:
                self.close_connection = True
                return
            delta = {"type": "text_delta", "text": word}
            if tool:
                delta = {"type": "input_json_delta", "partial_json": word}
            self.event(
                {"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta"
            )
        self.event({"type": "content_block_stop", "index": 0}, "content_block_stop")
        ended = {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None}
        usage = {"output_tokens": USAGE["answer"]}
        self.event({"type": "message_delta", "delta": ended, "usage": usage}, "message_delta")
        self.event({"type": "message_stop"}, "message_stop")
        self.end()

    def busy(self, _):
        error = {"message": "slow down", "type": "rate_limit_error", "code": "rate_limit"}
        self.whole(429, {"error": error}, [("retry-after", "7")])

    def broken(self, _):
        self.whole(500, {"error": {"message": "we are sorry", "type": "server_error"}})

    def cut(self, body):
        self.openai(body, stop_after=3)

    def cut_once(self, body):
        """Breaks off, and goes on after its own beginning."""
        begun = begun_in(body)
        if begun != begun.rstrip():
            error = {"type": "invalid_request_error", "message": "no space at the end"}
            return self.whole(400, {"type": "error", "error": error})
        self.anthropic(body, stop_after=None if begun else 3)

    def held(self, body):
        """Answers once somebody has asked for /go."""
        go.wait(60)
        self.openai(body)

    def talkative(self, body):
        """Never ends by itself; notes when its client leaves."""
        self.begin()
        head = {"id": "chatcmpl-up", "created": 1, "model": body["model"]}
        head["object"] = "chat.completion.chunk"
        try:
            while True:
                choice = {"index": 0, "delta": {"content": "on and "}, "finish_reason": None}
                self.event({**head, "choices": [choice]})
        except (BrokenPipeError, ConnectionResetError):
            left.set()
            self.close_connection = True


TROUBLE = {
    "busy": Handler.busy,
    "broken": Handler.broken,
    "cut": Handler.cut,
    "claude-3-haiku-20240307": Handler.cut_once,
    "held": Handler.held,
    "talkative": Handler.talkative,
}

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"ready {server.server_port}", flush=True)
sys.stdout.flush()
server.serve_forever()
