#!/bin/bash
# The guest's root needs no rights of this machine's root, and has none of them.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[[ ${FARMEM_LAB_RUN:-uml} = uml* ]] || { echo "of User-Mode Linux" && exit 77; }
[ "$(id -u)" = 0 ] || { echo "this is not root: every other test has shown it" && exit 77; }
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
as_nobody test -x "$here/../../boot" || { echo "needs a repository that other users can read" && exit 77; }

build=$("$here/../../../lab" uml --build-only --kernel-flavour "${FARMEM_LAB_FLAVOUR:-default}")
cp "$build/linux" "$work/linux"
mkdir "$work/exchange"
chown -R 65534 "$work"
cd "$work"
as_nobody "$here/../../boot" --kernel "$work/linux" --build "$work" --exchange "$work/exchange" -- bash -euc '
    [ "$(id -u)" = 0 ]
    mkswap /dev/ram0 >/dev/null && swapon /dev/ram0 && swapoff /dev/ram0
    rdma link show rxe0/1 | grep ACTIVE
    ! cat /etc/shadow
    echo 1 >"$FARMEM_LAB_DIR/file"'
[ "$(stat -c %u "$work/exchange/file")" = 65534 ]
