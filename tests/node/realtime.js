#!/usr/bin/env node
// Transcribes raw audio over OpenAI's Realtime API: node realtime.js URL KEY FILE [ws|browser] [SESSION]
//
// URL is that of the API, such as https://localhost:8081/v1: the official client always uses TLS. FILE holds 16-bit
// PCM at 24 kHz, or what SESSION (JSON of `audio.input`) says. Prints the events as JSON lines until the item that is
// committed last is transcribed.
"use strict";

const fs = require("node:fs");
const { OpenAI } = require("openai");
const { OpenAIRealtimeWS } = require("openai/realtime/ws");
const { OpenAIRealtimeWebSocket } = require("openai/realtime/websocket");
const { WebSocket } = require("ws");

const PIECE_BYTES = 9600;

function connect(kind, client) {
  const props = { model: "gpt-4o-transcribe" };
  if (kind !== "browser") return new OpenAIRealtimeWS(props, client);
  globalThis.WebSocket ??= WebSocket; // browsers have their own, and send the key as a subprotocol
  return new OpenAIRealtimeWebSocket(props, client);
}

function main([baseURL, apiKey, file, kind, session]) {
  const audio = fs.readFileSync(file);
  const connection = connect(kind, new OpenAI({ baseURL, apiKey }));
  const input = session ? JSON.parse(session) : { turn_detection: null };

  connection.on("event", (event) => console.log(JSON.stringify(event)));
  connection.on("session.created", () => {
    connection.send({ type: "session.update", session: { type: "transcription", audio: { input } } });
    for (let at = 0; at < audio.length; at += PIECE_BYTES) {
      const piece = audio.subarray(at, at + PIECE_BYTES);
      connection.send({ type: "input_audio_buffer.append", audio: piece.toString("base64") });
    }
    connection.send({ type: "input_audio_buffer.commit" });
  });
  connection.on("conversation.item.input_audio_transcription.completed", () => connection.close());
  connection.on("error", (error) => {
    console.error(error.message);
    process.exitCode = 1;
    connection.close();
  });
}

main(process.argv.slice(2));
