"""Answers that hold to a schema: chats and responses, whole and streamed, judged by jsonschema. And
those that hold to a grammar, a regular expression or a list of choices, judged by Python's own."""

import ast
import json
import re

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


def held(question, **extra):
    """A wild answer to a question, held to what vLLM's and llama.cpp's clients say."""
    return client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": question}], max_tokens=120,
        temperature=1.5, seed=7, extra_body=extra)


CHOICES = ["positive", "negative", "neither, nor"]
FEELING = "How does 'What a lovely day!' sound?"
for said in ({"structured_outputs": {"choice": CHOICES}}, {"guided_choice": CHOICES}):
    answer = held(FEELING, **said)
    text = answer.choices[0].message.content
    check("one of the choices is answered", text in CHOICES, text)
    check("it ends because it is whole", answer.choices[0].finish_reason == "stop", answer)

DATE = r"(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
for said in ({"structured_outputs": {"regex": DATE}}, {"guided_regex": DATE}):
    text = held("When was the moon landing?", **said).choices[0].message.content
    check("a regular expression is matched", re.fullmatch(DATE, text), text)

LIST = r"""root ::= item{2,4} # a short list
item ::= "- " [a-zA-Z ]{1,24} "\n"
"""
LISTS = [{"structured_outputs": {"grammar": LIST}}, {"grammar": LIST}, {"guided_grammar": LIST}]
for said in LISTS:
    text = held("Name some fruits.", **said).choices[0].message.content
    check("a grammar is held to", re.fullmatch(r"(- [a-zA-Z ]{1,24}\n){2,4}", text), text)

SUM = r"""root ::= term ([-+*] term)?
term ::= [1-9] [0-9]? | "(" inner ")"
inner ::= [1-9] [0-9]? [-+*] term
"""
for seed in range(4):
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Write a sum."}], max_tokens=60,
        temperature=1, seed=seed, extra_body={"grammar": SUM})
    text = answer.choices[0].message.content
    if answer.choices[0].finish_reason == "stop":
        check(f"a grammar that leads to itself ({seed})", ast.parse(text, mode="eval"), text)
    check("no letter is in it", not re.search("[a-z ]", text), text)

said = {"structured_outputs": {"json": SCHEMA}}
text = held("Describe the city of Oslo as JSON.", **said, max_tokens=300).choices[0].message.content
check("a schema is one by another name", holds(text), text)

text = client.completions.create(
    model=MODEL, prompt="The sea is", max_tokens=8, temperature=0,
    extra_body={"structured_outputs": {"choice": ["blue", "deep"]}}).choices[0].text
check("a text goes on with one of the choices", text in ("blue", "deep"), text)

pieces = client.chat.completions.create(
    model=MODEL, messages=ASKED, max_tokens=60, temperature=0, stream=True,
    extra_body={"grammar": LIST})
streamed = "".join(c.choices[0].delta.content or "" for c in pieces if c.choices)
check("a stream holds to a grammar", re.match(r"- [a-zA-Z ]+", streamed), streamed)
done()
