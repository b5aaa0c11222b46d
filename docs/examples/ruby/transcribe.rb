# Transcribes one recording: ruby transcribe.rb HOST:PORT FILE KEY
require "grpc"
require "google/rpc/error_details_pb"
require "stt/v1/speech_services_pb"

address, file, key = ARGV
# TLS: GRPC::Core::ChannelCredentials.new. Word times of a long recording exceed gRPC's limit of 4 MiB.
stub = Stt::V1::SpeechToText::Stub.new(address, :this_channel_is_insecure,
                                       channel_args: { "grpc.max_receive_message_length" => 64 << 20 })
metadata = { "authorization" => "Bearer #{key}", "x-req-id" => "example-1" }
begin
  request = Stt::V1::TranscribeRequest.new(audio: File.binread(file))
  call = stub.transcribe(request, metadata: metadata, deadline: Time.now + 120, return_op: true)
  puts "text: #{call.execute.text}"
  call.wait # the trailing metadata follows the response
  puts "x-req-id: #{call.trailing_metadata["x-req-id"]}"
  puts "x-final-model: #{call.trailing_metadata["x-final-model"]}"
rescue GRPC::BadStatus => e
  info = e.to_rpc_status&.details&.find { |detail| detail.is(Google::Rpc::ErrorInfo) }
  abort "#{e.message}\nreason: #{info&.unpack(Google::Rpc::ErrorInfo)&.reason}"
end
