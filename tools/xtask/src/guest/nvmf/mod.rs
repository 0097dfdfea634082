//! The Linux kernel's NVMe/TCP host and nvme-cli in a guest against a server on this machine.
//!
//! Each scenario is a shell script for the guest ([`Test`]) that fails where the host or the
//! tool does not see what it should. Judged besides: the guest's kernel has logged nothing
//! but what the scenario expects, the server has logged no error, ends well and leaves a
//! sound pool.

pub mod basic;
pub mod blktests;
pub mod change;
pub mod cli;
pub mod filesystem;
mod golden;
pub mod keepalive;
pub mod kill;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::initramfs::{Contents, build};
use super::machine::{Ended, GATEWAY, Machine};
use super::packages::Kernel;
use super::served::Served;
use super::{Failure, Rig};

const MEMORY_MIB: u32 = 1024;
const PACKAGES: [&str; 5] = ["nvme-cli", "fio", "e2fsprogs", "xfsprogs", "util-linux"];
const PROGRAMS: [&str; 9] = [
    "nvme",
    "fio",
    "mkfs.ext4",
    "e2fsck",
    "mkfs.xfs",
    "xfs_repair",
    "blkdiscard",
    "blockdev",
    "fstrim",
];
const MODULES: [&str; 4] = ["virtio_pci", "virtio_net", "nvme_tcp", "xfs"];
/// Who the guest says it is; newer kernels want both to be of one host.
const HOST_ID: &str = "6d9a3f7e-52c1-4b0e-9a44-0c1de3f0b7a2";
/// What every script begins with.
const PRELUDE: &str = include_str!("prelude.sh");
/// Longest run of a script; most take a tenth of it, emulated on a machine that does nothing else.
const SCRIPT_SECONDS: u64 = 900;
/// Boot, server and results, and how much slower a busy machine is.
const SLACK: Duration = Duration::from_secs(240);

/// What a healthy host logs.
const CALM: [&str; 10] = [
    // The disk for the guest's results.
    "nvme nvme0: ",
    ": new ctrl: ",
    ": creating ",
    ": mapped ",
    ": Removing ctrl: ",
    ": rescanning namespaces",
    "nvme_core: loading out-of-tree",
    ": queue_size ",
    ": sqsize ",
    "/default/read/poll queues",
];

/// A scenario.
pub struct Test {
    /// Commands at the server before the guest comes.
    pub setup: &'static [&'static str],
    /// What guests run, one after the other, each after the prelude.
    pub guests: &'static [&'static str],
    /// Parts of lines that the guest's kernel may log about NVMe beside [`CALM`].
    pub expected: &'static [&'static str],
    /// The host loses its controller: what it says of that differs from kernel to kernel and
    /// is not judged. Errors, and complaints about the protocol, are.
    pub troubled: bool,
}

/// Runs a test under each kernel; `judge` sees what the guest left.
pub fn run(
    rig: &Rig<'_>,
    test: &Test,
    judge: fn(&Rig<'_>, &Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let tessera = rig.tessera()?;
    let mut ran = false;
    for name in &rig.options.kernels {
        let kernel = match rig.kit.kernel(name) {
            Ok(kernel) => kernel,
            Err(Failure(why)) => {
                println!("skipped on {name}: {why}");
                continue;
            }
        };
        ran = true;
        let out = visit(rig, test, &kernel, &tessera, name)
            .map_err(|Failure(why)| Failure(format!("on {name}: {why}")))?;
        if let Some(out) = out {
            judge(rig, &out).map_err(|Failure(why)| Failure(format!("on {name}: {why}")))?;
        }
    }
    if ran { Ok(()) } else { Err(Failure("no kernel to run".into())) }
}

/// For scenarios whose script says it all.
pub fn satisfied(_: &Rig<'_>, _: &Path) -> Result<(), Failure> {
    Ok(())
}

/// Guests beside a server of their own; what the last left, unless it vanished.
fn visit(
    rig: &Rig<'_>,
    test: &Test,
    kernel: &Kernel,
    tessera: &Path,
    name: &str,
) -> Result<Option<PathBuf>, Failure> {
    let dir = rig.dir.join(name);
    fs::create_dir_all(&dir).map_err(Failure::at(dir.display()))?;
    let mut served = Served::start(tessera, &dir, test.setup)?;
    let mut left = None;
    for script in test.guests {
        let ended = boot(rig, script, kernel, &mut served).map_err(|Failure(why)| {
            Failure(format!("{why}\nthe server's log:\n{}", served.log_text()))
        })?;
        left = match ended {
            Ended::Unplugged => None,
            Ended::Done(out) => Some(out),
        };
        let Some(out) = &left else { continue };
        let log = fs::read_to_string(out.join("dmesg")).map_err(Failure::at("dmesg"))?;
        if let Some(line) = complaint(&log, test) {
            return Err(Failure(format!("the guest's kernel logged: {line}")));
        }
    }
    served.stop()?;
    Ok(left)
}

/// Runs the guest beside the server.
fn boot(
    rig: &Rig<'_>,
    script: &str,
    kernel: &Kernel,
    served: &mut Served,
) -> Result<Ended, Failure> {
    let programs = rig.kit.programs(&PACKAGES)?;
    let machine = Machine {
        dir: &served.dir().join("machine"),
        memory_mib: MEMORY_MIB,
        queues: 1,
        disks: Vec::new(),
        network: true,
        limit: Duration::from_secs(SCRIPT_SECONDS) + SLACK,
    };
    let script = format!(
        "HOST={GATEWAY}\nPORT={}\nDISCOVERY_PORT={}\nDOOR={}\nKILLS={}\n{PRELUDE}\n{}",
        served.port,
        served.discovery_port,
        served.door()?,
        rig.options.kills,
        script
    );
    let contents = Contents {
        kernel,
        modules: &MODULES,
        programs: &[],
        packaged: Some((&programs, &PROGRAMS)),
        files: &[
            ("etc/nvme/hostid", HOST_ID),
            ("etc/nvme/hostnqn", &format!("nqn.2014-08.org.nvmexpress:uuid:{HOST_ID}")),
        ],
        script: &script,
        seconds: SCRIPT_SECONDS,
        results: &machine.results(),
    };
    let initramfs = build(rig.kit, &contents)?;
    machine.run_watched(rig.kit, kernel, &initramfs, &mut || served.attend())
}

/// What a kernel says when something is broken.
const SERIOUS: [&str; 7] =
    ["BUG:", "WARNING:", "Call Trace", "I/O error", "Oops", "blocked for more than", "corrupt"];

/// What a host says of a target that breaks the protocol (Linux, `drivers/nvme/host/tcp.c`).
const VIOLATIONS: [&str; 10] = [
    "digest",
    "pdu type",
    "pdu length",
    "bad type returned",
    "bad pfv returned",
    "probably a bug",
    "unexpected",
    "command_id",
    "not last PDU",
    " not found",
];

/// The first line of a kernel's log that nobody expects.
fn complaint<'a>(log: &'a str, test: &Test) -> Option<&'a str> {
    log.lines().find(|line| {
        let says = |words: &[&str]| words.iter().any(|word| line.contains(word));
        let about =
            says(&SERIOUS) || line.contains("nvme") && (!test.troubled || says(&VIOLATIONS));
        about && !CALM.iter().chain(test.expected).any(|part| line.contains(part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_found_and_an_expected_one_is_not() {
        let log = "[ 1.0] nvme nvme0: pci function 0000:00:02.0
[ 2.0] nvme nvme1: new ctrl: NQN \"nqn.2026-11.tessera:a\", addr 10.0.2.2:4420
[ 3.0] nvme nvme1: starting error recovery
[ 4.0] EXT4-fs (nvme1n1): mounted filesystem";
        let test = |expected, troubled| Test { setup: &[], guests: &[], expected, troubled };
        assert_eq!(complaint(log, &test(&["EXT4-fs"], false)), log.lines().nth(2));
        assert_eq!(complaint(log, &test(&["EXT4-fs", "starting error recovery"], false)), None);
        assert_eq!(complaint(log, &test(&[], true)), None);
        for line in [
            "[ 1.0] nvme1n1: I/O error, dev nvme1n1",
            "[ 1.0] Buffer I/O error on dev dm-0",
            "[ 1.0] nvme nvme1: queue 1: data digest error: recv 0x1 expected 0x2",
        ] {
            assert_eq!(complaint(line, &test(&[], true)), Some(line));
        }
    }
}
