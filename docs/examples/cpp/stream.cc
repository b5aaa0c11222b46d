// Transcribes headerless audio, 16 kHz 16-bit mono, as a live stream: stream HOST:PORT FILE KEY
#include <grpcpp/grpcpp.h>

#include <fstream>
#include <iostream>
#include <thread>

#include "stt/v1/speech.grpc.pb.h"

int main(int, char** argv) {
  auto channel = grpc::CreateChannel(argv[1], grpc::InsecureChannelCredentials());
  auto stub = stt::v1::SpeechToText::NewStub(channel);
  grpc::ClientContext context;
  context.AddMetadata("authorization", std::string("Bearer ") + argv[3]);
  auto stream = stub->StreamTranscribe(&context);
  // The config first, then the audio as it is recorded; here 0.1 s of a file at a time.
  std::thread sender([&] {
    stt::v1::StreamTranscribeRequest request;
    auto* format = request.mutable_config()->mutable_format();
    format->set_encoding(stt::v1::AUDIO_ENCODING_LINEAR16);
    format->set_sample_rate_hertz(16000);
    stream->Write(request);
    std::ifstream audio(argv[2], std::ios::binary);
    for (std::string chunk(3200, 0); audio.read(chunk.data(), chunk.size()) || audio.gcount() > 0;) {
      request.set_audio(chunk.data(), audio.gcount());
      stream->Write(request);
    }
    stream->WritesDone();
  });
  stt::v1::StreamTranscribeResponse response;
  while (stream->Read(&response))
    if (response.has_final()) std::cout << response.final().result().text() << "\n";
  sender.join();
  grpc::Status status = stream->Finish();
  if (!status.ok()) std::cerr << status.error_message() << "\n";
  return status.ok() ? 0 : 1;
}
