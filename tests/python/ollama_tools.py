"""Tools at a model of the mesh, asked by the Ollama client library, which cannot say that a call
must be made: what comes is words or calls, and a turn with a call in its past is answered."""

import ollama
from checks import KEY, MODEL, URL, check, done

client = ollama.Client(host=URL.removesuffix("/v1"), timeout=120,
                       headers={"authorization": f"Bearer {KEY}"})
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Tells the weather.",
          "parameters": {"type": "object", "properties": {"city": {"type": "string"}},
                         "required": ["city"]}}}]
ASKED = [{"role": "user", "content": "How warm is it in Oslo?"}]
options = {"num_predict": 40, "temperature": 0}

check("a model says that it takes tools", "tools" in client.show(MODEL).capabilities)
answer = client.chat(model=MODEL, messages=ASKED, tools=TOOLS, options=options)
message = answer.message
check("a chat with tools is answered", bool(message.content or message.tool_calls), answer)
check("tools are part of the prompt", answer.prompt_eval_count > 100, answer)
parts = list(client.chat(model=MODEL, messages=ASKED, tools=TOOLS, options=options, stream=True))
text = "".join(part.message.content or "" for part in parts)
check("a stream says the same", text == (message.content or ""), text)
again = ASKED + [
    {"role": "assistant", "content": "", "tool_calls": [
        {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}]},
    {"role": "tool", "tool_name": "weather", "content": "21 degrees"}]
second = client.chat(model=MODEL, messages=again, tools=TOOLS, options=options)
check("a second turn is answered",
      bool(second.message.content or second.message.tool_calls), second)
done()
