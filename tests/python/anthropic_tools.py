"""Tools at a model of the mesh, asked by the Anthropic client library."""

from anthropic import Anthropic
from checks import KEY, MODEL, URL, check, done

client = Anthropic(base_url=URL.removesuffix("/v1"), api_key=KEY, max_retries=0, timeout=120)
TOOLS = [{"name": "weather", "description": "The weather in a city.", "input_schema": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"], "additionalProperties": False}}]
ASKED = [{"role": "user", "content": "How warm is it in Oslo?"}]


def more(choice):
    return {"model": MODEL, "max_tokens": 200, "temperature": 0, "tools": TOOLS,
            "tool_choice": choice}


for choice in ({"type": "any"}, {"type": "tool", "name": "weather"}):
    answer = client.messages.create(messages=ASKED, **more(choice))
    check(f"{choice} calls", [block.type for block in answer.content] == ["tool_use"], answer)
    check("and ends for the result", answer.stop_reason == "tool_use", answer)
    check("with its arguments", list(answer.content[0].input) == ["city"], answer)

kinds, pieces = [], []
with client.messages.stream(messages=ASKED, **more({"type": "any"})) as stream:
    for event in stream:
        if event.type == "content_block_start":
            kinds.append(event.content_block.type)
        if event.type == "content_block_delta" and event.delta.type == "input_json_delta":
            pieces.append(event.delta.partial_json)
    final = stream.get_final_message()
check("a stream has one block of a call", kinds == ["tool_use"] and any(pieces), kinds)
check("with the same arguments", final.content[0].input == answer.content[0].input, final)
check("and why it ended", final.stop_reason == "tool_use", final)

use = final.content[0]
result = {"type": "tool_result", "tool_use_id": use.id, "content": "21 degrees"}
second = client.messages.create(**{**more({"type": "auto"}), "max_tokens": 30, "messages": ASKED + [
    {"role": "assistant", "content": final.content},
    {"role": "user", "content": [result, {"type": "text", "text": "Is that warm?"}]}]})
check("a second turn is answered", len(second.content) > 0, second)
check("tools are part of the prompt", second.usage.input_tokens > 100, second)
done()
