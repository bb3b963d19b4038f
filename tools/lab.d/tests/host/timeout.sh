#!/bin/bash
# A command that hangs is killed with all processes of the guest, and so is one whose tools/lab is told to end, or killed.
set -euo pipefail
lab="$(dirname "$0")/../../../lab"
work=$(mktemp -d)
started=
trap '[ -z "$started" ] || kill "$started" 2>/dev/null || true; rm -rf "$work"' EXIT
# The seconds that the first guest gets, more than it boots in; and the processes that a guest has at least.
seconds=8 least=4
[[ ${FARMEM_LAB_RUN:-uml} = uml* ]] || seconds=120 least=3
hang='trap "" TERM INT HUP; for i in 1 2 3; do sleep 1000 & done; echo hangs; wait'

# start SECONDS: a guest that hangs; sets started, and family to the processes that it consists of.
start() {
    local queue=() process
    rm -f "$work/out"
    "$lab" ${FARMEM_LAB_RUN:-uml} --timeout "$1" -- sh -c "$hang" >"$work/out" 2>"$work/err" &
    started=$!
    for _ in $(seq 1200); do
        ! grep -qs hangs "$work/out" || break
        sleep 0.1
    done
    family=() queue=("$started")
    while [ ${#queue[@]} -gt 0 ]; do
        process=${queue[0]} queue=("${queue[@]:1}")
        family+=("$process")
        for process in $(pgrep -P "$process"); do queue+=("$process"); done
    done
    [ ${#family[@]} -ge $least ] || { cat "$work/err" && echo "the guest is not there: ${family[*]}" && exit 1; }
}

# ended STATUS: the guest ends so, now or soon, and nothing is left of it.
ended() {
    local status=0 process left=
    wait "$started" || status=$?
    started=
    [ "$status" = "$1" ] || { cat "$work/err" && echo "status $status instead of $1" && exit 1; }
    for _ in $(seq 50); do
        left=
        for process in "${family[@]}"; do [ ! -d "/proc/$process" ] || left="$left${left:+ }$process"; done
        [ -n "$left" ] || return 0
        sleep 0.1
    done
    echo "left after $1: $(ps -o pid,ppid,stat,args -p "${left// /,}")"
    # shellcheck disable=SC2086
    kill -KILL $left
    exit 1
}

# Control directories are made here.
export TMPDIR=$work
clean() { [ -z "$(find "$work" -name 'farmem-lab-*')" ] || { echo "left: $(ls "$work")" && exit 1; }; }

begun=$SECONDS
start $seconds
ended 124
clean
[ $((SECONDS - begun)) -lt $((seconds + 17)) ]
[ "$(cat "$work/out")" = hangs ]
tail -n 1 "$work/err" | grep -q "^lab: not done in $seconds s"

start 300
kill -TERM "$started"
ended 143
clean

start 300
kill -KILL "$started"
ended 137
clean

# With the whole process group told, as timeout(1) does.
set -m
start 300
set +m
kill -TERM -- "-$started"
ended 143
clean
