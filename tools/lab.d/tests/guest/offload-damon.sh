#!/bin/bash
# offloadd --policy damon: cold pages leave by DAMON, which is left as it was found, also after kill -9; somebody else's is not touched.
# lab: --memory 1G --timeout 300
set -euo pipefail
. "$(dirname "$0")/../offload/guest.sh"
[ -d /sys/kernel/mm/damon/admin/kdamonds ] || { echo "this kernel has no DAMON: tools/lab test --vm debian-6.12 offload-damon" && exit 77; }
needs offloadd
run_test 250 damon.py
