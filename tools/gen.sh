#!/usr/bin/env bash
# gen.sh write: generates gen/ from proto/. gen.sh check: fails when gen/ is not what that would give.
# Everything is made in bin/fresh first, so that a failure leaves gen/ as it was.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:?write or check}

# Not left behind: below the module it would be one more package of ./...
trap 'rm -rf bin/fresh' EXIT
bin/tools/buf generate -o bin/fresh
bin/tools/buf generate -o bin/fresh --template sdk/typescript/buf.gen.yaml
if [ "$mode" = write ]; then
  rm -rf gen/telexec
  cp -r bin/fresh/gen/telexec gen/
  rm -rf sdk/typescript/src/gen
  cp -r bin/fresh/sdk/typescript/src/gen sdk/typescript/src/
fi

# The examples in the OpenAPI document are made of the generated Go types, hence only now.
go run ./internal/openapi -errors docs/errors.md -out bin/fresh/gen/openapi/telexec.openapi.json bin/fresh/gen/openapi/telexec/v1/*.json
rm -rf bin/fresh/gen/openapi/telexec
if [ "$mode" = write ]; then
  rm -rf gen/openapi/telexec
  cp bin/fresh/gen/openapi/telexec.openapi.json gen/openapi/
fi
{ diff -ru --exclude=embed.go gen bin/fresh/gen && diff -ru sdk/typescript/src/gen bin/fresh/sdk/typescript/src/gen; } || {
  echo 'what is generated is stale: run "make gen" and commit what it changes' >&2
  exit 1
}
