#!/bin/bash
# How much far memory is left a second after a process has ended, by frontend, over RDMA: at most one slab, but where farswap is told not
# to have the kernel give back what its processors keep of freed swap slots. Prints a table. ROUNDS and KILLS are how often.
[ -x "${FARMEM_BIN_DIR:?}/farswap" ] ||
    { echo "no farswap in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
. "$(dirname "$0")/../module/build.sh"
"$lab" "${run[@]}" --memory 768M --timeout "${TIMEOUT:-1800}" \
    --env "FARMEM_BIN_DIR=$FARMEM_BIN_DIR" --env "ROUNDS=${ROUNDS-}" --env "KILLS=${KILLS-}" -- "$here/returns-in-guest.sh" "$module"
