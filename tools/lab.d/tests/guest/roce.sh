#!/bin/bash
# Soft-RoCE between the two ends of the cable: verbs, rdma_cm with every byte checked, and nothing when the cable is cut.
set -euo pipefail

for device in rxe0 rxe1; do
    ibv_devinfo -d $device | grep PORT_ACTIVE >/dev/null || { ibv_devinfo && exit 1; }
done

# gid DEVICE ADDRESS: the index of the address in the device's table.
gid() {
    local file wanted
    wanted=$(printf '0000:0000:0000:0000:0000:ffff:%02x%02x:%02x%02x' ${2//./ })
    for file in /sys/class/infiniband/$1/ports/1/gids/*; do
        [ "$(cat "$file" 2>/dev/null)" != "$wanted" ] || { basename "$file" && return; }
    done
    echo "no $wanted on $1" >&2
    return 1
}
near=$(gid rxe0 192.168.77.1) far=$(gid rxe1 192.168.77.2)

carried() { cat /sys/class/net/veth0/statistics/tx_bytes; }

# pingpong SECONDS: 200 messages of 4 KiB each way between queue pairs of the two devices, contents checked, asleep between
# them, for there is one processor.
pingpong() {
    local server status=0
    timeout "$1" ibv_rc_pingpong -d rxe0 -g "$near" -s 4096 -n 200 -c -e &
    server=$!
    sleep 0.5
    timeout "$1" ibv_rc_pingpong -d rxe1 -g "$far" -s 4096 -n 200 -c -e 127.0.0.1 || status=$?
    wait $server || status=$?
    return $status
}

before=$(carried)
pingpong 30
[ $(($(carried) - before)) -gt 800000 ] || { echo "the messages did not take the cable" && exit 1; }

before=$(carried)
timeout 60 rping -s -a 192.168.77.1 -C 100 -S 4096 -V &
server=$!
sleep 0.5
timeout 60 rping -c -a 192.168.77.1 -I 192.168.77.2 -C 100 -S 4096 -V
wait $server
[ $(($(carried) - before)) -gt 400000 ] || { echo "rping did not take the cable" && exit 1; }

ip link set veth0 down
if pingpong 5 2>/dev/null; then
    echo "messages arrived though the cable was cut"
    exit 1
fi
