// ai (Vercel AI SDK) with `@ai-sdk/openai`: the tool loop and objects, by responses and by `.chat`, also as streams;
// embeddings.

import assert from "node:assert/strict";

import { createOpenAI } from "@ai-sdk/openai";
import { embed, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const openai = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL });
const prompt = "What is 37 * 52?";
const Sample = z.object({ number: z.number().int().min(0).max(99), frozen: z.boolean() });

for (const model of [openai("hearth"), openai.chat("hearth")]) {
  const asked = [];
  const calculator = tool({
    description: "Work out an arithmetic expression.",
    inputSchema: z.object({ expression: z.string() }),
    execute: async ({ expression }) => {
      asked.push(expression);
      const [left, right] = expression.split("*").map(Number);
      return String(left * right);
    },
  });
  const loop = { model, prompt, tools: { calculator }, stopWhen: stepCountIs(5), temperature: 0 };
  const answer = await generateText(loop);
  assert.equal(answer.text, "1924");
  assert.equal(answer.steps.length, 2);
  const stream = streamText({ ...loop, onError: ({ error }) => { throw error; } });
  let text = "";
  for await (const part of stream.textStream) text += part;
  assert.equal(text, "1924");
  assert.deepEqual(asked, ["37 * 52", "37 * 52"]);
  assert.ok((await stream.totalUsage).outputTokens > 0);

  // What was said before is sent back: without the ids of saved items it is sent whole.
  const options = { store: false, include: ["reasoning.encrypted_content"], parallelToolCalls: false };
  const next = [{ role: "user", content: prompt }, ...answer.response.messages, { role: "user", content: "What is 9 * 9?" }];
  const continued = { model, messages: next, tools: { calculator }, stopWhen: stepCountIs(5), temperature: 0 };
  assert.equal((await generateText(continued)).text, "81");
  assert.equal((await generateText({ ...continued, providerOptions: { openai: options } })).text, "81");

  const object = { model, prompt: "sample 7, frozen", output: Output.object({ schema: Sample }), temperature: 0 };
  Sample.parse((await generateText(object)).output);
  let last;
  for await (const part of streamText(object).partialOutputStream) last = part;
  Sample.parse(last);
}

const limited = { openai: { maxToolCalls: 3, reasoningEffort: "low", textVerbosity: "low", serviceTier: "auto" } };
const hello = { model: openai("hearth"), prompt: "hello", temperature: 0 };
assert.equal((await generateText({ ...hello, providerOptions: limited })).text, (await generateText(hello)).text);

const { embedding } = await embed({ model: openai.embedding("hearth-embedding"), value: "a salt lake" });
assert.ok(Math.abs(Math.hypot(...embedding) - 1) < 1e-5);
