#!/usr/bin/env bash
# Lays the imported protos into bin/proto, where buf.yaml looks for them. They come out of Go modules, so that nothing is
# copied into the project and nothing but the module proxy is needed; tools/protos.sum pins their content.
set -euo pipefail
cd "$(dirname "$0")/.."

# module VERSION FOLDER PATTERN: the files of the folder that match, with their paths below it.
lay() {
  local dir
  dir=$(cd tools && go mod download -json "$1@$2" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
  (cd "$dir/$3" && find . -path "$4" -print0 | tar --null -cf - --no-recursion -T -) | tar --mode u+w -xf - -C bin/proto
}

rm -rf bin/proto
mkdir -p bin/proto
lay github.com/grpc-ecosystem/grpc-gateway v1.16.0 third_party/googleapis './google/api/*.proto'
lay github.com/grpc-ecosystem/grpc-gateway v1.16.0 third_party/googleapis './google/rpc/*.proto'
lay github.com/bufbuild/protovalidate v1.2.2 proto/protovalidate './buf/validate/validate.proto'
(cd bin/proto && sha256sum --quiet -c ../../tools/protos.sum)
touch bin/proto/.laid
