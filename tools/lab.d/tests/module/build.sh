# Sourced by the tests of farmem.ko in host/: builds it against the kernel that the tests run on, without a warning. Sets lab, run (the
# arguments that boot that kernel), work (a directory that is removed at the end) and module (the file).
set -euo pipefail
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
lab=$here/../../../lab
read -ra run <<<"${FARMEM_LAB_RUN:-uml}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

kernel=$("$lab" "${run[@]}" --build-only)
arch=()
[ "${run[0]}" != uml ] || arch=(ARCH=um)
# KASAN marks what lies around a module's variables, and User-Mode Linux does not tell it when a module's memory is freed: who gets that memory next
# would be reported. So it does not mark it.
! grep -qx CONFIG_KASAN=y "$kernel/.config" || arch+=("CFLAGS_MODULE=--param asan-globals=0")
# In a copy, for several kernels' builds would mix.
cp -r "$here/../../../../kernel-patch/module" "$work/module"
cp "$here/../../../../Sources/CWireFormat/include/CWireFormat.h" "$work/module"
make -C "$kernel" "${arch[@]}" "M=$work/module" W=1 modules >"$work/log" 2>&1 || { cat "$work/log" && exit 1; }
! grep -A 5 'warning:' "$work/log"
module=$work/module/farmem.ko
