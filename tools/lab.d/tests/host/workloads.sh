#!/bin/bash
# A sort, a hash map and a stream with half and a quarter of their memory, every byte compared. Run by itself it prints the table of slowdowns.
# WORKLOAD_MIB (16) of memory, WORKLOAD_ROUNDS (1), WORKLOAD_FRONTENDS: some of block frontswap nbd fuse, or all (those of farmem.ko).
. "$(dirname "$0")/../module/build.sh"
gcc -O2 -Wall -Wextra -Werror -static -o "$work/workload" "$here/../../../../workloads/workload.c"
"$lab" "${run[@]}" --memory 768M --timeout "${TIMEOUT:-1800}" --env "FARMEM_BIN_DIR=${FARMEM_BIN_DIR-}" \
    --env "WORKLOAD_FRONTENDS=${WORKLOAD_FRONTENDS-}" -- "$here/../workload/in-guest.sh" "$work/workload" "$module" "${WORKLOAD_MIB:-16}" "${WORKLOAD_ROUNDS:-1}"
