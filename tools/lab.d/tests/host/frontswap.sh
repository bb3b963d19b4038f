#!/bin/bash
# farmem.ko behind the frontswap of the kernel with kernel-patch/patches, swapped to in a guest, every page compared; on other kernels, that
# it refuses. CYCLES is how many lives of the module (20).
. "$(dirname "$0")/../module/build.sh"
"$lab" "${run[@]}" --memory 768M --timeout "${TIMEOUT:-1800}" --env "CYCLES=${CYCLES:-20}" --env "FARMEM_BIN_DIR=${FARMEM_BIN_DIR-}" \
    -- "$here/frontswap-in-guest.sh" "$module"
