//! The server dies again and again under verified writes; the host reconnects, no request fails, and
//! everything that was written is there (promise 2).

use super::{Test, run, satisfied};
use crate::guest::{Failure, Rig};

const TEST: Test = Test {
    setup: &[
        "volume create vm1 --size 256MiB",
        "target nvmf subsystem add nqn.2026-11.tessera:vm1 --volume vm1 --any-host",
    ],
    guests: &[r#"
nqn=nqn.2026-11.tessera:vm1
connect $nqn -i 2 -g -G --ctrl-loss-tmo=-1 --reconnect-delay=1
device=$(disk $nqn 1)
name=$(controller $nqn)
load $device --bs=4k --size=4M &
random=$!
load $device --bs=64k --offset=64M --size=16M --fsync=8 &
large=$!
for round in $(seq $KILLS); do
    sleep $((1 + round % 3))
    host server kill
    host server start
    within 120 is /sys/class/nvme/$name/state live
    kill -0 $random
    kill -0 $large
    echo "killed $round"
done
sleep 2
touch /tmp/stop
wait $random
wait $large
again $device --bs=4k --size=4M
again $device --bs=64k --offset=64M --size=16M --fsync=8
nvme disconnect -n $nqn
"#],
    expected: &[],
    troubled: true,
};

/// Runs it.
pub fn scenario(rig: &Rig<'_>) -> Result<(), Failure> {
    run(rig, &TEST, satisfied)
}
