"""Answers that hold to a schema: chats and responses, whole and streamed, judged by jsonschema."""

import json

import jsonschema
from checks import KEY, MODEL, URL, check, done
from openai import OpenAI

client = OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60)

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 16},
        "people": {"type": "integer", "minimum": 1, "maximum": 99999999},
        "kind": {"enum": ["port", "capital", "village"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
        "near": {"anyOf": [{"$ref": "#/$defs/place"}, {"type": "null"}]},
    },
    "required": ["city", "people", "kind", "tags", "near"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}},
                        "required": ["name"], "additionalProperties": False}},
}
ASKED = [{"role": "user", "content": "Describe the city of Oslo as JSON."}]
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}


def holds(text):
    value = json.loads(text)
    jsonschema.validate(value, SCHEMA)
    return list(value) == list(SCHEMA["properties"])


def ask(**changes):
    return client.chat.completions.create(**{
        "model": MODEL, "messages": ASKED, "max_tokens": 300, "temperature": 0,
        "response_format": FORMAT, **changes})


whole = ask()
text = whole.choices[0].message.content
check("a chat holds to its schema, in its order", holds(text), text)
check("it ends because it is whole", whole.choices[0].finish_reason == "stop", whole)
for seed in range(4):
    text = ask(temperature=1.5, seed=seed).choices[0].message.content
    check(f"a wild one does, too ({seed})", holds(text), text)

pieces = ask(stream=True)
streamed = "".join(c.choices[0].delta.content or "" for c in pieces if c.choices)
check("a stream says the same", streamed == whole.choices[0].message.content, streamed)

short = ask(max_tokens=5)
check("one that is cut says so", short.choices[0].finish_reason == "length", short)

both = ask(n=2, temperature=1, seed=1)
check("two answers hold to it", all(holds(c.message.content) for c in both.choices), both)

free = ask(response_format={"type": "json_object"}, max_tokens=400)
if free.choices[0].finish_reason == "stop":
    check("an object is one", isinstance(json.loads(free.choices[0].message.content), dict), free)
check("an object begins as one", free.choices[0].message.content.startswith("{"), free)

response = client.responses.create(
    model=MODEL, input="Describe the city of Oslo as JSON.", max_output_tokens=300, temperature=0,
    text={"format": {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}})
check("a response holds to its schema", holds(response.output_text), response)
done()
