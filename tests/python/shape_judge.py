"""A provider's own client library asks shape_server.py: the server has the provider's shape.

`SELVEDGE_SHAPE` is the server's address, `SELVEDGE_KIND` its shape.
"""

import json
import os

from checks import check, done
from shapes.common import AMAZON, KEY, USAGE, WORDS

KIND = os.environ["SELVEDGE_KIND"]
SERVER = os.environ["SELVEDGE_SHAPE"]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
HELLO = "Good morning!"
ASKED = {"name": "weather", "description": "Tells the weather of a city"}


def openai(client, model):
    def ask(model, tools=False, **more):
        messages = [{"role": "user", "content": HELLO}]
        if tools:
            more["tools"] = [{"type": "function", "function": {**ASKED, "parameters": SCHEMA}}]
        return client.chat.completions.create(model=model, messages=messages, **more)

    answer = ask(model)
    yield "text", answer.choices[0].message.content
    yield "usage", (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    chunks = list(ask(model, stream=True, stream_options={"include_usage": True}))
    yield "pieces", [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    yield "usage", (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens)
    call = ask(model, tools=True).choices[0].message.tool_calls[0].function
    yield "call", (call.name, json.loads(call.arguments))
    more = {"stream": True, "stream_options": {"include_usage": True}}
    deltas = [c.choices[0].delta.tool_calls for c in ask(model, tools=True, **more) if c.choices]
    functions = [delta[0].function for delta in deltas if delta]
    arguments = "".join(function.arguments for function in functions)
    yield "call", (functions[0].name, json.loads(arguments))
    yield "busy", refused(lambda: ask("busy"), lambda error: error.status_code)
    yield "broken", refused(lambda: ask("broken"), lambda error: error.status_code)


def judge_openai():
    from openai import OpenAI

    client = OpenAI(base_url=f"{SERVER}/v1", api_key=KEY, max_retries=0)
    yield from openai(client, "large")


def judge_azure():
    from openai import AzureOpenAI

    more = {"api_version": "2024-10-21", "max_retries": 0}
    client = AzureOpenAI(azure_endpoint=SERVER, api_key=KEY, **more)
    yield from openai(client, "large")


def judge_anthropic():
    from anthropic import Anthropic

    client = Anthropic(base_url=SERVER, api_key=KEY, max_retries=0)
    said = {"messages": [{"role": "user", "content": HELLO}], "max_tokens": 50}
    tools = {"tools": [{**ASKED, "input_schema": SCHEMA}]}
    answer = client.messages.create(model="large", **said)
    yield "text", answer.content[0].text
    yield "usage", (answer.usage.input_tokens, answer.usage.output_tokens)
    with client.messages.stream(model="large", **said) as stream:
        yield "pieces", list(stream.text_stream)
        final = stream.get_final_message()
    yield "usage", (final.usage.input_tokens, final.usage.output_tokens)
    call = client.messages.create(model="large", **said, **tools).content[0]
    yield "call", (call.name, call.input)
    with client.messages.stream(model="large", **said, **tools) as stream:
        call = stream.get_final_message().content[0]
    yield "call", (call.name, call.input)
    for name in ("busy", "broken"):
        ask = lambda name=name: client.messages.create(model=name, **said)  # noqa: E731
        yield name, refused(ask, lambda error: error.status_code)


def judge_gemini():
    from google import genai
    from google.genai import types

    options = types.HttpOptions(base_url=SERVER, api_version="v1beta")
    client = genai.Client(api_key=KEY, http_options=options)
    declared = {**ASKED, "parameters_json_schema": SCHEMA}
    tools = types.GenerateContentConfig(tools=[{"function_declarations": [declared]}])

    def usage(answer):
        told = answer.usage_metadata
        return told.prompt_token_count, told.candidates_token_count + told.thoughts_token_count

    answer = client.models.generate_content(model="large", contents=HELLO)
    yield "text", answer.text
    yield "usage", usage(answer)
    chunks = list(client.models.generate_content_stream(model="large", contents=HELLO))
    yield "pieces", [chunk.text for chunk in chunks if chunk.text]
    yield "usage", usage(chunks[-1])
    ask = {"model": "large", "contents": HELLO, "config": tools}
    call = client.models.generate_content(**ask).function_calls[0]
    yield "call", (call.name, call.args)
    chunks = list(client.models.generate_content_stream(**ask))
    call = chunks[0].function_calls[0]
    yield "call", (call.name, call.args)
    vectors = client.models.embed_content(model="gemini-embedding-001", contents=["a b", "c"])
    yield "vectors", [vector.values for vector in vectors.embeddings]
    for name in ("busy", "broken"):
        ask = lambda name=name: client.models.generate_content(model=name, contents=HELLO)  # noqa: E731
        yield name, refused(ask, lambda error: error.code)


def judge_cohere():
    import cohere

    client = cohere.ClientV2(api_key=KEY, base_url=SERVER)
    options = {"request_options": {"max_retries": 0}}
    said = {"messages": [{"role": "user", "content": HELLO}], **options}
    tools = {"tools": [{"type": "function", "function": {**ASKED, "parameters": SCHEMA}}]}

    def usage(told):
        return told.billed_units.input_tokens, told.billed_units.output_tokens

    answer = client.chat(model="large", **said)
    yield "text", answer.message.content[0].text
    yield "usage", usage(answer.usage)
    events = list(client.chat_stream(model="large", **said))
    deltas = [event.delta.message for event in events if event.type == "content-delta"]
    yield "pieces", [delta.content.text for delta in deltas]
    yield "usage", usage(events[-1].delta.usage)
    call = client.chat(model="large", **said, **tools).message.tool_calls[0].function
    yield "call", (call.name, json.loads(call.arguments))
    events = list(client.chat_stream(model="large", **said, **tools))
    calls = [e.delta.message.tool_calls for e in events if e.type in ("tool-call-start", "tool-call-delta")]
    arguments = "".join(call.function.arguments for call in calls)
    yield "call", (calls[0].function.name, json.loads(arguments))
    ask = {"texts": ["a b", "c"], "input_type": "search_query", "embedding_types": ["float"]}
    yield "vectors", client.embed(model="embed-v4.0", **ask).embeddings.float_
    for name in ("busy", "broken"):
        ask = lambda name=name: client.chat(model=name, **said)  # noqa: E731
        yield name, refused(ask, lambda error: error.status_code)


def judge_ollama():
    import ollama

    client = ollama.Client(host=SERVER)
    messages = [{"role": "user", "content": HELLO}]
    tools = [{"type": "function", "function": {**ASKED, "parameters": SCHEMA}}]
    answer = client.chat(model="large", messages=messages)
    yield "text", answer.message.content
    yield "usage", (answer.prompt_eval_count, answer.eval_count)
    lines = list(client.chat(model="large", messages=messages, stream=True))
    yield "pieces", [line.message.content for line in lines if line.message.content]
    yield "usage", (lines[-1].prompt_eval_count, lines[-1].eval_count)
    call = client.chat(model="large", messages=messages, tools=tools).message.tool_calls[0].function
    yield "call", (call.name, call.arguments)
    lines = list(client.chat(model="large", messages=messages, tools=tools, stream=True))
    call = lines[0].message.tool_calls[0].function
    yield "call", (call.name, call.arguments)
    yield "vectors", client.embed(model="nomic-embed-text", input=["a b", "c"]).embeddings
    for name in ("busy", "broken"):
        ask = lambda name=name: client.chat(model=name, messages=messages)  # noqa: E731
        yield name, refused(ask, lambda error: error.status_code)


def judge_bedrock():
    import botocore.session
    from botocore.config import Config

    more = {"aws_access_key_id": AMAZON[0], "aws_secret_access_key": AMAZON[1]}
    more |= {"region_name": "eu-central-1", "endpoint_url": SERVER}
    config = Config(retries={"total_max_attempts": 1})
    client = botocore.session.Session().create_client("bedrock-runtime", config=config, **more)
    said = {"messages": [{"role": "user", "content": [{"text": HELLO}]}]}
    spec = {"toolSpec": {**ASKED, "inputSchema": {"json": SCHEMA}}}
    tools = {"toolConfig": {"tools": [spec]}}
    model = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"

    def usage(told):
        return told["inputTokens"], told["outputTokens"]

    answer = client.converse(modelId=model, **said)
    yield "text", answer["output"]["message"]["content"][0]["text"]
    yield "usage", usage(answer["usage"])
    events = list(client.converse_stream(modelId=model, **said)["stream"])
    deltas = [e["contentBlockDelta"]["delta"] for e in events if "contentBlockDelta" in e]
    yield "pieces", [delta["text"] for delta in deltas]
    yield "usage", usage(events[-1]["metadata"]["usage"])
    content = client.converse(modelId=model, **said, **tools)["output"]["message"]["content"]
    yield "call", (content[0]["toolUse"]["name"], content[0]["toolUse"]["input"])
    events = list(client.converse_stream(modelId=model, **said, **tools)["stream"])
    begun = [e["contentBlockStart"]["start"] for e in events if "contentBlockStart" in e]
    deltas = [e["contentBlockDelta"]["delta"] for e in events if "contentBlockDelta" in e]
    arguments = "".join(delta["toolUse"]["input"] for delta in deltas)
    yield "call", (begun[0]["toolUse"]["name"], json.loads(arguments))
    body = json.dumps({"inputText": "a b"})
    answer = client.invoke_model(modelId="amazon.titan-embed-text-v2:0", body=body)
    yield "vectors", [json.loads(answer["body"].read())["embedding"], None]
    for name in ("busy", "broken"):
        ask = lambda name=name: client.converse(modelId=name, **said)  # noqa: E731
        status = lambda error: error.response["ResponseMetadata"]["HTTPStatusCode"]  # noqa: E731
        yield name, refused(ask, status)


def refused(ask, status):
    try:
        ask()
    except Exception as error:  # each client has exceptions of its own
        return status(error)
    return None


WANTED = {
    "text": "".join(WORDS),
    "pieces": WORDS,
    "usage": USAGE,
    "call": ("weather", {"city": "Ghent"}),
    "busy": 429,
    "broken": 500,
}
for what, got in globals()[f"judge_{KIND}"]():
    if what == "vectors":
        check("its own client reads vectors", len(got) == 2 and len(got[0]) == 8, got)
    else:
        check(f"its own client reads the {what}", got == WANTED[what], got)
done()
