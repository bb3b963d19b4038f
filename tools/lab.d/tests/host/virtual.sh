#!/bin/bash
# Minutes of functions in containers in virtual time, uncompressed, with offloading and without: what experiments/run-all --virtual is made of.
set -euo pipefail
[[ ${FARMEM_LAB_RUN:-uml} = uml* ]] || { echo "only User-Mode Linux has time travel" && exit 77; }
[ -x "${FARMEM_BIN_DIR:?}/fngateway" ] ||
    { echo "no fngateway in $FARMEM_BIN_DIR: run swift build -c release --static-swift-stdlib" && exit 77; }
/usr/bin/python3 -c 'import matplotlib' 2>/dev/null || { echo "no matplotlib; run: tools/setup" && exit 77; }
root=$(cd "$(dirname "$0")/../../../.." && pwd)
output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT
"$root/experiments/run-all" --virtual --smoke --output "$output" || { cat "$output"/virtual/*/log.txt "$output"/virtual/*/results/*.log && exit 1; }
python3 - "$output"/virtual/diverse-benchmarks/results/*.json <<'PYTHON'
import json
import sys

text = open(sys.argv[1]).read()
assert "latency" not in text and '_us"' not in text, "a latency was kept"
result = json.loads(text)
assert result["virtual"] is True and result["machine"]["processor"] == "UML", result["machine"]
phases = {phase["policy"]: phase for phase in result["report"]["phases"]}
none, ours = (phases[name]["memory"]["float-high"] for name in ("none", "farmem"))
assert none["pages_out"] == 0 and none["local_bytes_mean"] > 8 << 20, none
assert ours["pages_out"] > 1000 and ours["local_bytes_mean"] < none["local_bytes_mean"] * 0.8, (none, ours)
for phase in phases.values():
    assert phase["problem"] is None and phase["requests"], phase["problem"]
    assert all(request["outcome"] == "right" for request in phase["requests"])
    # Seven minutes by the guest's clock.
    assert phase["timeline"]["ms"][-1] > 400_000, phase["timeline"]["ms"][-1]
PYTHON
grep -q '^## Virtual time' "$output/REPORT.md"
