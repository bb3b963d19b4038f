#!/bin/bash
# The source tree that `make dkms` lays out is complete by itself: dkms builds and installs farmem.ko from it for a kernel of Debian that is not
# the running one, refuses a kernel that the module is not for, and the module that it made loads.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
lab=$here/../../../lab
read -ra run <<<"${FARMEM_LAB_RUN:-uml}"
[[ ${FARMEM_LAB_RUN-} = "vm --kernel debian-"* ]] || { echo "of Debian's kernels: run tools/lab test --vm debian-6.1 dkms" && exit 77; }
command -v dkms >/dev/null || { echo "dkms is not installed; run: tools/setup --lab" && exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

kernel=$(realpath "$("$lab" "${run[@]}" --build-only)")
release=${kernel##*/linux-headers-}
source=$(make -s -C "$here/../../../../kernel-patch/module" dkms "DESTDIR=$work")
version=${source##*/farmem-}
grep -q "\"$version\"" "$here/../../../../Sources/CommandLineKit/Program.swift" || { echo "the programs have another version than $version" && exit 1; }
# Not from where the sources are: nothing beside the tree may be needed.
mkdir -p "$work/keys" "$work/state" "$work/lib/modules"
cp -r "$kernel/../../../lib/modules/$release" "$work/lib/modules"
# Where it keeps a key to sign with is no option: in a view of its own, another directory lies over that.
manage() {
    unshare --map-root-user --mount sh -euc 'mount --bind "$1" /var/lib/dkms && shift && exec dkms "$@"' - "$work/keys" \
        "$@" --dkmstree "$work/state" --sourcetree "$work/usr/src" --installtree "$work/lib/modules"
}
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log" "$work"/state/farmem/*/build/make.log 2>/dev/null; exit 1; }; }
quietly manage add "farmem/$version"
if manage build "farmem/$version" -k 6.6.1-amd64 --kernelsourcedir "$kernel" >"$work/log" 2>&1; then
    echo "it was built for Linux 6.6" && exit 1
fi
quietly manage build "farmem/$version" -k "$release" --kernelsourcedir "$kernel"
# Without its depmod, which would look at this machine's modules.
quietly manage install "farmem/$version" -k "$release" --kernelsourcedir "$kernel" --no-depmod
depmod -b "$work" "$release"
module=$(find "$work/lib/modules/$release/updates/dkms" -name 'farmem.ko*')
[ -n "$module" ] || { find "$work/lib/modules" -newer "$work/log" && echo "no module was installed" && exit 1; }
manage status | tee "$work/status"
grep -q "^farmem/$version, $release, .*: installed" "$work/status"
"$lab" "${run[@]}" -- sh -euc 'mount --bind "$1" /lib/modules && modprobe farmem && test -d /sys/module/farmem && rmmod farmem' - "$work/lib/modules"
quietly manage remove "farmem/$version" --all --no-depmod
[ -z "$(find "$work/lib/modules" -name 'farmem.ko*')" ]
