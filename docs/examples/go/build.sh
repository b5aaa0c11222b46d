#!/usr/bin/env bash
# Debian: protobuf-compiler protoc-gen-go protoc-gen-go-grpc golang-go golang-google-grpc-dev
#         golang-github-golang-protobuf-1-5-dev
set -euo pipefail
cd "$(dirname "$0")/../../.."
out=$(realpath -m "${1:-build/examples/go}")

mkdir -p "$out/src"
protoc -I protos --go_out="$out/src" --go-grpc_out="$out/src" stt/v1/speech.proto
# Debian's packages are below a GOPATH; with modules instead: go get google.golang.org/grpc.
export GO111MODULE=off GOPATH=$out:/usr/share/gocode
for example in health transcribe stream; do
  go build -o "$out/$example" "docs/examples/go/$example/main.go"
done
