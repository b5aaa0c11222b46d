#!/usr/bin/env bash
# Debian: g++ protobuf-compiler protobuf-compiler-grpc libgrpc++-dev (with pkg-config)
set -euo pipefail
cd "$(dirname "$0")/../../.."
out=${1:-build/examples/cpp}
# google/rpc, the details of errors: from the Python package googleapis-common-protos, or github.com/googleapis/googleapis.
googleapis=$(echo .venv/lib/python3*/site-packages)

mkdir -p "$out"
protoc -I protos -I "$googleapis" --cpp_out="$out" --plugin=protoc-gen-grpc="$(command -v grpc_cpp_plugin)" \
  --grpc_out="$out" stt/v1/speech.proto google/rpc/status.proto google/rpc/error_details.proto
compile() { g++ -std=c++17 -I "$out" -c "$1" -o "$2"; }
stubs=()
for name in stt/v1/speech.pb stt/v1/speech.grpc.pb google/rpc/status.pb google/rpc/error_details.pb; do
  compile "$out/$name.cc" "$out/$name.o" &
  stubs+=("$out/$name.o")
done
wait
for example in health transcribe stream; do
  compile "docs/examples/cpp/$example.cc" "$out/$example.o"
  g++ "$out/$example.o" "${stubs[@]}" -o "$out/$example" $(pkg-config --libs grpc++ protobuf)
done
