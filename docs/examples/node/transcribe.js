// Transcribes one recording: node transcribe.js HOST:PORT FILE KEY
const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const { SpeechToTextClient } = require("./gen/stt/v1/speech.grpc-client");
const { TranscribeRequest } = require("./gen/stt/v1/speech");
const { Status } = require("./gen/google/rpc/status");
const { ErrorInfo } = require("./gen/google/rpc/error_details");
const { Any } = require("./gen/google/protobuf/any");

const [address, file, key] = process.argv.slice(2);
// TLS: createSsl(). Word times of a long recording exceed the default of 4 MiB.
const limits = { "grpc.max_receive_message_length": 64 << 20 };
const client = new SpeechToTextClient(address, grpc.credentials.createInsecure(), limits);
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${key}`);
metadata.set("x-req-id", "example-1");

const request = TranscribeRequest.create({ audio: fs.readFileSync(file) });
const deadline = Date.now() + 120_000;
const call = client.transcribe(request, metadata, { deadline }, (error, response) => {
  if (response) console.log(`text: ${response.text}`);
});
// The status comes last, of an error too, and carries the trailing metadata.
call.on("status", ({ code, details, metadata: trailer }) => {
  client.close();
  if (code === grpc.status.OK) {
    for (const name of ["x-req-id", "x-final-model"]) console.log(`${name}: ${trailer.get(name)[0]}`);
    return;
  }
  process.exitCode = 1;
  console.error(`${grpc.status[code]}: ${details}`);
  for (const status of trailer.get("grpc-status-details-bin").map((bytes) => Status.fromBinary(bytes)))
    for (const detail of status.details)
      if (Any.contains(detail, ErrorInfo)) console.error(`reason: ${Any.unpack(detail, ErrorInfo).reason}`);
});
