#!/bin/bash
# How much far memory is left a second after a process has ended, by frontend, over RDMA: with what the kernel's processors keep of freed
# swap slots, and without. Prints a table.
[ -x "${FARMEM_BIN_DIR:?}/farswap" ] ||
    { echo "no farswap in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
. "$(dirname "$0")/../module/build.sh"
"$lab" "${run[@]}" --memory 768M --timeout "${TIMEOUT:-1800}" --env "FARMEM_BIN_DIR=$FARMEM_BIN_DIR" -- "$here/returns-in-guest.sh" "$module"
