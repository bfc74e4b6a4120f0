#!/usr/bin/env bash
# gen.sh write: generates gen/ from proto/. gen.sh check: fails when gen/ is not what that would give.
# Everything is made in bin/fresh first, so that a failure leaves gen/ as it was.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:?write or check}

# Not left behind: below the module it would be one more package of ./...
trap 'rm -rf bin/fresh' EXIT
bin/tools/buf generate -o bin/fresh
if [ "$mode" = write ]; then
  rm -rf gen/telexec
  cp -r bin/fresh/gen/telexec gen/
fi

# The examples in the OpenAPI document are made of the generated Go types, hence only now.
go run ./internal/openapi -out bin/fresh/gen/openapi/telexec.openapi.json bin/fresh/gen/openapi/telexec/v1/*.json
rm -rf bin/fresh/gen/openapi/telexec
if [ "$mode" = write ]; then
  rm -rf gen/openapi/telexec
  cp bin/fresh/gen/openapi/telexec.openapi.json gen/openapi/
fi
diff -ru --exclude=embed.go gen bin/fresh/gen || {
  echo 'gen/ is stale: run "make gen" and commit what it changes' >&2
  exit 1
}
