// Transcribes headerless audio, 16 kHz 16-bit mono, as a live stream: node stream.js HOST:PORT FILE KEY
const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const { SpeechToTextClient } = require("./gen/stt/v1/speech.grpc-client");
const { AudioEncoding, StreamConfig, StreamTranscribeRequest } = require("./gen/stt/v1/speech");

const [address, file, key] = process.argv.slice(2);
const client = new SpeechToTextClient(address, grpc.credentials.createInsecure()); // TLS: createSsl()
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${key}`);

const stream = client.streamTranscribe(metadata, {});
stream.on("data", ({ event }) => {
  if (event.oneofKind === "final") console.log(event.final.result.text);
});
stream.on("error", (error) => {
  console.error(error.message);
  process.exitCode = 1;
});
stream.on("status", () => client.close());

// The config first, then the audio as it is recorded; here 0.1 s of a file at a time.
const config = StreamConfig.create({ format: { encoding: AudioEncoding.LINEAR16, sampleRateHertz: 16_000 } });
const send = (payload) => stream.write(StreamTranscribeRequest.create({ payload }));
send({ oneofKind: "config", config });
fs.createReadStream(file, { highWaterMark: 3200 })
  .on("data", (audio) => send({ oneofKind: "audio", audio }))
  .on("end", () => stream.end());
