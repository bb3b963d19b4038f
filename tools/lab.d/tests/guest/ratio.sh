#!/bin/bash
# farmem bench ratio on cgroup v2: every workload with half of its memory, by memory.max and by memory.high; nothing is left.
# lab: --timeout 600 --memory 768M
set -euo pipefail
PATH=$FARMEM_BIN_DIR:$PATH
[ -x "$FARMEM_BIN_DIR/farmem" ] || { echo "no farmem in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
export FARMEM_RUNTIME_DIR=/run/farmem
mkdir -p /run/farmem
workloads=$(cd "$(dirname "$0")/../../../../workloads" && pwd)
ratio() { timeout 280 farmem bench ratio --workloads-dir "$workloads" --size 8MiB --json "$@" >/run/report; }

status=0
ratio --workload sort 2>/run/refusal || status=$?
[ "$status" = 71 ] || { echo "without swap it ended with $status: $(cat /run/refusal)" && exit 1; }
mkswap /dev/ram0 >/dev/null
swapon /dev/ram0
ratio --ratios 100,50
jq -e '[.workloads[].runs[] | select(.is_right)] | length == 14' /run/report >/dev/null || { cat /run/report && exit 1; }
jq -e 'all(.workloads[].runs[1]; .major_faults > 50 and .host_pages_in > 50)' /run/report >/dev/null || { cat /run/report && exit 1; }
ratio --ratios 50 --limit high --workload map
jq -e '.workloads[0].runs[0] | .is_right and .major_faults > 1000' /run/report >/dev/null || { cat /run/report && exit 1; }
! ls -d /sys/fs/cgroup/farmem-ratio-* 2>/dev/null
[ -z "$(ls /run/farmem)" ]
swapoff /dev/ram0
