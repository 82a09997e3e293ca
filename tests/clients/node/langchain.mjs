// @langchain/openai (langchain.js): a tool-calling agent, streams and structured output, by chat and by responses;
// embeddings.

import assert from "node:assert/strict";

import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { createAgent, tool } from "langchain";
import { z } from "zod";

const configuration = { baseURL: process.env.OPENAI_BASE_URL };
const Sample = z.object({ number: z.number().int().min(0).max(99), frozen: z.boolean() });

for (const useResponsesApi of [false, true]) {
  const model = new ChatOpenAI({ model: "hearth", temperature: 0, useResponsesApi, configuration });
  const asked = [];
  const calculator = tool(
    ({ expression }) => {
      asked.push(expression);
      const [left, right] = expression.split("*").map(Number);
      return String(left * right);
    },
    {
      name: "calculator",
      description: "Work out an arithmetic expression.",
      schema: z.object({ expression: z.string() }),
    },
  );
  const agent = createAgent({ model, tools: [calculator] });
  const messages = [{ role: "user", content: "What is 37 * 52?" }];
  const answered = await agent.invoke({ messages });
  assert.equal(answered.messages.at(-1).text, "1924");
  let last;
  for await (const state of await agent.stream({ messages }, { streamMode: "values" })) last = state;
  assert.equal(last.messages.at(-1).text, "1924");
  assert.deepEqual(asked, ["37 * 52", "37 * 52"]);

  const whole = await model.invoke("hello");
  assert.ok(whole.usage_metadata.output_tokens > 0);
  let text = "";
  for await (const chunk of await model.stream("hello")) text += chunk.text;
  assert.equal(text, whole.text);
  for (const method of ["jsonSchema", "functionCalling"]) {
    Sample.parse(await model.withStructuredOutput(Sample, { method }).invoke("sample 7, frozen"));
  }
}

const embeddings = new OpenAIEmbeddings({ model: "hearth-embedding", configuration });
assert.ok(Math.abs(Math.hypot(...(await embeddings.embedQuery("a salt lake"))) - 1) < 1e-5);
