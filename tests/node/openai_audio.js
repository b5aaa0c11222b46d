#!/usr/bin/env node
// Calls every method of OpenAI's audio API: node openai_audio.js BASE_URL KEY FILE
//
// BASE_URL is http://host:port/v1. Prints one JSON object: the answers, and how each expected failure was reported.
"use strict";

const fs = require("node:fs");
const { OpenAI } = require("openai");

/** What the client makes of a call that must fail. */
async function failureOf(call) {
  try {
    await call();
  } catch (error) {
    const { status, type, code, param, requestID } = error;
    return { name: error.constructor.name, status, type, code, param, requestID };
  }
  throw new Error("the call succeeded");
}

async function main([baseURL, apiKey, path]) {
  const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
  const model = "gpt-4o-mini-transcribe";
  const create = (options) =>
    client.audio.transcriptions.create({ file: fs.createReadStream(path), model, ...options });
  const events = [];
  for await (const event of await create({ stream: true })) events.push(event);
  const models = [];
  for await (const found of client.models.list()) models.push(found.id);
  const stranger = new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 });
  const file = () => fs.createReadStream(path);
  console.log(
    JSON.stringify({
      json: await create({}),
      text: await create({ response_format: "text" }),
      srt: await create({ response_format: "srt" }),
      vtt: await create({ response_format: "vtt" }),
      verbose: await create({ response_format: "verbose_json", timestamp_granularities: ["word", "segment"] }),
      hinted: await create({ languages: ["en", "de"], keywords: ["fox", "dog"], temperature: 0, include: ["logprobs"] }),
      translation: await client.audio.translations.create({ file: file(), model }),
      events,
      models,
      retrieved: (await client.models.retrieve(models[1])).id,
      failures: {
        key: await failureOf(() => stranger.audio.transcriptions.create({ file: file(), model })),
        language: await failureOf(() => create({ language: "xx" })),
        format: await failureOf(() => create({ response_format: "diarized_json" })),
        streamed: await failureOf(() => create({ response_format: "srt", stream: true })),
        model: await failureOf(() => client.models.retrieve("no/such")),
        audio: await failureOf(() => create({ file: new File(["no audio"], "a.wav") })),
        size: await failureOf(() => create({ file: new File([new Uint8Array(40_000_000)], "a.wav") })),
      },
    }),
  );
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
