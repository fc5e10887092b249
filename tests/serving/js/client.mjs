// What the openai package for JavaScript gets from a server: its address on the command line, JSON on stdout.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: process.argv[3], maxRetries: 0 });
const asked = { model: "alignx", messages: [{ role: "user", content: "who?" }], max_tokens: 12 };

const models = [];
for await (const model of client.models.list()) models.push(model.id);

const whole = await client.chat.completions.create({ ...asked, logprobs: true, top_logprobs: 2 });
let text = "";
let last;
const stream = await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
    if (chunk.usage) last = { ...last, usage: chunk.usage };
    for (const choice of chunk.choices) {
        text += choice.delta.content ?? "";
        if (choice.finish_reason) last = { reason: choice.finish_reason, routing: choice.routing };
    }
}
const steered = await client.chat.completions.create({ ...asked, at_least: { honest: 0.9 } });
const completion = await client.completions.create({ model: "base", prompt: "Q: who?\nA:", max_tokens: 4 });

// A stream that is broken off: the client closes its connection.
const long = await client.chat.completions.create({ ...asked, max_tokens: 240, stream: true, logit_bias: { 257: -100 } });
let pieces = 0;
for await (const _ of long) if (++pieces === 3) break;

const errors = {};
for (const [name, wrong] of Object.entries({
    model: { model: "alingx" },
    messages: { messages: [] },
    steer: { steer: { honesty: 2 } },
})) {
    try {
        await client.chat.completions.create({ ...asked, ...wrong });
    } catch (error) {
        errors[name] = { kind: error.constructor.name, status: error.status, message: error.message, param: error.param };
    }
}
process.stdout.write(JSON.stringify({ models, whole, streamed: { text, ...last }, steered, completion, pieces, errors }));
