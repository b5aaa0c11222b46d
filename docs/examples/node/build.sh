#!/usr/bin/env bash
# npm: @grpc/grpc-js @protobuf-ts/plugin @protobuf-ts/runtime @protobuf-ts/runtime-rpc grpc-health-check. Debian: protobuf-compiler
set -euo pipefail
cd "$(dirname "$0")/../../.."
out=${1:-build/examples/node}
modules=$PWD/tests/node/node_modules
# google/rpc, the details of errors: from the Python package googleapis-common-protos, or github.com/googleapis/googleapis.
googleapis=$(echo .venv/lib/python3*/site-packages)

mkdir -p "$out/gen"
protoc -I protos -I "$googleapis" --plugin="$modules/.bin/protoc-gen-ts" --ts_out="$out/gen" \
  --ts_opt=output_javascript,output_legacy_commonjs,client_grpc1,server_none,long_type_number \
  stt/v1/speech.proto google/rpc/status.proto google/rpc/error_details.proto
cp docs/examples/node/*.js "$out"
ln -sfn "$modules" "$out/node_modules"
