#!/bin/bash
# farswap attaches, shows, repairs and detaches devices of farmem.ko, in a guest whose kernel the module was built for.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
lab=$here/../../../lab
flavour=${FARMEM_LAB_FLAVOUR:-default}
[ -x "${FARMEM_BIN_DIR:?}/farswap" ] ||
    { echo "no farswap in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build=$("$lab" uml --build-only --kernel-flavour "$flavour")
cp -r "$here/../../../../kernel-patch/module" "$work/module"
cp "$here/../../../../Sources/CWireFormat/include/CWireFormat.h" "$work/module"
make -C "$build" ARCH=um "M=$work/module" modules >"$work/log" 2>&1 || { cat "$work/log" && exit 1; }
"$lab" uml --kernel-flavour "$flavour" --memory 512M --timeout "${TIMEOUT:-300}" --env "FARMEM_BIN_DIR=$FARMEM_BIN_DIR" \
    -- "$here/../module/farswap-in-guest.sh" "$work/module/farmem.ko"
