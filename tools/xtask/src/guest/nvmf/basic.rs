//! Discovery, connecting with several queues, digests, verified data, disconnecting and
//! connecting again.

use super::{Test, run, satisfied};
use crate::guest::{Failure, Rig};

const TEST: Test = Test {
    setup: &[
        "volume create vm1 --size 256MiB",
        "target nvmf subsystem add nqn.2026-11.tessera:vm1 --volume vm1 --any-host",
    ],
    guests: &[r#"
nqn=nqn.2026-11.tessera:vm1
for port in $DISCOVERY_PORT $PORT; do
    nvme discover -t tcp -a $HOST -s $port > /tmp/found
    grep -q 'subnqn: *'$nqn /tmp/found || { cat /tmp/found; fail 'not discovered'; }
done

# Digests in all four combinations, and what is written with one is read with the next.
seed=1
for options in '-i 2' '-i 2 -g' '-i 4 -G' '-i 3 -g -G -W 1'; do
    connect $nqn $options
    device=$(disk $nqn 1)
    name=$(controller $nqn)
    within 60 is /sys/class/nvme/$name/state live
    if [ $seed -gt 1 ]; then
        verified $device --rw=randwrite --bs=16k --size=4M --verify_only --randseed=$((seed - 1))
    fi
    verified $device --rw=randwrite --bs=16k --size=4M --do_verify=1 --randseed=$seed
    verified $device --rw=randrw --bs=4k --offset=64M --size=2M --do_verify=1
    verified $device --rw=write --bs=512k --offset=128M --size=8M --do_verify=1 --sync=dsync
    seed=$((seed + 1))
    nvme disconnect -n $nqn
    within 30 no_disk $nqn 1
done

# Queues: as many as asked for, and one for each CPU at most.
connect $nqn -i 2
name=$(controller $nqn)
is /sys/class/nvme/$name/queue_count 3
nvme disconnect -n $nqn
"#],
    expected: &[],
    troubled: false,
};

/// Runs it.
pub fn scenario(rig: &Rig<'_>) -> Result<(), Failure> {
    run(rig, &TEST, satisfied)
}
