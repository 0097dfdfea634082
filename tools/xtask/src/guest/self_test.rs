//! The rig itself: modules load, what the guest writes comes back, and a script that fails,
//! hangs or ends in a panic is a failure.

use std::fs;
use std::time::Duration;

use super::initramfs::{Contents, build};
use super::machine::Machine;
use super::{Failure, Rig};

const MEMORY_MIB: u32 = 512;
const LIMIT: Duration = Duration::from_secs(180);
/// Of the guest's script; longer than any of these needs.
const SECONDS: u64 = 20;

/// Runs four guests, three of which must fail.
pub fn run(rig: &Rig<'_>) -> Result<(), Failure> {
    let loaded = "lsmod | grep -q ^nvme_tcp && grep -q 0000:00 /sys/class/nvme/nvme0/address
uname -r > release";
    let version = rig.kit.kernel.modules.file_name().unwrap_or_default().to_string_lossy();
    let released = boot(rig, loaded)?;
    if released.trim() != version {
        return Err(Failure(format!("the guest runs {released}, not {version}")));
    }
    for (script, shows) in [
        ("echo it is wrong; false; echo not reached", "it is wrong\n"),
        ("sleep 1000", "ended with 137"),
        ("echo c > /proc/sysrq-trigger", "Kernel panic"),
    ] {
        match boot(rig, script) {
            Err(Failure(why)) if why.contains(shows) && !why.contains("not reached") => {}
            Err(Failure(why)) => return Err(Failure(format!("`{script}` shows {why}"))),
            Ok(_) => return Err(Failure(format!("`{script}` passes"))),
        }
    }
    Ok(())
}

/// Boots a guest with a script; what that left in `release`.
fn boot(rig: &Rig<'_>, script: &str) -> Result<String, Failure> {
    let machine = Machine {
        dir: &rig.dir.join("machine"),
        memory_mib: MEMORY_MIB,
        queues: 2,
        disks: Vec::new(),
        network: false,
        limit: LIMIT,
    };
    let contents = Contents {
        kernel: &rig.kit.kernel,
        modules: &["nvme-tcp"],
        programs: &[],
        packaged: None,
        files: &[],
        script,
        seconds: SECONDS,
        results: &machine.results(),
    };
    let out = machine.run(rig.kit, contents.kernel, &build(rig.kit, &contents)?)?;
    fs::read_to_string(out.join("release")).map_err(Failure::at("release"))
}
