#!/bin/bash
# The offload controller by MGLRU's generations: Puckets leave and come back, the kernel ages and merges in between, its figures agree.
# lab: --memory 1G --timeout 400
set -euo pipefail
. "$(dirname "$0")/../offload/guest.sh"
needs offloadd farmem memserver
run_test 350 mglru.py
