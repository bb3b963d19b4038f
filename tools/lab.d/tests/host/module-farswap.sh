#!/bin/bash
# farswap attaches, shows, repairs and detaches devices of farmem.ko, in a guest whose kernel the module was built for.
[ -x "${FARMEM_BIN_DIR:?}/farswap" ] ||
    { echo "no farswap in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
. "$(dirname "$0")/../module/build.sh"
"$lab" "${run[@]}" --memory 512M --timeout "${TIMEOUT:-1800}" --env "FARMEM_BIN_DIR=$FARMEM_BIN_DIR" \
    -- "$here/farswap-in-guest.sh" "$module"
