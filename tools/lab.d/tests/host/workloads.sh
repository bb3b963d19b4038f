#!/bin/bash
# A sort, a hash map and a stream with half and a quarter of their memory, on each frontend that there is, every byte compared. Run by itself
# it prints the table of slowdowns. WORKLOAD_MIB (32) of memory, WORKLOAD_ROUNDS (1).
. "$(dirname "$0")/../module/build.sh"
gcc -O2 -Wall -Wextra -Werror -static -o "$work/workload" "$here/../workload/workload.c"
"$lab" "${run[@]}" --memory 768M --timeout "${TIMEOUT:-1800}" ${FARMEM_BIN_DIR:+--env "FARMEM_BIN_DIR=$FARMEM_BIN_DIR"} \
    -- "$here/../workload/in-guest.sh" "$work/workload" "$module" "${WORKLOAD_MIB:-32}" "${WORKLOAD_ROUNDS:-1}"
