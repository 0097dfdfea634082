//! What the nvme group of blktests asks of a target, written anew; the numbers are its tests'.
//! What other scenarios show already is not here.

use super::{Test, run, satisfied};
use crate::guest::{Failure, Rig};

const TEST: Test = Test {
    setup: &[
        "volume create vm1 --size 128MiB",
        "volume create vm2 --size 64MiB",
        "target nvmf subsystem add nqn.2026-11.tessera:vm1 --volume vm1 --any-host",
    ],
    guests: &[r#"
nqn=nqn.2026-11.tessera:vm1
discovery=nqn.2014-08.org.nvmexpress.discovery

echo '003: a discovery controller that stays connected is kept alive'
nvme connect -t tcp -a $HOST -s $DISCOVERY_PORT -n $discovery --keep-alive-tmo=5
name=$(controller $discovery)
sleep 12
is /sys/class/nvme/$name/state live
nvme disconnect -n $discovery

echo '004: connect and disconnect, again and again'
for round in 1 2 3 4 5; do
    connect $nqn -i 2
    disk $nqn 1 > /dev/null
    nvme disconnect -n $nqn
    within 30 no_disk $nqn 1
done

connect $nqn -i 2
device=$(disk $nqn 1)
name=$(controller $nqn)

echo '005, 022: reset, with and without load'
nvme reset /dev/$name
within 60 is /sys/class/nvme/$name/state live
load $device --bs=4k --size=2M &
load=$!
for round in 1 2 3 4 5; do
    sleep 1
    nvme reset /dev/$name
    within 60 is /sys/class/nvme/$name/state live
done
kill -0 $load

echo '027: rescan under load'
for round in 1 2 3; do
    nvme ns-rescan /dev/$name
done

echo '051: a namespace comes and goes under load'
for round in 1 2 3 4 5; do
    host tessera target nvmf namespace add $nqn vm2 --nsid 2
    disk $nqn 2 > /dev/null
    host tessera target nvmf namespace remove $nqn 2
    within 60 no_disk $nqn 2
done
touch /tmp/stop
wait $load
rm /tmp/stop

echo '014: flush'
nvme flush /dev/$name -n 1

echo '018: beyond the end'
end=$(($(cat /sys/block/$device/size) * 512 / $(cat /sys/block/$device/queue/logical_block_size)))
size=$(cat /sys/block/$device/queue/logical_block_size)
refused nvme read /dev/$device -s $end -c 0 -z $size > /tmp/said 2>&1
said 'LBA Out of Range'
refused nvme read /dev/$device -s $((end - 1)) -c 1 -z $((2 * size)) > /tmp/said 2>&1
said 'LBA Out of Range'
nvme read /dev/$device -s $((end - 1)) -c 0 -z $size > /dev/null

echo '019: deallocate, one range and several'
nvme dsm /dev/$device -n 1 -d -s 0 -b 8
nvme dsm /dev/$device -n 1 -d -s 0,16,64 -b 8,8,8

echo '029: reads, writes and comparisons that bypass the block layer, of many lengths'
head -c 1048576 /dev/urandom > /tmp/data
for blocks in 1 2 3 8 31 32 33 64; do
    bytes=$((blocks * size))
    head -c $bytes /tmp/data > /tmp/part
    nvme write /dev/$device -s 100 -c $((blocks - 1)) -z $bytes -d /tmp/part > /dev/null
    nvme read /dev/$device -s 100 -c $((blocks - 1)) -z $bytes -d /tmp/back > /dev/null
    cmp /tmp/part /tmp/back
    nvme compare /dev/$device -s 100 -c $((blocks - 1)) -z $bytes -d /tmp/part > /dev/null
done
head -c $bytes /dev/urandom > /tmp/part
refused nvme compare /dev/$device -s 100 -c $((blocks - 1)) -z $bytes -d /tmp/part > /tmp/said 2>&1
said 'Compare Failure'
nvme write-zeroes /dev/$device -s 100 -c 63
nvme read /dev/$device -s 100 -c 63 -z $((64 * size)) -d /tmp/back > /dev/null
cmp -n $((64 * size)) /tmp/back /dev/zero

echo 'commands that no such target has are refused as unknown'
refused nvme io-passthru /dev/$device -n 1 --opcode=0x7c > /tmp/said 2>&1
said 'Invalid Command Opcode'
for opcode in 0x00 0x01 0x04 0x05 0x10; do
    refused nvme admin-passthru /dev/$name --opcode=$opcode > /tmp/said 2>&1
    said 'Invalid Command Opcode'
done
refused nvme get-log /dev/$name --log-id=0x7e --log-len=64 > /tmp/said 2>&1
said 'Invalid Log Page'
refused nvme get-feature /dev/$name -f 0x7e > /tmp/said 2>&1
said 'Invalid Field'

echo '040: deleted by the host under load: requests fail, nothing hangs'
(load $device --bs=4k --size=2M > /tmp/second 2>&1) &
load=$!
sleep 2
echo 1 > /sys/class/nvme/$name/delete_controller
refused wait $load
within 30 no_disk $nqn 1

echo '047, 048: queues of several kinds, and another number of them'
for options in '-i 1' '-i 2 -W 1' '-i 1 -W 1 -P 1' '-i 2'; do
    connect $nqn $options
    device=$(disk $nqn 1)
    verified $device --rw=randwrite --bs=4k --size=2M --do_verify=1
    nvme disconnect -n $nqn
    within 30 no_disk $nqn 1
done

echo '030: the generation counter follows what a host may find'
generation() {
    nvme discover -t tcp -a $HOST -s $DISCOVERY_PORT | sed -n 's/.*Generation counter \([0-9]*\).*/\1/p'
}
before=$(generation)
[ "$(generation)" = "$before" ]
host tessera target nvmf subsystem add nqn.2026-11.tessera:two --volume vm2 --any-host
added=$(generation)
[ "$added" -gt "$before" ]
host tessera target nvmf subsystem remove nqn.2026-11.tessera:two
[ "$(generation)" -gt "$added" ]

echo '031: a subsystem is removed while a host has it'
for round in 1 2 3; do
    host tessera target nvmf subsystem add nqn.2026-11.tessera:two --volume vm2 --any-host
    connect nqn.2026-11.tessera:two -i 2 --ctrl-loss-tmo=2 --reconnect-delay=1
    disk nqn.2026-11.tessera:two 1 > /dev/null
    host tessera target nvmf subsystem remove nqn.2026-11.tessera:two
    within 60 no_disk nqn.2026-11.tessera:two 1
done
"#],
    // Deleted under load.
    expected: &["I/O error, dev nvme", "I/O error on dev nvme"],
    troubled: true,
};

/// Runs it.
pub fn scenario(rig: &Rig<'_>) -> Result<(), Failure> {
    run(rig, &TEST, satisfied)
}
