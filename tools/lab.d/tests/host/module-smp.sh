#!/bin/bash
# farmem.ko with processes on several processors, of which some leave and come back under load; every page is compared.
# SMP_SECONDS is for how long (60) with each of SMP_MODES: a frontend and a backend (block/dram, frontswap/dram where the kernel has it, and the
# same with rdma where there is a memserver).
[[ ${FARMEM_LAB_RUN:-uml} = vm* ]] || { echo "User-Mode Linux has one processor: run tools/lab test --vm debian-6.1 module-smp" && exit 77; }
. "$(dirname "$0")/../module/build.sh"
seconds=${SMP_SECONDS:-60}
modes=block/dram
[ ! -x "${FARMEM_BIN_DIR-}/memserver" ] || modes="$modes block/rdma"
[[ $FARMEM_LAB_RUN != *patched-* ]] || modes="$modes ${modes//block/frontswap}"
for mode in ${SMP_MODES:-$modes}; do
    "$lab" "${run[@]}" --memory 1G --timeout $((seconds * 3 + 600)) --env "FARMEM_BIN_DIR=${FARMEM_BIN_DIR-}" \
        -- "$here/smp.sh" "$module" "$seconds" "${mode%/*}" "${mode#*/}"
done
