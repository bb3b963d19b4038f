#!/bin/bash
# farmem.ko is built against the lab's kernel, swapped to in a guest, and unloaded; every page is compared.
. "$(dirname "$0")/../module/build.sh"
"$lab" "${run[@]}" --memory 512M --timeout "${TIMEOUT:-900}" --env "FARMEM_BIN_DIR=${FARMEM_BIN_DIR-}" -- "$here/in-guest.sh" "$module"
