#!/bin/bash
# With --time-travel an hour of sleeping takes seconds.
set -euo pipefail
[[ ${FARMEM_LAB_RUN:-uml} = uml* ]] || { echo "only User-Mode Linux has time travel" && exit 77; }
lab="$(dirname "$0")/../../../lab"
start=$SECONDS
"$lab" ${FARMEM_LAB_RUN:-uml} --time-travel --timeout 60 -- \
    bash -euc 'before=$(date +%s); sleep 3600; [ $(($(date +%s) - before)) -ge 3600 ]'
[ $((SECONDS - start)) -lt 60 ]
