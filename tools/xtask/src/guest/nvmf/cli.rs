//! What nvme-cli prints of a subsystem with two namespaces, one of them read-only, against
//! golden texts.

use std::fs;
use std::path::Path;

use super::golden::{Mask, compare};
use super::{Test, run};
use crate::guest::{Failure, Rig};

/// The texts are what this version prints.
const VERSION: &str = "nvme version 2.3";

const TEST: Test = Test {
    setup: &[
        "volume create vm1 --size 64MiB",
        "volume create vm2 --size 96MiB --read-only",
        "target nvmf subsystem add nqn.2026-11.tessera:cli --volume vm1 --any-host --serial TESSERA1",
        "target nvmf namespace add nqn.2026-11.tessera:cli vm2 --nsid 7 --read-only",
    ],
    guests: &[r#"
nqn=nqn.2026-11.tessera:cli
nvme version > /out/version
nvme discover -t tcp -a $HOST -s $DISCOVERY_PORT > /out/discover
connect $nqn -i 2
device=$(disk $nqn 1)
disk $nqn 7
name=$(controller $nqn)
nvme id-ctrl -H /dev/$name > /out/id-ctrl
nvme id-ns -H /dev/$name -n 1 > /out/id-ns-1
nvme id-ns -H /dev/$name -n 7 > /out/id-ns-7
nvme ns-descs /dev/$name -n 1 > /out/ns-descs
nvme list-ns /dev/$name > /out/list-ns
nvme list-subsys /dev/$device > /out/list-subsys
nvme smart-log /dev/$name > /out/smart-log
nvme ana-log /dev/$name > /out/ana-log
nvme effects-log --csi=0 /dev/$name > /out/effects-log
nvme error-log -e 1 /dev/$name > /out/error-log
nvme fw-log /dev/$name > /out/fw-log
# Not show-regs: this version of it ends at the first property that only PCIe has.
for offset in 0x0 0x8 0x14 0x1c; do
    nvme get-property -o $offset -H /dev/$name
done > /out/get-property
for feature in 1 2 4 5 6 7 8 9 0xa 0xb 0xf; do
    nvme get-feature -f $feature -H /dev/$name
done > /out/get-feature

# The identity is the volume's.
uuid=$(host tessera --json volume show vm1 | sed -n 's/.*"uuid": *"\([0-9a-f-]*\)".*/\1/p')
[ -n "$uuid" ]
is /sys/block/$device/uuid $uuid
[ "$(tr -d - < /sys/block/$device/nguid)" = "$(echo $uuid | tr -d -)" ]

# Refused by the namespace, and by the kernel that asked it.
is /sys/block/$(find_disk $nqn 7)/ro 1
refused dd if=/dev/zero of=/dev/$(find_disk $nqn 7) bs=4096 count=1 conv=fsync
nvme disconnect -n $nqn
"#],
    expected: &[],
    troubled: false,
};

/// Each text and what varies in it. Identities are checked in the script.
const TEXTS: [(&str, &[Mask]); 14] = [
    ("discover", &[Mask::Field("trsvcid"), Mask::Between("Generation counter ", "")]),
    ("id-ctrl", &[Mask::Field("cntlid"), Mask::Field("fr")]),
    ("id-ns-1", &[Mask::Field("nguid")]),
    ("id-ns-7", &[Mask::Field("nguid")]),
    ("ns-descs", &[Mask::Field("uuid"), Mask::Field("nguid")]),
    ("list-ns", &[]),
    ("list-subsys", &[Mask::Between("traddr=10.0.2.2,trsvcid=", " live")]),
    (
        "smart-log",
        &[
            Mask::Field("Data Units Read"),
            Mask::Field("Data Units Written"),
            Mask::Field("host_read_commands"),
            Mask::Field("host_write_commands"),
            Mask::Field("controller_busy_time"),
            Mask::Field("power_on_hours"),
        ],
    ),
    ("ana-log", &[]),
    ("effects-log", &[]),
    ("error-log", &[]),
    ("fw-log", &[]),
    ("get-property", &[]),
    ("get-feature", &[]),
];

/// Runs it.
pub fn scenario(rig: &Rig<'_>) -> Result<(), Failure> {
    run(rig, &TEST, judge)
}

fn judge(rig: &Rig<'_>, out: &Path) -> Result<(), Failure> {
    let read = |name: &str| {
        fs::read_to_string(out.join(name)).map_err(Failure::at(out.join(name).display()))
    };
    let version = read("version")?;
    if !version.starts_with(VERSION) {
        println!("skipped: golden texts are of {VERSION}, this is {}", version.trim());
        return Ok(());
    }
    for (name, masks) in TEXTS {
        compare(name, &read(name)?, masks, rig.options.bless)?;
    }
    Ok(())
}
