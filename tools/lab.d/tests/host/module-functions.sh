#!/bin/bash
# Functions in containers whose idle pages go over RDMA to a memory server: farmem bench functions with farmem.ko, in a guest.
[ -x "${FARMEM_BIN_DIR:?}/fngateway" ] ||
    { echo "no fngateway in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
. "$(dirname "$0")/../module/build.sh"
"$lab" "${run[@]}" --memory 3G --timeout "${TIMEOUT:-900}" --env "FARMEM_BIN_DIR=$FARMEM_BIN_DIR" \
    --env "DURATION=${DURATION:-40s}" -- "$here/functions-in-guest.sh" "$module"
