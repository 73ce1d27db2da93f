"""Refusals as the client library sees them."""

import openai
from checks import KEY, MODEL, QUESTION, URL, check, done, fails
from openai import OpenAI

client = OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60)
stranger = OpenAI(base_url=URL, api_key="sk-selvedge-wrong", max_retries=0, timeout=60)


def ask(**changes):
    request = {"model": MODEL, "messages": QUESTION, "max_tokens": 4, **changes}
    return client.chat.completions.create(**request)


error = fails("an unknown model", openai.NotFoundError, 404, lambda: ask(model="gpt-17"))
check("its code", error.code == "model_not_found", error.code)
fails("an unknown model, streamed", openai.NotFoundError, 404,
      lambda: ask(model="gpt-17", stream=True))
fails("an unknown model is not retrieved", openai.NotFoundError, 404,
      lambda: client.models.retrieve("gpt-17"))
error = fails("a bad temperature", openai.BadRequestError, 400, lambda: ask(temperature=3))
check("its field", error.param == "temperature", error.param)
error = fails("a tool that nobody runs", openai.BadRequestError, 400, lambda: ask(
    tools=[{"type": "custom", "custom": {"name": "f"}}]))
check("its field", error.param.startswith("tools"), error.param)
error = fails("a schema that answers cannot be held to", openai.BadRequestError, 400,
              lambda: ask(response_format={"type": "json_schema", "json_schema": {
                  "name": "never", "schema": {"not": {"type": "string"}}}}))
check("its field", error.param == "response_format", error.param)
check("its keyword", "not" in error.message, error.message)
error = fails("a grammar that cannot be read", openai.BadRequestError, 400,
              lambda: ask(extra_body={"grammar": "root ::= fruit\n"}))
check("its field", error.param == "grammar", error.param)
check("its line and rule", "line 1" in error.message and "fruit" in error.message, error.message)
error = fails("a regular expression that looks ahead", openai.BadRequestError, 400,
              lambda: ask(extra_body={"structured_outputs": {"regex": "(?=a)b"}}))
check("its field", error.param == "structured_outputs.regex", error.param)
error = fails("two constraints", openai.BadRequestError, 400, lambda: ask(
    extra_body={"structured_outputs": {"choice": ["a"]}, "grammar": 'root ::= "a"'}))
check("its field", error.param == "grammar", error.param)
error = fails("a constraint beside tools", openai.BadRequestError, 400, lambda: ask(
    tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    extra_body={"structured_outputs": {"choice": ["a"]}}))
check("its field", error.param == "structured_outputs.choice", error.param)
fails("a bias", openai.BadRequestError, 400, lambda: ask(logit_bias={"5": 10}))
fails("an empty chat", openai.BadRequestError, 400, lambda: ask(messages=[]))
fails("a wrong key", openai.AuthenticationError, 401, stranger.models.list)
fails("a wrong key for a chat", openai.AuthenticationError, 401,
      lambda: stranger.chat.completions.create(model=MODEL, messages=QUESTION))
check("a good request after all that", bool(ask().choices))
done()
