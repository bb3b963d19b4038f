#!/bin/bash
# farmem.ko with the backend rdma against memserver --rdma, over Soft-RoCE in a guest; every page is compared. KILLS, FLAPS and CYCLES are
# how often (20, 4, 10); PARTS are those of module/rdma-in-guest.sh.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
lab=$here/../../../lab
flavour=${FARMEM_LAB_FLAVOUR:-default}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ ! -x "${FARMEM_BIN_DIR-}/memserver" ] || ! "$FARMEM_BIN_DIR/memserver" serve --help | grep -q -- --rdma; then
    echo "no memserver with --rdma in FARMEM_BIN_DIR"
    exit 77
fi
build=$("$lab" uml --build-only --kernel-flavour "$flavour")
# In a copy, for several kernels' builds would mix.
cp -r "$here/../../../../kernel-patch/module" "$work/module"
cp "$here/../../../../Sources/CWireFormat/include/CWireFormat.h" "$work/module"
make -C "$build" ARCH=um "M=$work/module" W=1 modules >"$work/log" 2>&1 || { cat "$work/log" && exit 1; }
! grep -A 5 'warning:' "$work/log"
for part in ${PARTS:-refusals swap faults kills links cycles}; do
    "$lab" uml --kernel-flavour "$flavour" --memory 768M --timeout "${TIMEOUT:-900}" \
        --env "FARMEM_BIN_DIR=$FARMEM_BIN_DIR" --env "KILLS=${KILLS-}" --env "FLAPS=${FLAPS-}" --env "CYCLES=${CYCLES-}" \
        -- "$here/../module/rdma-in-guest.sh" "$work/module/farmem.ko" "$part"
done
