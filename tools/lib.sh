# Shared by the scripts in this directory; sourced, not run.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export LC_ALL=C.UTF-8

# The toolchain where its tarball is usually unpacked, when PATH has none.
if ! command -v swift >/dev/null; then
    for directory in /opt/swift/usr/bin /usr/local/swift/usr/bin "$HOME/.local/share/swiftly/bin"; do
        if [ -x "$directory/swift" ]; then
            PATH=$directory:$PATH
            break
        fi
    done
fi

# say TEXT...: progress, on standard error.
say() { printf '%s\n' "$*" >&2; }

# die STATUS TEXT...: one line that says what is wrong and what to do.
die() {
    local status=$1
    shift
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit "$status"
}

# usage: prints the comment block at the top of the calling script.
usage() { sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0"; }

# with_root COMMAND...: runs it as root, through sudo when needed.
with_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die 77 "this needs root: run it as root or install sudo"
    fi
}
