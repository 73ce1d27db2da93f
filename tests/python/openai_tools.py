"""Tools at a model of the mesh whose template knows none: calls by construction, and their results."""

import json

import jsonschema
import openai
from checks import KEY, MODEL, URL, check, done, fails
from openai import OpenAI

client = OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=120)

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "unit": {"enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
ADD = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#/$defs/n"}},
    "required": ["a", "b"],
    "additionalProperties": False,
    "$defs": {"n": {"type": "integer", "minimum": 0, "maximum": 999}},
}
SCHEMAS = {"weather": WEATHER, "add": ADD}
TOOLS = [{"type": "function", "function": {"name": name, "description": f"{name} of things",
                                           "parameters": schema}}
         for name, schema in SCHEMAS.items()]
ASKED = [{"role": "user", "content": "How warm is it in Oslo?"}]
NAMED = {"type": "function", "function": {"name": "add"}}


def ask(**changes):
    return client.chat.completions.create(**{
        "model": MODEL, "messages": ASKED, "max_tokens": 200, "temperature": 0, "seed": 1,
        "tools": TOOLS, "tool_choice": "required", **changes})


def holds(name, arguments):
    jsonschema.validate(json.loads(arguments), SCHEMAS[name])
    return True


whole = ask()
choice = whole.choices[0]
check("one call is made", len(choice.message.tool_calls or []) == 1, whole)
call = choice.message.tool_calls[0]
check("it ends for its result", choice.finish_reason == "tool_calls", whole)
check("its arguments hold to its schema", holds(call.function.name, call.function.arguments), call)
check("nothing else is said", not choice.message.content, choice.message)
check("its tokens are counted", whole.usage.completion_tokens > 5, whole.usage)

for seed in range(3):
    wild = ask(temperature=1.5, seed=seed, tool_choice=NAMED).choices[0].message.tool_calls[0]
    check(f"a wild one of the named tool holds ({seed})",
          wild.function.name == "add" and holds("add", wild.function.arguments), wild)

deltas, reasons, usage = [], [], None
for chunk in ask(stream=True, stream_options={"include_usage": True}):
    usage = chunk.usage or usage
    for one in chunk.choices:
        deltas += one.delta.tool_calls or []
        reasons += [one.finish_reason] if one.finish_reason else []
check("a stream tells id and name first",
      deltas[0].index == 0 and deltas[0].id and deltas[0].function.name == call.function.name, deltas)
streamed = "".join(delta.function.arguments or "" for delta in deltas)
check("and the same arguments", streamed == call.function.arguments, streamed)
check("and why it ended", reasons == ["tool_calls"], reasons)
check("and what it took", usage.completion_tokens == whole.usage.completion_tokens, usage)

both = ask(n=2, temperature=1, seed=3)
ids = {one.message.tool_calls[0].id for one in both.choices}
check("two answers call, each under an id of its own", len(ids) == 2, both)

again = ASKED + [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}]
for more in ({}, {"tools": openai.omit if hasattr(openai, "omit") else openai.NOT_GIVEN}):
    answer = ask(messages=again, tool_choice=openai.NOT_GIVEN, max_tokens=30, **more)
    said = answer.choices[0].message
    check("a second turn is answered", bool(said.content or said.tool_calls), answer)
words = ask(tool_choice="none", max_tokens=20).choices[0]
check("none calls nothing", words.message.content and not words.message.tool_calls, words)

response = client.responses.create(
    model=MODEL, input="How warm is it in Oslo?", max_output_tokens=200, temperature=0,
    tool_choice="required",
    tools=[{"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}])
calls = [item for item in response.output if item.type == "function_call"]
check("a response calls", len(calls) == 1 and holds("weather", calls[0].arguments), response)
events = list(client.responses.create(
    model=MODEL, input="How warm is it in Oslo?", max_output_tokens=200, temperature=0, stream=True,
    tool_choice={"type": "function", "name": "weather"},
    tools=[{"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}]))
ends = [event for event in events if event.type == "response.function_call_arguments.done"]
check("a streamed one does", len(ends) == 1 and holds("weather", ends[0].arguments), events)
second = client.responses.create(
    model=MODEL, max_output_tokens=30, temperature=0, input=[
        {"role": "user", "content": "How warm is it in Oslo?"},
        {"type": "function_call", "call_id": calls[0].call_id, "name": "weather",
         "arguments": calls[0].arguments},
        {"type": "function_call_output", "call_id": calls[0].call_id, "output": "21 degrees"}])
check("and a second one answers", len(second.output_text) > 0, second)

REFUSED = openai.BadRequestError
fails("two tools of one name", REFUSED, 400, lambda: ask(tools=TOOLS + TOOLS))
fails("a choice that is none of them", REFUSED, 400, lambda: ask(
    tool_choice={"type": "function", "function": {"name": "nobody"}}))
fails("a form beside tools", REFUSED, 400, lambda: ask(response_format={"type": "json_object"}))
error = fails("a schema that nothing can be held to", REFUSED, 400, lambda: ask(tools=[
    {"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"a": {"not": {"type": "string"}}}}}}]))
check("its field", error.param == "tools", error.param)
done()
