// The openai package asks models of the node and of providers, whatever the providers speak.

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { ANTHROPIC, KEY, MODEL, QUESTION, SAID, SPENT, URL } from "./checks.js";
import { check, done, fails, left } from "./checks.js";

const made = (apiKey) => new OpenAI({ baseURL: URL, apiKey, maxRetries: 0, timeout: 60_000 });
const client = made(KEY);
const ask = (model, more = {}, options) =>
  client.chat.completions.create({ model, messages: QUESTION, max_tokens: 50, ...more }, options);

const names = [];
for await (const model of client.models.list()) names.push(model.id);
check("models are listed", names.includes("lab/large") && names.includes(MODEL), names);

for (const model of ["lab/large", ANTHROPIC]) {
  const answer = await ask(model);
  check(`${model} answers`, answer.choices[0].message.content === SAID, answer);
  check(`${model}: why it ended`, answer.choices[0].finish_reason === "stop", answer);
  const { prompt_tokens, completion_tokens } = answer.usage;
  check(`${model}: usage as billed`, prompt_tokens === 21 && completion_tokens === 7, answer);

  const stream = await ask(model, { stream: true, stream_options: { include_usage: true } });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const words = chunks.map((chunk) => chunk.choices[0]?.delta?.content).filter(Boolean);
  check(`${model} streams`, words.join("") === SAID, words);
  check(`${model}: piece by piece`, words.length === 7, words);
  check(`${model}: a stream's usage`, chunks.at(-1).usage.total_tokens === 28, chunks.at(-1));
}

const local = await ask(MODEL, { max_tokens: 12, temperature: 0 });
check("a model of the mesh answers", local.usage.completion_tokens === 12, local);
check("and says why it ended", local.choices[0].finish_reason === "length", local);

const weather = {
  type: "function",
  function: {
    name: "weather",
    description: "Tells the weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } } },
  },
};
for (const model of ["lab/large", ANTHROPIC]) {
  const answer = await ask(model, { tools: [weather] });
  const [call] = answer.choices[0].message.tool_calls;
  check(`${model} calls a tool`, call.function.name === "weather", answer);
  check(`${model}: with arguments`, JSON.parse(call.function.arguments).city === "Ghent", call);
  check(`${model}: and says so`, answer.choices[0].finish_reason === "tool_calls", answer);

  const runner = client.chat.completions.stream({
    model,
    messages: QUESTION,
    max_tokens: 50,
    tools: [weather],
  });
  const [streamed] = (await runner.finalChatCompletion()).choices[0].message.tool_calls;
  check(`${model} calls in a stream`, streamed.function.arguments === '{"city": "Ghent"}', streamed);
  const after = [
    ...QUESTION,
    answer.choices[0].message,
    { role: "tool", tool_call_id: call.id, content: "12 degrees" },
  ];
  const last = await ask(model, { messages: after, tools: [weather] });
  check(`${model} goes on with the result`, last.choices[0].message.content === SAID, last);
}

const Forecast = z.object({ city: z.string(), degrees: z.number() });
const parsed = await client.chat.completions.parse({
  model: "lab/large",
  messages: QUESTION,
  max_tokens: 50,
  response_format: zodResponseFormat(Forecast, "forecast"),
});
check("an answer has a shape", parsed.choices[0].message.parsed.degrees === 12, parsed);
const shaped = await client.responses.parse({
  model: "lab/large",
  input: "Good morning!",
  store: false,
  text: { format: zodTextFormat(Forecast, "forecast") },
});
check("a response has a shape", shaped.output_parsed.city === "Ghent", shaped);

const response = await client.responses.create({ model: ANTHROPIC, input: "Hi", store: false });
check("a response is made", response.output_text === SAID, response);
const events = [];
const told = { model: ANTHROPIC, input: "Hi", store: false, stream: true };
for await (const event of await client.responses.create(told)) events.push(event);
check("and streamed", events.at(-1).type === "response.completed", events.at(-1));

const vectors = await client.embeddings.create({ model: "vectors/embed", input: ["a b", "c"] });
check("texts become vectors", vectors.data.length === 2, vectors);
check("which are numbers", typeof vectors.data[1].embedding[0] === "number", vectors.data[1]);
check("and are counted", vectors.usage.total_tokens === 3, vectors.usage);

const wrong = made("sk-selvedge-wrong").chat.completions;
const body = { model: MODEL, messages: QUESTION, max_tokens: 9, temperature: 0 };
const refused = await fails("a wrong key", OpenAI.AuthenticationError, () => wrong.create(body));
check("its code", refused.code === "unauthorized", refused.error);
const spent = await fails("a spent budget", OpenAI.RateLimitError, () =>
  made(SPENT).chat.completions.create(body),
);
check("its code", spent.code === "budget_exhausted", spent.error);
check("when to come back", Number(spent.headers.get("retry-after")) > 0, spent.headers);
const nobody = await fails("no such model", OpenAI.NotFoundError, () => ask("nobody"));
check("it is named", nobody.param === "model", nobody.error);
await fails("a wrong value", OpenAI.BadRequestError, () => ask(MODEL, { temperature: 9 }));
await fails("a broken provider", OpenAI.InternalServerError, () => ask("lab/broken"));

const endless = await ask("lab/talkative", { stream: true });
let pieces = 0;
for await (const _ of endless) {
  pieces += 1;
  if (pieces === 3) endless.controller.abort();
}
check("who leaves is followed to the provider", await left(), pieces);
const stopping = new AbortController();
const held = ask("lab/held", {}, { signal: stopping.signal });
stopping.abort();
await fails("who leaves before an answer", OpenAI.APIUserAbortError, () => held);

const cut = await fails("a stream that is cut", OpenAI.APIError, async () => {
  const got = [];
  for await (const chunk of await ask("lab/cut", { stream: true })) got.push(chunk);
  return got;
});
check("it says where", cut.message.includes("lab"), cut);
done();
