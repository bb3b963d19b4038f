#!/bin/bash
# farmem.ko with processes on several processors, of which some leave and come back under load; every page is compared.
# SMP_SECONDS is for how long (60).
[[ ${FARMEM_LAB_RUN:-uml} = vm* ]] || { echo "User-Mode Linux has one processor: run tools/lab test --vm debian-6.1 module-smp" && exit 77; }
. "$(dirname "$0")/../module/build.sh"
seconds=${SMP_SECONDS:-60}
"$lab" "${run[@]}" --memory 640M --timeout $((seconds * 3 + 600)) -- "$here/smp.sh" "$module" "$seconds"
