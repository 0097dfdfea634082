//! Changes while a host is attached: size, namespaces, ANA states, allowed hosts; and hosts
//! that are refused.

use super::{Test, run, satisfied};
use crate::guest::{Failure, Rig};

const TEST: Test = Test {
    setup: &[
        "volume create vm1 --size 128MiB",
        "volume create vm2 --size 64MiB",
        "target nvmf subsystem add nqn.2026-11.tessera:change --volume vm1 --host nqn.2014-08.org.nvmexpress:uuid:6d9a3f7e-52c1-4b0e-9a44-0c1de3f0b7a2",
    ],
    guests: &[r#"
nqn=nqn.2026-11.tessera:change
me=$(cat /etc/nvme/hostnqn)
stranger=nqn.2014-08.org.nvmexpress:uuid:11111111-52c1-4b0e-9a44-0c1de3f0b7a2

# Refused, with the reason in the host's log and in the server's.
refused connect $nqn --hostnqn $stranger --hostid 11111111-52c1-4b0e-9a44-0c1de3f0b7a2
dmesg | grep 'Connect for subsystem '$nqn' is not allowed, hostnqn: '$stranger
host server logged $stranger
refused connect nqn.2026-11.tessera:absent
dmesg | grep 'Connect Invalid Data Parameter, subsysnqn "nqn.2026-11.tessera:absent"'
host server logged nqn.2026-11.tessera:absent
refused nvme connect -t tcp -a $HOST -s 1 -n $nqn

# What a stranger may not reach it does not find.
nvme discover -t tcp -a $HOST -s $DISCOVERY_PORT --hostnqn $stranger \
    --hostid 11111111-52c1-4b0e-9a44-0c1de3f0b7a2 > /tmp/found
refused grep $nqn /tmp/found

connect $nqn -i 2
device=$(disk $nqn 1)
name=$(controller $nqn)
load $device --bs=4k --size=2M &
load=$!

# Bigger, under load.
is /sys/block/$device/size $((128 << 11))
host tessera volume resize vm1 --size 192MiB
within 60 is /sys/block/$device/size $((192 << 11))
verified $device --rw=write --bs=64k --offset=160M --size=4M --do_verify=1

# A second namespace comes and goes, under load of both.
no_disk $nqn 2
host tessera target nvmf namespace add $nqn vm2 --nsid 2
second=$(disk $nqn 2)
is /sys/block/$second/size $((64 << 11))
verified $second --rw=randwrite --bs=4k --size=2M --do_verify=1
(load $second --bs=4k --size=2M > /tmp/second 2>&1) &
other=$!
sleep 2
host tessera target nvmf namespace remove $nqn 2
within 60 no_disk $nqn 2
refused wait $other
host tessera target nvmf namespace add $nqn vm2 --nsid 2 --read-only
second=$(disk $nqn 2)
is /sys/block/$second/ro 1
host tessera target nvmf namespace remove $nqn 2
within 60 no_disk $nqn 2

# ANA, under load: states arrive, and where nothing is accessible requests wait.
path=$(ls -d /sys/class/nvme/$name/nvme*c*n*)
within 60 is $path/ana_state optimized
for state in non-optimized inaccessible optimized change optimized; do
    host tessera target nvmf ana set $nqn 1 $state
    within 60 is $path/ana_state $state
    sleep 1
done

touch /tmp/stop
wait $load
nvme disconnect -n $nqn

# Allowed no longer: the host is disconnected and comes in again only when it may.
connect $nqn -i 2 --ctrl-loss-tmo=3 --reconnect-delay=1
disk $nqn 1
host tessera target nvmf host remove $nqn $me
within 60 no_disk $nqn 1
refused connect $nqn
dmesg | tail -n 5 | grep 'is not allowed, hostnqn: '$me
host tessera target nvmf host add $nqn $me
connect $nqn -i 2
disk $nqn 1
nvme disconnect -n $nqn
"#],
    expected: &[
        // A look for partitions while there is no path.
        "Buffer I/O error on dev nvme1n1, logical block 0, async page read",
        // The namespace that was taken away.
        "nvme1n2",
        "nvme1c1n2",
    ],
    troubled: true,
};

/// Runs it.
pub fn scenario(rig: &Rig<'_>) -> Result<(), Failure> {
    run(rig, &TEST, satisfied)
}
