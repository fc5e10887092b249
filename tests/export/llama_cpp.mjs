// Greedy answers of llama.cpp, through node-llama-cpp: a JSON job on stdin, a JSON list of results on stdout.
// Job: {module, model, cases: [{adapters: [{filePath, scale}], prompt, n}]}; result: {prompt: ids, tokens: ids}.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const job = JSON.parse(readFileSync(0, "utf-8"));
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(job.module).href);
const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: job.model });
const results = [];
for (const { adapters, prompt, n } of job.cases) {
    const context = await model.createContext({ contextSize: 256, threads: 1, flashAttention: false, experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32", lora: { adapters } });
    const sequence = context.getSequence();
    const ids = model.tokenize(prompt, false);
    if (model.tokens.shouldPrependBosToken) ids.unshift(model.tokens.bos);
    const tokens = [];
    for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
        tokens.push(token);
        if (tokens.length >= n) break;
    }
    results.push({ prompt: ids, tokens });
    await context.dispose();
}
await model.dispose();
process.stdout.write(JSON.stringify(results));
process.exit(0);
