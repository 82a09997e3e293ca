// openai (Node): chat, responses and embeddings, also as streams; a tool; structured output by `parse`.

import assert from "node:assert/strict";

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI(); // OPENAI_BASE_URL and OPENAI_API_KEY
const question = "What is 37 * 52?";
const messages = [{ role: "user", content: question }];
const greedy = { model: "hearth", temperature: 0 };
const calculator = {
  name: "calculator",
  description: "Work out an arithmetic expression.",
  parameters: {
    type: "object",
    properties: { expression: { type: "string" } },
    required: ["expression"],
    additionalProperties: false,
  },
  strict: true,
};
const Sample = z.object({ number: z.number().int().min(0).max(99), frozen: z.boolean() });

// Chat: the stream calls the function, and its result becomes the answer.
const asked = [];
const runner = client.chat.completions.runTools({
  ...greedy,
  messages,
  stream: true,
  tools: [
    {
      type: "function",
      function: {
        ...calculator,
        parse: JSON.parse,
        function: ({ expression }) => {
          asked.push(expression);
          const [left, right] = expression.split("*").map(Number);
          return String(left * right);
        },
      },
    },
  ],
});
assert.equal(await runner.finalContent(), "1924");
assert.deepEqual(asked, ["37 * 52"]);
const whole = await client.chat.completions.create({ ...greedy, messages: [{ role: "user", content: "hello" }] });
assert.ok(whole.choices[0].message.content);
assert.ok(whole.usage.completion_tokens > 0);
const parsed = await client.chat.completions.parse({
  ...greedy,
  messages,
  response_format: zodResponseFormat(Sample, "sample"),
});
Sample.parse(parsed.choices[0].message.parsed);

// Responses: the same, continued by the id of the saved response.
const tools = [{ type: "function", ...calculator }];
const first = await client.responses.stream({ ...greedy, input: question, tools }).finalResponse();
const call = first.output.find((item) => item.type === "function_call");
assert.deepEqual(JSON.parse(call.arguments), { expression: "37 * 52" });
const input = [{ type: "function_call_output", call_id: call.call_id, output: "1924" }];
const second = await client.responses.create({ ...greedy, input, tools, previous_response_id: first.id });
assert.equal(second.output_text, "1924");
const response = await client.responses.parse({
  ...greedy,
  input: question,
  text: { format: zodTextFormat(Sample, "sample") },
});
Sample.parse(response.output_parsed);

const found = await client.embeddings.create({ model: "hearth-embedding", input: ["a salt lake"] });
const length = Math.hypot(...found.data[0].embedding);
assert.ok(Math.abs(length - 1) < 1e-5, `${length}`);
