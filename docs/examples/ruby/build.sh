#!/usr/bin/env bash
# Debian: ruby-grpc ruby-grpc-tools
set -euo pipefail
cd "$(dirname "$0")/../../.."
out=${1:-build/examples/ruby}

mkdir -p "$out"
grpc_tools_ruby_protoc -I protos --ruby_out="$out" --grpc_out="$out" stt/v1/speech.proto
cp docs/examples/ruby/*.rb "$out" # ruby -I build/examples/ruby build/examples/ruby/health.rb localhost:50051
