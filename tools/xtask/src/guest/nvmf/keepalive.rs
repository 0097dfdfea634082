//! Keep-alive lost in both directions, and a host that vanishes in the middle of transfers: the
//! server drops the association and serves the next.

use super::{Test, run, satisfied};
use crate::guest::{Failure, Rig};

const TEST: Test = Test {
    setup: &[
        "volume create vm1 --size 128MiB",
        "target nvmf subsystem add nqn.2026-11.tessera:vm1 --volume vm1 --any-host",
    ],
    guests: &[
        r#"
nqn=nqn.2026-11.tessera:vm1
connect $nqn -i 2 --keep-alive-tmo=5 --ctrl-loss-tmo=-1 --reconnect-delay=1
device=$(disk $nqn 1)
name=$(controller $nqn)
load $device --bs=4k --size=2M &
load=$!
sleep 2

# The server says nothing for longer than the host waits.
host server pause
within 60 is_not /sys/class/nvme/$name/state live
host server resume
within 120 is /sys/class/nvme/$name/state live
kill -0 $load
host tessera target nvmf connections

# The host says nothing for longer than the server waits: this guest stands still.
host freeze 20
host server logged keep-alive
within 120 is /sys/class/nvme/$name/state live
kill -0 $load
touch /tmp/stop
wait $load
again $device --bs=4k --size=2M

# Mid-transfer.
rm /tmp/stop
load $device --bs=128k --size=32M &
sleep 3
host vanish
sleep 60
fail 'the guest is still there'
"#,
        r#"
nqn=nqn.2026-11.tessera:vm1
connect $nqn -i 2
device=$(disk $nqn 1)
verified $device --rw=randwrite --bs=4k --size=4M --do_verify=1
# Nothing of the host that vanished is left: an admin queue and two I/O queues, all ours.
within 30 three_connections
nvme disconnect -n $nqn
"#,
    ],
    expected: &[],
    troubled: true,
};

/// Runs it.
pub fn scenario(rig: &Rig<'_>) -> Result<(), Failure> {
    run(rig, &TEST, satisfied)
}
