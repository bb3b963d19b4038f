#!/bin/bash
# The offload controller by MGLRU's generations: Puckets leave and come back, the kernel ages and merges in between, its figures agree.
# lab: --memory 1G --timeout 400
set -euo pipefail
for program in offloadd farmem; do
    [ -x "$FARMEM_BIN_DIR/$program" ] ||
        { echo "no $program in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
done
export FARMEM_RUNTIME_DIR=/run/farmem
mkdir -p /run/farmem
mkswap /dev/ram0 >/dev/null
swapon /dev/ram0
timeout 350 python3 "$(dirname "$0")/../offload/mglru.py" || {
    status=$?
    tail -n 30 /run/farmem/*.log 2>/dev/null || true
    exit $status
}
swapoff /dev/ram0
