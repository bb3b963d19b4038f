# Sourced by the tests of offloadd in a guest: a swap device of its own, a runtime directory, and what is said when the test fails.
# shellcheck shell=bash

# needs PROGRAM...: skips where one is not built.
needs() {
    local program
    for program in "$@"; do
        [ -x "$FARMEM_BIN_DIR/$program" ] && continue
        echo "no $program in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib"
        exit 77
    done
}

# run_test SECONDS FILE: one of the Python tests beside this file, with swap on the ramdisk; its log's end when it fails.
run_test() {
    local status=0
    export FARMEM_RUNTIME_DIR=/run/farmem
    mkdir -p /run/farmem
    mkswap /dev/ram0 >/dev/null
    swapon /dev/ram0
    timeout "$1" python3 "$(dirname "${BASH_SOURCE[0]}")/$2" || status=$?
    if [ $status -ne 0 ]; then
        tail -n 30 /run/farmem/*.log 2>/dev/null || true
        exit $status
    fi
    swapoff /dev/ram0
}
