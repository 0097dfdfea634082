//! ext4 and XFS on a volume: made, mounted, written, checked; discard and write zeroes.

use super::{Test, run, satisfied};
use crate::guest::{Failure, Rig};

const TEST: Test = Test {
    setup: &[
        "volume create vm1 --size 320MiB",
        "target nvmf subsystem add nqn.2026-11.tessera:vm1 --volume vm1 --any-host",
    ],
    guests: &[r#"
nqn=nqn.2026-11.tessera:vm1
connect $nqn -i 2 -g -G
device=$(disk $nqn 1)
is /sys/block/$device/queue/write_cache 'write back'
is /sys/block/$device/queue/fua 1
[ $(cat /sys/block/$device/queue/discard_max_bytes) -gt 0 ]
[ $(cat /sys/block/$device/queue/write_zeroes_max_bytes) -gt 0 ]

# What the volume takes.
used() {
    host tessera --json volume show vm1 | sed -n 's/.*"fast_bytes": *\([0-9]*\).*/\1/p'
}

used_less_than() {
    [ "$(used)" -lt $1 ]
}

# A tree with known sums; written twice so that files are replaced, too.
fill() {
    mkdir /mnt/tree
    for round in 1 2; do
        for number in 1 2 3 4 5 6 7 8; do
            head -c $((number * 100000)) /dev/urandom > /mnt/tree/$number
        done
    done
    cp /bin/fio /bin/nvme /mnt/tree
    rm /mnt/tree/3
    (cd /mnt && find tree -type f | sort | xargs sha256sum) > /tmp/sums
    sync
}

try() {
    type=$1
    mount -t $type /dev/$device /mnt
    fill
    umount /mnt
    echo 3 > /proc/sys/vm/drop_caches
    mount -t $type /dev/$device /mnt
    (cd /mnt && sha256sum -c -s /tmp/sums)
    fio --name=files --directory=/mnt --rw=randrw --bs=4k --size=2M --nrfiles=4 --fsync=16 \
        --verify=crc32c --verify_fatal=1 --do_verify=1 > /tmp/fio 2>&1 || { cat /tmp/fio; fail fio; }
    full=$(used)
    rm -r /mnt/tree
    sync
    fstrim -v /mnt
    within 60 used_less_than $full
    umount /mnt
}

mkfs.ext4 -q -F /dev/$device
e2fsck -fn /dev/$device
try ext4
e2fsck -fn /dev/$device

mkfs.xfs -q -f /dev/$device
xfs_repair -n /dev/$device
try xfs
xfs_repair -n /dev/$device

# zero OFFSET LENGTH: nothing but zeros, in MiB.
zero() {
    dd if=/dev/$device bs=1M skip=$1 count=$2 iflag=direct 2> /dev/null |
        cmp -n $(($2 << 20)) - /dev/zero
}

# pattern OFFSET LENGTH: writes what is no zeros, in MiB.
pattern() {
    dd if=/tmp/pattern of=/dev/$device bs=1M seek=$1 count=$2 oflag=direct conv=notrunc 2> /dev/null
}

head -c 16777216 /dev/urandom > /tmp/pattern
pattern 16 16
blkdiscard -o $((20 << 20)) -l $((4 << 20)) /dev/$device
zero 20 4
pattern 64 16
blkdiscard -z -o $((68 << 20)) -l $((4 << 20)) /dev/$device
zero 68 4
for offset in 16 64; do
    for piece in 0 8; do
        dd if=/dev/$device bs=1M skip=$((offset + piece)) count=4 iflag=direct 2> /dev/null > /tmp/read
        dd if=/tmp/pattern bs=1M skip=$piece count=4 2> /dev/null | cmp - /tmp/read
    done
done
blkdiscard /dev/$device
zero 0 96
within 60 used_less_than $((2 << 20))
nvme disconnect -n $nqn
"#],
    expected: &["EXT4-fs", "XFS (nvme"],
    troubled: false,
};

/// Runs it.
pub fn scenario(rig: &Rig<'_>) -> Result<(), Failure> {
    run(rig, &TEST, satisfied)
}
