// Transcribes one recording: transcribe HOST:PORT FILE KEY
#include <grpcpp/grpcpp.h>

#include <fstream>
#include <iostream>
#include <sstream>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "stt/v1/speech.grpc.pb.h"

int main(int, char** argv) {
  std::ostringstream audio;
  audio << std::ifstream(argv[2], std::ios::binary).rdbuf();
  grpc::ChannelArguments options;
  options.SetMaxReceiveMessageSize(64 << 20);  // word times of a long recording exceed the default of 4 MiB
  // TLS: grpc::SslCredentials({}).
  auto channel = grpc::CreateCustomChannel(argv[1], grpc::InsecureChannelCredentials(), options);

  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(2));
  context.AddMetadata("authorization", std::string("Bearer ") + argv[3]);
  context.AddMetadata("x-req-id", "example-1");
  stt::v1::TranscribeRequest request;
  request.set_audio(audio.str());
  stt::v1::TranscribeResponse response;
  grpc::Status status = stt::v1::SpeechToText::NewStub(channel)->Transcribe(&context, request, &response);
  if (!status.ok()) {
    google::rpc::Status details;
    google::rpc::ErrorInfo info;
    details.ParseFromString(status.error_details());
    for (const auto& detail : details.details()) detail.UnpackTo(&info);
    std::cerr << status.error_message() << "\nreason: " << info.reason() << "\n";
    return 1;
  }
  std::cout << "text: " << response.text() << "\n";
  for (auto name : {"x-req-id", "x-final-model"})
    std::cout << name << ": " << context.GetServerTrailingMetadata().find(name)->second << "\n";
}
