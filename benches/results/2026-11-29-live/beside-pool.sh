#!/bin/sh
# beside-pool.sh: the pool `beside`, with a volume hot on the fast device and a volume vm on a
# cold one that behaves like a disk.
set -eu
memory=${MEMORY:-/dev/shm}
mkdir -p beside
conf() {
    cat > beside/tessera.toml <<T
cores = 1
memory_per_core = "256MiB"
stage_budget = "64MiB"

[tuning]
enabled = false

[[pool.devices]]
path = "$memory/beside-fast.img"
role = "fast"
size = "4GiB"

[[pool.devices]]
path = "cold.img"
role = "cold"
size = "4GiB"
$1
T
}
conf ""
head -c 134217728 /dev/urandom > beside/hot.image
head -c 3146776576 /dev/urandom > beside/vm.image
export TESSERA_DATA=beside
sh tools/xtask/served.sh "tessera image import beside/vm.image vm
tessera tier spill vm
tessera image import beside/hot.image hot"
rm beside/hot.image beside/vm.image
conf 'emulate = "hdd"'
