#!/bin/bash
# farmem.ko with the backend rdma against memserver --rdma, over Soft-RoCE in guests; every page is compared. KILLS, FLAPS and CYCLES are
# how often (8, 3, 5), on the debug kernel the last under kmemleak; PARTS are those of module/rdma-in-guest.sh, and FRONTEND=frontswap is
# for kernels with kernel-patch/patches.
if [ ! -x "${FARMEM_BIN_DIR-}/memserver" ] || ! "$FARMEM_BIN_DIR/memserver" serve --help | grep -q -- --rdma; then
    echo "no memserver with --rdma in FARMEM_BIN_DIR"
    exit 77
fi
. "$(dirname "$0")/../module/build.sh"
for part in ${PARTS:-refusals swap faults kills links cycles}; do
    leaks=()
    [[ $part != cycles || ${run[*]} != *debug* ]] || leaks=(--kernel-argument kmemleak=on)
    "$lab" "${run[@]}" "${leaks[@]}" --memory 1G --timeout "${TIMEOUT:-1800}" \
        --env "FARMEM_BIN_DIR=$FARMEM_BIN_DIR" --env "KILLS=${KILLS-}" --env "FLAPS=${FLAPS-}" --env "CYCLES=${CYCLES-}" --env "FRONTEND=${FRONTEND-}" \
        -- "$here/rdma-in-guest.sh" "$module" "$part"
done
