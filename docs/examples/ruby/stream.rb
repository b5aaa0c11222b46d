# Transcribes headerless audio, 16 kHz 16-bit mono, as a live stream: ruby stream.rb HOST:PORT FILE KEY
require "grpc"
require "stt/v1/speech_services_pb"

address, file, key = ARGV
stub = Stt::V1::SpeechToText::Stub.new(address, :this_channel_is_insecure)

# The config first, then the audio as it is recorded; here 0.1 s of a file at a time.
requests = Enumerator.new do |sent|
  format = Stt::V1::AudioFormat.new(encoding: :AUDIO_ENCODING_LINEAR16, sample_rate_hertz: 16_000)
  config = Stt::V1::StreamConfig.new(format: format, interim_results: true)
  sent << Stt::V1::StreamTranscribeRequest.new(config: config)
  File.open(file, "rb") do |audio|
    while (chunk = audio.read(3200))
      sent << Stt::V1::StreamTranscribeRequest.new(audio: chunk)
    end
  end
end

stub.stream_transcribe(requests, metadata: { "authorization" => "Bearer #{key}" }).each do |response|
  case response.event
  when :interim then warn "#{response.interim.stable_text}#{response.interim.unstable_text}"
  when :final then puts response.final.result.text
  end
end
