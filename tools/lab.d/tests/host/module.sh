#!/bin/bash
# farmem.ko is built against the lab's kernel, swapped to in a guest, and unloaded; every page is compared.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
lab=$here/../../../lab
flavour=${FARMEM_LAB_FLAVOUR:-default}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build=$("$lab" uml --build-only --kernel-flavour "$flavour")
# In a copy, for several kernels' builds would mix.
cp -r "$here/../../../../kernel-patch/module" "$here/../../../../Sources/CWireFormat/include/CWireFormat.h" "$work"
mv "$work/CWireFormat.h" "$work/module"
make -C "$build" ARCH=um "M=$work/module" W=1 modules >"$work/log" 2>&1 || { cat "$work/log" && exit 1; }
! grep -A 5 'warning:' "$work/log"
"$lab" uml --kernel-flavour "$flavour" --memory 512M --timeout "${TIMEOUT:-600}" --env "FARMEM_BIN_DIR=${FARMEM_BIN_DIR-}" \
    -- "$here/../module/in-guest.sh" "$work/module/farmem.ko"
