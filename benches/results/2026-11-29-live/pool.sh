#!/bin/sh
# pool.sh POOL TRACE.csv: a pool with a volume vm that has bytes wherever the trace reads, all of
# it on a cold device that behaves like a disk. The device's file is in $MEMORY (/dev/shm), so
# that its only delays are those of the imagined disk.
set -eu
pool=$1; trace=$2; here=$(dirname "$0"); memory=${MEMORY:-/dev/shm}
mkdir -p "$pool"
conf() {
    cat > "$pool/tessera.toml" <<T
cores = 1
memory_per_core = "256MiB"
stage_budget = "64MiB"

[tier_policy]
spill_watermark = $1

[tuning]
enabled = false

[[pool.devices]]
path = "fast.img"
role = "fast"
size = "3GiB"

[[pool.devices]]
path = "$memory/$pool-cold.img"
role = "cold"
size = "3GiB"
$2
T
}
conf 0.8 ""
python3 "$here/image.py" "$trace" "$pool/image"
export TESSERA_DATA=$pool
sh tools/xtask/served.sh "tessera image import $pool/image vm; tessera tier spill vm"
rm "$pool/image"
# A watermark of 0: nothing is copied to the fast device.
conf 0.0 'emulate = "hdd"'
