// The @anthropic-ai/sdk package asks every kind of model: a provider's and one of the mesh.

import Anthropic from "@anthropic-ai/sdk";

import { ANTHROPIC, KEY, MODEL, QUESTION, SAID, SPENT, URL } from "./checks.js";
import { check, done, fails, left } from "./checks.js";

const baseURL = URL.replace(/\/v1$/, "");
const made = (apiKey) => new Anthropic({ baseURL, apiKey, maxRetries: 0, timeout: 60_000 });
const client = made(KEY);
const asked = (model, more = {}) => ({ model, messages: QUESTION, max_tokens: 50, ...more });
const ask = (model, more, options) => client.messages.create(asked(model, more), options);

for (const model of ["lab/large", ANTHROPIC]) {
  const answer = await ask(model);
  check(`${model} answers`, answer.content[0].text === SAID, answer);
  check(`${model}: why it ended`, answer.stop_reason === "end_turn", answer);
  const { input_tokens, output_tokens } = answer.usage;
  check(`${model}: usage as billed`, input_tokens === 21 && output_tokens === 7, answer);

  const stream = client.messages.stream(asked(model));
  const words = [];
  stream.on("text", (text) => words.push(text));
  const final = await stream.finalMessage();
  check(`${model} streams`, words.join("") === SAID && words.length === 7, words);
  check(`${model}: a stream's usage`, final.usage.output_tokens === 7, final.usage);
}

const local = await ask(MODEL, { max_tokens: 12, temperature: 0 });
check("a model of the mesh answers", local.usage.output_tokens === 12, local);
check("and says why it ended", local.stop_reason === "max_tokens", local);

const weather = {
  name: "weather",
  description: "Tells the weather of a city",
  input_schema: { type: "object", properties: { city: { type: "string" } } },
};
for (const model of ["lab/large", ANTHROPIC]) {
  const answer = await ask(model, { tools: [weather] });
  const call = answer.content.find((block) => block.type === "tool_use");
  check(`${model} calls a tool`, call.name === "weather" && call.input.city === "Ghent", answer);
  check(`${model}: and says so`, answer.stop_reason === "tool_use", answer);
  const stream = client.messages.stream(asked(model, { tools: [weather] }));
  const streamed = (await stream.finalMessage()).content.find((block) => block.type === "tool_use");
  check(`${model} calls in a stream`, streamed.input.city === "Ghent", streamed);
  const result = { type: "tool_result", tool_use_id: call.id, content: "12 degrees" };
  const messages = [
    ...QUESTION,
    { role: "assistant", content: answer.content },
    { role: "user", content: [result] },
  ];
  const last = await ask(model, { messages, tools: [weather] });
  check(`${model} goes on with the result`, last.content[0].text === SAID, last);
}

const schema = {
  type: "object",
  properties: { city: { type: "string" }, degrees: { type: "number" } },
  required: ["city", "degrees"],
  additionalProperties: false,
};
const shaped = await ask("lab/large", { output_config: { format: { type: "json_schema", schema } } });
check("an answer has a shape", JSON.parse(shaped.content[0].text).degrees === 12, shaped);

const counted = await client.messages.countTokens({ model: MODEL, messages: QUESTION });
check("tokens are counted", counted.input_tokens === local.usage.input_tokens, counted);

const wrong = await fails("a wrong key", Anthropic.AuthenticationError, () =>
  made("sk-selvedge-wrong").messages.create(asked(MODEL)),
);
check("in this API's own shape", wrong.error.error.type === "authentication_error", wrong.error);
const spent = await fails("a spent budget", Anthropic.RateLimitError, () =>
  made(SPENT).messages.create(asked(MODEL)),
);
check("when to come back", Number(spent.headers.get("retry-after")) > 0, spent.headers);
const nobody = await fails("no such model", Anthropic.NotFoundError, () => ask("nobody"));
check("it is named", nobody.message.includes("nobody"), nobody.message);
await fails("a wrong value", Anthropic.BadRequestError, () => ask(MODEL, { temperature: 9 }));
await fails("a broken provider", Anthropic.InternalServerError, () => ask("lab/broken"));

const endless = await ask("lab/talkative", { stream: true });
let pieces = 0;
for await (const event of endless) {
  pieces += event.type === "content_block_delta";
  if (pieces === 3) endless.controller.abort();
}
check("who leaves is followed to the provider", await left(), pieces);

const cut = await fails("a stream that is cut", Anthropic.APIError, async () => {
  const got = [];
  for await (const event of await ask("lab/cut", { stream: true })) got.push(event);
  return got;
});
check("it says where", cut.message.includes("lab"), cut);
done();
