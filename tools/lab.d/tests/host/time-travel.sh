#!/bin/bash
# With --time-travel an hour of sleeping takes seconds.
set -euo pipefail
lab="$(dirname "$0")/../../../lab"
start=$SECONDS
"$lab" uml --kernel-flavour "${FARMEM_LAB_FLAVOUR:-default}" --time-travel --timeout 60 -- \
    bash -euc 'before=$(date +%s); sleep 3600; [ $(($(date +%s) - before)) -ge 3600 ]'
[ $((SECONDS - start)) -lt 60 ]
