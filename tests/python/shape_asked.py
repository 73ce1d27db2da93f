"""The OpenAI and the Anthropic client library ask one provider's models through the gateway.

`SELVEDGE_KIND` names the provider and its shape, `SELVEDGE_MODEL` its model whose price is known,
`SELVEDGE_SHAPE` its address. `NAME-lab` is the same server without a price, `NAME-hasty` the same with
short limits of time, `NAME-full` the same again, since a key that is told to wait is left alone.
"""

import json
import os
import urllib.request

import anthropic
import openai
import provider_embeddings
from checks import KEY, MODEL, URL, check, done

NAME = os.environ["SELVEDGE_KIND"]
SERVER = os.environ["SELVEDGE_SHAPE"]
WORDS = ["Good", " morning", ",", " how", " are", " you", "?"]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
ABOUT = {"name": "weather", "description": "Tells the weather of a city"}
GHENT = ("weather", {"city": "Ghent"})
# The models of vectors, of those who have them.
VECTORS = {
    "openai": "embed",
    "azure": "text-embedding-3-small",
    "gemini": "gemini-embedding-001",
    "cohere": "embed-v4.0",
    "ollama": "nomic-embed-text",
    "bedrock": "amazon.titan-embed-text-v2:0",
}
# What a refusal of ours may be where a provider is at fault.
REFUSED = (429, 502, 503, 504, 529)
TOLD = "12 degrees, and rain"


class Answer:
    """What any surface told of an answer."""

    def __init__(self, pieces, calls, reason, usage):
        self.pieces, self.calls, self.reason, self.usage = pieces, calls, reason, usage


class Chats:
    """The surface of OpenAI."""

    name = "chat completions"
    errors = (openai.APIError, "code")
    ends = {"stop": "stop", "tool": "tool_calls"}

    def __init__(self):
        self.client = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=30)

    def ask(self, model, stream=False, tools=False, call=None, go=None):
        messages = [{"role": "user", "content": "Good morning!"}]
        more = {}
        if tools:
            more["tools"] = [{"type": "function", "function": {**ABOUT, "parameters": SCHEMA}}]
        if call:
            arguments = json.dumps(call[2])
            function = {"name": call[1], "arguments": arguments}
            calls = [{"id": call[0], "type": "function", "function": function}]
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            messages.append({"role": "tool", "tool_call_id": call[0], "content": TOLD})
        create = self.client.chat.completions.create
        if not stream:
            answer = create(model=model, messages=messages, max_tokens=50, **more)
            choice = answer.choices[0]
            calls = [self.call(one) for one in choice.message.tool_calls or []]
            text = choice.message.content
            return Answer([text] if text else [], calls, choice.finish_reason, self.usage(answer))
        options = {"include_usage": True}
        chunks = create(
            model=model, messages=messages, max_tokens=50, stream=True, stream_options=options, **more
        )
        return self.read(chunks, go)

    def read(self, chunks, go):
        pieces, calls, reason, usage = [], {}, None, None
        for chunk in chunks:
            usage = self.usage(chunk) if chunk.usage else usage
            for choice in chunk.choices:
                reason = choice.finish_reason or reason
                if choice.delta.content:
                    pieces.append(choice.delta.content)
                    go = go and go()
                for part in choice.delta.tool_calls or []:
                    known = calls.setdefault(part.index, ["", "", ""])
                    known[0] += part.id or ""
                    known[1] += part.function.name or ""
                    known[2] += part.function.arguments or ""
        calls = [(id_, name, json.loads(text)) for id_, name, text in calls.values()]
        return Answer(pieces, calls, reason, usage)

    @staticmethod
    def call(one):
        return one.id, one.function.name, json.loads(one.function.arguments)

    @staticmethod
    def usage(answer):
        return answer.usage.prompt_tokens, answer.usage.completion_tokens


class Messages:
    """The surface of Anthropic."""

    name = "messages"
    errors = (anthropic.APIError, "type")
    ends = {"stop": "end_turn", "tool": "tool_use"}

    def __init__(self):
        base = URL.removesuffix("/v1")
        self.client = anthropic.Anthropic(base_url=base, api_key=KEY, max_retries=0, timeout=30)

    def ask(self, model, stream=False, tools=False, call=None, go=None):
        messages = [{"role": "user", "content": "Good morning!"}]
        more = {"tools": [{**ABOUT, "input_schema": SCHEMA}]} if tools else {}
        if call:
            use = {"type": "tool_use", "id": call[0], "name": call[1], "input": call[2]}
            result = {"type": "tool_result", "tool_use_id": call[0], "content": TOLD}
            messages.append({"role": "assistant", "content": [use]})
            messages.append({"role": "user", "content": [result]})
        said = {"model": model, "messages": messages, "max_tokens": 50, **more}
        if not stream:
            return self.read(self.client.messages.create(**said), None)
        with self.client.messages.stream(**said) as events:
            pieces = []
            for event in events:
                if event.type == "text":
                    pieces.append(event.text)
                    go = go and go()
            return self.read(events.get_final_message(), pieces)

    @staticmethod
    def read(message, pieces):
        texts = [block.text for block in message.content if block.type == "text"]
        uses = [block for block in message.content if block.type == "tool_use"]
        calls = [(use.id, use.name, use.input) for use in uses]
        usage = message.usage.input_tokens, message.usage.output_tokens
        return Answer(texts if pieces is None else pieces, calls, message.stop_reason, usage)


def tell(path):
    with urllib.request.urlopen(SERVER + path, timeout=60) as answer:
        return json.load(answer)


def good(surface, model):
    """Answers, whole and piece by piece, with calls of tools and their results."""
    for stream in (False, True):
        what = f"{surface.name}, {'stream' if stream else 'whole'}:"
        answer = surface.ask(model, stream)
        check(f"{what} the text", "".join(answer.pieces) == "".join(WORDS), answer.pieces)
        check(f"{what} its pieces", len(answer.pieces) == (7 if stream else 1), answer.pieces)
        check(f"{what} why it ended", answer.reason == surface.ends["stop"], answer.reason)
        check(f"{what} usage as billed", answer.usage == (21, 7), answer.usage)
        answer = surface.ask(model, stream, tools=True)
        call = answer.calls[0] if answer.calls else None
        check(f"{what} a call of a tool", call and call[1:] == GHENT, answer.calls)
        check(f"{what} why it ended there", answer.reason == surface.ends["tool"], answer.reason)
        check(f"{what} usage of a call", answer.usage == (21, 7), answer.usage)
        answer = surface.ask(model, stream, tools=True, call=call)
        check(f"{what} the tool's result arrives", "".join(answer.pieces) == TOLD, answer.pieces)


def refused(surface, what, model, stream, status, after=None):
    """The surface's own error, before or within the answer."""
    kind, code = surface.errors
    try:
        answer = surface.ask(model, stream)
        check(f"{what} is an error", False, vars(answer))
    except kind as error:
        body = error.body
        body = body.get("error", body) if isinstance(body, dict) else {}
        check(f"{what} has the surface's shape", bool(body.get(code)), (error, error.body))
        check(f"{what} says who it was", NAME in str(body.get("message")), body)
        check(f"{what} does not show the key", "5b1f0c9e7a44" not in str(body).lower(), body)
        seen = getattr(error, "status_code", None)
        check(f"{what}: the status", seen in status, (seen, body))
        if after:
            wait = int(error.response.headers["retry-after"])
            check(f"{what}: when to come back", 0 < wait <= after, wait)


def bad(surface):
    """What goes wrong at the provider."""
    for stream in (False, True):
        how = f"{surface.name}, {'stream' if stream else 'whole'}:"
        refused(surface, f"{how} a failure", f"{NAME}-lab/broken", stream, REFUSED)
        # An answer that has begun has its status.
        begun = (200, None) if stream else REFUSED
        refused(surface, f"{how} a cut", f"{NAME}-lab/cut", stream, begun)
        refused(surface, f"{how} a malformed piece", f"{NAME}-lab/garbled", stream, begun)
        if stream:
            check(f"{how} which is left at once", tell("/left")["left"])
    answer = surface.ask(f"{NAME}-lab/held", stream=True, go=lambda: tell("/go") and None)
    what = f"{surface.name}: byte by byte, the first piece long before the last"
    check(what, "".join(answer.pieces) == "".join(WORDS), answer.pieces)
    check(f"{surface.name}: and its usage", answer.usage == (21, 7), answer.usage)


def slow(surface, stream):
    """What takes its time at the provider: it is left."""
    begun = (200, None) if stream else REFUSED
    # What drips has not said a whole word by then, and where bytes pass it has begun all the same.
    either = (*REFUSED, 200, None)
    for model, status in (("silent", REFUSED), ("stalled", begun), ("drip", either)):
        what = f"{surface.name}: {model}"
        refused(surface, what, f"{NAME}-hasty/{model}", stream, status)
        check(f"{what}, and is left", tell("/left")["left"])


def vectors(client, model):
    """Embeddings, with what the provider counted."""
    answer = client.embeddings.create(model=f"{NAME}-lab/{model}", input=["a b", "c"])
    got = [one.embedding for one in answer.data]
    check("vectors", got == [provider_embeddings.vector(text) for text in ("a b", "c")], got)
    check("usage of vectors", answer.usage.total_tokens == 3, answer.usage)


surfaces = [Chats(), Messages()]
for surface in surfaces:
    good(surface, MODEL)
if NAME in VECTORS:
    vectors(surfaces[0].client, VECTORS[NAME])
for surface in surfaces:
    bad(surface)
slow(surfaces[0], stream=True)
slow(surfaces[1], stream=False)
for surface, model in zip(surfaces, (f"{NAME}-full/busy", f"{NAME}-full/busy-too")):
    for stream in (True, False):
        refused(surface, f"{surface.name}: too many requests", model, stream, REFUSED, after=7)
done()
