// Prints whether a service is ready: node health.js HOST:PORT
const grpc = require("@grpc/grpc-js");
const { service } = require("grpc-health-check");

const HealthClient = grpc.makeGenericClientConstructor(service);
const client = new HealthClient(process.argv[2], grpc.credentials.createInsecure()); // TLS: createSsl()
const deadline = Date.now() + 10_000;
client.Check({ service: "stt.v1.SpeechToText" }, { deadline }, (error, response) => {
  if (error) throw error;
  console.log(response.status);
  client.close();
});
