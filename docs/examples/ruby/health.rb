# Prints whether a service is ready: ruby health.rb HOST:PORT
require "grpc"
require "grpc/health/v1/health_services_pb"

# TLS: GRPC::Core::ChannelCredentials.new
stub = Grpc::Health::V1::Health::Stub.new(ARGV[0], :this_channel_is_insecure)
request = Grpc::Health::V1::HealthCheckRequest.new(service: "stt.v1.SpeechToText")
puts stub.check(request, deadline: Time.now + 10).status
