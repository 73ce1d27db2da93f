"""The synchronous client: chats, completions, streams, usage, log probabilities, raw responses."""

from checks import KEY, MODEL, QUESTION, STORY, URL, check, done
from openai import OpenAI

client = OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60)

models = client.models.list()
check("models are listed", [model.id for model in models] == [MODEL], models)
check("a model is retrieved", client.models.retrieve(MODEL).id == MODEL)

chat = {"model": MODEL, "messages": QUESTION, "max_tokens": 12, "temperature": 0}
whole = client.chat.completions.create(**chat)
text = whole.choices[0].message.content
check("a chat is answered", bool(text) and whole.choices[0].message.role == "assistant", whole)
check("it ends for a reason", whole.choices[0].finish_reason in ("stop", "length"), whole)
check("usage adds up", whole.usage.total_tokens
      == whole.usage.prompt_tokens + whole.usage.completion_tokens, whole.usage)

pieces = list(client.chat.completions.create(
    **chat, stream=True, stream_options={"include_usage": True}))
streamed = "".join(c.choices[0].delta.content or "" for c in pieces if c.choices)
check("a streamed chat says the same", streamed == text, streamed)
check("the first piece names the role", pieces[0].choices[0].delta.role == "assistant", pieces[0])
check("the last piece carries the usage", pieces[-1].usage == whole.usage
      or pieces[-1].usage.total_tokens == whole.usage.total_tokens, pieces[-1])
check("only the last one does", all(c.usage is None for c in pieces[:-1]))
check("all pieces have one id", len({c.id for c in pieces}) == 1)

with client.chat.completions.stream(**chat) as stream:
    # Not the library's final object: it raises when an answer ends by its length.
    said = "".join(e.delta for e in stream if e.type == "content.delta")
check("the library's own stream of events says the same", said == text, said)

raw = client.chat.completions.with_raw_response.create(**chat)
check("a raw response has a request id", raw.headers["x-request-id"].startswith("req_"))
check("a raw response names the node", raw.headers["x-selvedge-node"] == "giver", raw.headers)
check("a raw response parses", raw.parse().choices[0].message.content == text)

completion = client.completions.create(model=MODEL, prompt=STORY, max_tokens=8, temperature=0)
pieces = list(client.completions.create(
    model=MODEL, prompt=STORY, max_tokens=8, temperature=0, stream=True))
check("a completion streams the same text",
      "".join(c.choices[0].text for c in pieces if c.choices) == completion.choices[0].text)

both = client.completions.create(
    model=MODEL, prompt=["One, two,", "Red, green,"], max_tokens=3, temperature=0)
check("two prompts have two answers", [c.index for c in both.choices] == [0, 1], both)

many = client.chat.completions.create(**{**chat, "temperature": 1, "seed": 3, "n": 2})
check("two answers to one question", [c.index for c in many.choices] == [0, 1], many)

odds = client.chat.completions.create(**chat, logprobs=True, top_logprobs=2)
content = odds.choices[0].logprobs.content
check("log probabilities", all(t.logprob <= 0 and len(t.top_logprobs) == 2 for t in content), odds)

parts = [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}]
check("content in parts", client.chat.completions.create(
    model=MODEL, messages=parts, max_tokens=4).choices[0].message is not None)

with client.chat.completions.create(**{**chat, "max_tokens": 500}, stream=True) as left:
    next(iter(left))
check("a stream can be left", True)
done()
