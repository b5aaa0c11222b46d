// Waits until a service is ready: health HOST:PORT
#include <grpcpp/grpcpp.h>

#include <iostream>

int main(int, char** argv) {
  // With this configuration a channel is connected while grpc.health.v1.Health reports SERVING: calls of a channel that
  // waits (`set_wait_for_ready`) need no other check.
  grpc::ChannelArguments options;
  options.SetServiceConfigJSON(R"({"loadBalancingConfig": [{"round_robin": {}}],
                                   "healthCheckConfig": {"serviceName": "stt.v1.SpeechToText"}})");
  auto channel = grpc::CreateCustomChannel(argv[1], grpc::InsecureChannelCredentials(), options);
  bool ready = channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(10));
  std::cout << (ready ? "SERVING" : "NOT_SERVING") << "\n";
}
