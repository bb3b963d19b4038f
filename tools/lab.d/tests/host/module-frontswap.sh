#!/bin/bash
# farswap attaches, shows, repairs and detaches swap areas that farmem.ko serves by frontswap, on a kernel with kernel-patch/patches; on
# others, that it says so and changes nothing. PARTS are those of module/farswap-frontswap-in-guest.sh, ROUNDS (1) how often rdma goes through
# its ways, and WAY, such as "--connections 2", the only one of these.
[ -x "${FARMEM_BIN_DIR:?}/farswap" ] ||
    { echo "no farswap in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
. "$(dirname "$0")/../module/build.sh"
"$lab" "${run[@]}" --memory 768M --timeout "${TIMEOUT:-1800}" --env "FARMEM_BIN_DIR=$FARMEM_BIN_DIR" \
    --env "PARTS=${PARTS-}" --env "ROUNDS=${ROUNDS-}" --env "WAY=${WAY-}" -- "$here/farswap-frontswap-in-guest.sh" "$module"
