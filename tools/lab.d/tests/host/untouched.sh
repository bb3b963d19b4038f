#!/bin/bash
# What a command writes, removes or changes is so inside and not outside, save in the exchange directory.
set -euo pipefail
lab="$(dirname "$0")/../../../lab"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/files" "$work/exchange"
for name in kept changed removed; do echo "$name" >"$work/files/$name"; done
state() { (cd "$work/files" && ls -la --time-style=full-iso && cat ./*) && ls -la --time-style=full-iso /etc && ls -A / /root; }
before=$(state)

"$lab" ${FARMEM_LAB_RUN:-uml} --exchange "$work/exchange" -- bash -euc '
    [ "$(cat "$1/kept")" = kept ]
    echo other >"$1/changed"
    rm "$1/removed"
    chmod 777 "$1/kept"
    touch "$1/new" /new-in-root /etc/new /root/new
    mv /etc/hostname /etc/hostname.moved
    [ "$(cat "$1/changed")" = other ] && [ ! -e "$1/removed" ] && [ -e /etc/hostname.moved ]
    echo result >"$FARMEM_LAB_DIR/result"
    head -c 5000000 /dev/zero >"$FARMEM_LAB_DIR/large"
' - "$work/files"

[ "$(state)" = "$before" ] || { diff <(echo "$before") <(state); exit 1; }
[ "$(cat "$work/exchange/result")" = result ]
[ "$(stat -c %s "$work/exchange/large")" = 5000000 ]
