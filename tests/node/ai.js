// The ai package, with its own client for each surface, asks models of providers.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, embedMany, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import { ANTHROPIC, KEY, MODEL, SAID, SPENT, URL } from "./checks.js";
import { check, done, fails, left } from "./checks.js";

const clients = (apiKey) => {
  const shared = { baseURL: URL, apiKey };
  const openai = createOpenAI(shared);
  const supportsStructuredOutputs = true;
  const compatible = { ...shared, name: "selvedge", includeUsage: true, supportsStructuredOutputs };
  return {
    chat: (model) => openai.chat(model),
    responses: (model) => openai.responses(model),
    compatible: createOpenAICompatible(compatible),
    anthropic: createAnthropic(shared),
    vectors: openai.embeddingModel("vectors/embed"),
  };
};
const known = clients(KEY);
const ask = (model, more) => ({
  model,
  prompt: "Good morning!",
  maxOutputTokens: 50,
  maxRetries: 0,
  ...more,
});
const weather = tool({
  description: "Tells the weather of a city",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `12 degrees in ${city}`,
});
const Forecast = z.object({ city: z.string(), degrees: z.number() });

/** The parts of a stream. An error is one of them and is thrown. */
async function parts(stream) {
  const all = [];
  for await (const part of stream.fullStream) {
    if (part.type === "error") throw part.error;
    all.push(part);
  }
  return all;
}

for (const surface of ["chat", "responses", "compatible", "anthropic"]) {
  const named = (model) => known[surface](model);
  for (const name of ["lab/large", ANTHROPIC]) {
    const what = `${surface}, ${name}`;
    const answer = await generateText(ask(named(name)));
    check(`${what}: answers`, answer.text === SAID, answer.text);
    const { inputTokens, outputTokens } = answer.usage;
    check(`${what}: usage as billed`, inputTokens === 21 && outputTokens === 7, answer.usage);
    const stream = streamText(ask(named(name)));
    const words = (await parts(stream)).filter((part) => part.type === "text-delta");
    const text = words.map((part) => part.text).join("");
    check(`${what}: streams`, text === SAID && words.length === 7, words);
    check(`${what}: a stream's usage`, (await stream.usage).outputTokens === 7);

    const tools = { weather };
    const both = await generateText(ask(named(name), { tools, stopWhen: stepCountIs(2) }));
    const result = both.steps[0].toolResults[0]?.output;
    check(`${what}: calls a tool`, result === "12 degrees in Ghent", both.steps[0].content);
    check(`${what}: goes on with the result`, both.text === SAID, both.text);
    const called = (await parts(streamText(ask(named(name), { tools })))).find(
      (part) => part.type === "tool-call",
    );
    check(`${what}: calls in a stream`, called?.input.city === "Ghent", called);
  }
  const local = await generateText(ask(named(MODEL), { maxOutputTokens: 12, temperature: 0 }));
  check(`${surface}: a model of the mesh`, local.usage.outputTokens === 12, local.usage);
  check(`${surface}: it was not done`, local.finishReason === "length", local.finishReason);

  if (surface !== "anthropic") {
    const output = Output.object({ schema: Forecast });
    const shaped = await generateText(ask(named("lab/large"), { output }));
    check(`${surface}: an answer has a shape`, shaped.output.degrees === 12, shaped.output);
  }

  const refused = (what, model) =>
    fails(`${surface}: ${what}`, APICallError, () => generateText(ask(model)));
  const wrong = await refused("a wrong key", clients("sk-selvedge-wrong")[surface](MODEL));
  check("its status", wrong.statusCode === 401 && !wrong.isRetryable, wrong);
  const spent = await refused("a spent budget", clients(SPENT)[surface](MODEL));
  check("its status", spent.statusCode === 429, spent);
  check("when to come back", Number(spent.responseHeaders["retry-after"]) > 0, spent);
  const nobody = await refused("no such model", named("nobody"));
  check("its status", nobody.statusCode === 404, nobody);
  check("it is named", nobody.message.includes("nobody"), nobody.message);

  const stopping = new AbortController();
  const endless = streamText(ask(named("lab/talkative"), { abortSignal: stopping.signal }));
  let pieces = 0;
  let aborted = false;
  for await (const part of endless.fullStream) {
    pieces += part.type === "text-delta";
    aborted ||= part.type === "abort";
    if (pieces === 3) stopping.abort();
  }
  check(`${surface}: who leaves is told so`, aborted, pieces);
  check(`${surface}: and is followed to the provider`, await left());

  const streamed = streamText(ask(named("lab/cut"), { onError: () => {} }));
  let error;
  for await (const part of streamed.fullStream) if (part.type === "error") error = part.error;
  const told = error?.message ?? JSON.stringify(error);
  check(`${surface}: a stream that is cut ends with an error`, told?.includes("lab"), error);
}

const vectors = await embedMany({ model: known.vectors, values: ["a b", "c"], maxRetries: 0 });
check("texts become vectors", vectors.embeddings.length === 2, vectors);
check("and are counted", vectors.usage.tokens === 3, vectors.usage);
done();
