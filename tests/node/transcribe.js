#!/usr/bin/env node
// Transcribes one recording: node transcribe.js ADDRESS FILE [KEY]
//
// ADDRESS is host:port, or grpcs://host:port for TLS with the system's certificate authorities. Prints one JSON
// object and exits 0; on a failed call it prints {"error": ...} to standard error and exits 1.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const { SpeechToTextClient } = require("./gen/stt/v1/speech.grpc-client");
const { RouteReason, TranscribeRequest } = require("./gen/stt/v1/speech");

const DEADLINE_MS = 120_000;
// Word timestamps of an hour of speech exceed the 4 MiB that grpc-js receives by default.
const MAX_RESPONSE_BYTES = 64 * 1024 * 1024;

function connect(address) {
  const [, scheme, target] = /^(?:(grpcs?):\/\/)?(.+)$/.exec(address);
  const credentials = scheme === "grpcs" ? grpc.credentials.createSsl() : grpc.credentials.createInsecure();
  return new SpeechToTextClient(target, credentials, {
    "grpc.max_receive_message_length": MAX_RESPONSE_BYTES,
  });
}

/** Resolves to {response, trailer}; rejects with grpc-js's ServiceError, whose `metadata` is the trailer. */
function transcribe(client, request, metadata) {
  return new Promise((resolve, reject) => {
    let response;
    const deadline = Date.now() + DEADLINE_MS;
    const call = client.transcribe(request, metadata, { deadline }, (error, value) => {
      response = value;
      if (error) reject(error);
    });
    // The status carries the trailing metadata and arrives after the response.
    call.on("status", (status) => response && resolve({ response, trailer: status.metadata }));
  });
}

async function main([address, file, key]) {
  if (!address || !file) {
    console.error(`usage: node ${path.basename(__filename)} ADDRESS FILE [KEY]`);
    return 2;
  }
  const metadata = new grpc.Metadata();
  if (key) metadata.set("authorization", `Bearer ${key}`);
  const client = connect(address);
  try {
    const request = TranscribeRequest.create({ audio: fs.readFileSync(file) });
    const { response, trailer } = await transcribe(client, request, metadata);
    const result = {
      text: response.text,
      language: response.language,
      finalModel: response.routing?.finalModel,
      fallbackUsed: response.routing?.fallbackUsed,
      reasons: (response.routing?.reasons ?? []).map((reason) => RouteReason[reason].toLowerCase()),
      "x-final-model": trailer.get("x-final-model")[0],
      "x-req-id": trailer.get("x-req-id")[0],
    };
    console.log(JSON.stringify(result));
    return 0;
  } catch (error) {
    const type = error.metadata?.get("x-error-type")[0];
    const code = grpc.status[error.code] ?? error.code;
    console.error(JSON.stringify({ error: { code, type, message: error.details ?? error.message } }));
    return 1;
  } finally {
    client.close();
  }
}

main(process.argv.slice(2)).then((status) => {
  process.exitCode = status;
});
