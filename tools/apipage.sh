#!/usr/bin/env bash
# apipage.sh write: copies what /docs shows of Swagger UI from node_modules into internal/gateway/pages/swagger-ui/, where it is
# embedded. apipage.sh check: fails where the copies are not those of the package that web/package.json pins.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:?write or check}
from=node_modules/swagger-ui-dist
to=internal/gateway/pages/swagger-ui

want=$(node -p 'require("./web/package.json").devDependencies["swagger-ui-dist"]')
have=$(node -p 'require("./node_modules/swagger-ui-dist/package.json").version')
[ "$want" = "$have" ] || { echo "node_modules has swagger-ui-dist $have, web/package.json wants $want: run npm ci" >&2; exit 1; }

# Compressed once and here, not with every start of the service.
for file in swagger-ui-bundle.js swagger-ui.css; do
  if [ "$mode" = write ]; then
    gzip -9 -n -c "$from/$file" >"$to/$file.gz"
  else
    # The bytes that browsers get are compared: another gzip compresses them differently.
    gzip -dc "$to/$file.gz" | cmp - "$from/$file" || { echo "$to/$file.gz is stale: run \"make apipage\"" >&2; exit 1; }
  fi
done
for file in LICENSE NOTICE swagger-ui-bundle.js.LICENSE.txt; do
  if [ "$mode" = write ]; then
    cp "$from/$file" "$to/$file"
  else
    cmp "$to/$file" "$from/$file" || { echo "$to/$file is stale: run \"make apipage\"" >&2; exit 1; }
  fi
done
