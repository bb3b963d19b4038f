#!/bin/bash
# The command's status, output, errors, directory and environment come through unchanged.
set -euo pipefail
lab="$(dirname "$0")/../../../lab"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uml() { "$lab" ${FARMEM_LAB_RUN:-uml} "$@"; }

status=0
uml -- sh -c 'echo out; echo err >&2; exit 7' >"$work/out" 2>"$work/err" || status=$?
[ $status = 7 ] || { cat "$work/err" && echo "status $status instead of 7" && exit 1; }
[ "$(cat "$work/out")" = out ]
grep -qx err "$work/err"
grep -q 'lab: kernel: ' "$work/err"

# 3 MB with every byte value, and no kernel log when all is well.
head -c 3000000 /dev/urandom >"$work/bytes"
(cd "$work" && "$(cd - >/dev/null && realpath "$lab")" ${FARMEM_LAB_RUN:-uml} --env "A=b  c" -- \
    sh -c 'test "$A" = "b  c" && cat "$1" && echo all >&2' - "bytes") >"$work/out" 2>"$work/err"
cmp "$work/bytes" "$work/out"
[ "$(cat "$work/err")" = all ]

status=0
uml -- no-such-command >"$work/out" 2>"$work/err" || status=$?
[ $status = 127 ] || { echo "status $status instead of 127" && exit 1; }

# A kernel that ends before the command does, and one that warns.
status=0
uml -- busybox poweroff -f 2>"$work/err" || status=$?
[ $status = 70 ] || { cat "$work/err" && echo "status $status instead of 70 after a power-off" && exit 1; }
status=0
uml -- sh -c 'echo "WARNING: of a test" >/dev/kmsg' 2>"$work/err" || status=$?
[ $status = 70 ] || { cat "$work/err" && echo "status $status instead of 70 after a warning" && exit 1; }
uml --allow-warnings -- sh -c 'echo "WARNING: of a test" >/dev/kmsg'

status=0
uml --memory much -- true 2>"$work/err" || status=$?
[ $status = 64 ] && [ "$(wc -l <"$work/err")" = 1 ]
