#!/bin/bash
# offloadd --policy damon: cold pages leave by DAMON, which is left as it was found, also after kill -9; somebody else's is not touched.
# lab: --memory 1G --timeout 300
set -euo pipefail
[ -d /sys/kernel/mm/damon/admin/kdamonds ] || { echo "this kernel has no DAMON: tools/lab test --vm debian-6.12 offload-damon" && exit 77; }
[ -x "$FARMEM_BIN_DIR/offloadd" ] || { echo "no offloadd in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
export FARMEM_RUNTIME_DIR=/run/farmem
mkdir -p /run/farmem
mkswap /dev/ram0 >/dev/null
swapon /dev/ram0
timeout 250 python3 "$(dirname "$0")/../offload/damon.py" || {
    status=$?
    tail -n 30 /run/farmem/*.log 2>/dev/null || true
    exit $status
}
swapoff /dev/ram0
