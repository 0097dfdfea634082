//! One run of QEMU: a machine with NVMe disks that boots an initramfs.
//!
//! All disks are namespaces of one controller, in order. The last is added
//! here: the guest's results.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use super::packages::Kernel;
use super::{Failure, Kit, output};

const RESULTS_BYTES: u64 = 512 << 20;
const PRINTED_LINES: usize = 40;
/// Between two looks at a guest.
const STEP: Duration = Duration::from_millis(20);
/// This machine, for a guest with a network card (QEMU's user networking, 10.0.2.0/24).
pub const GATEWAY: &str = "10.0.2.2";

/// What a guest's watcher wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// The guest runs on.
    GoOn,
    /// The guest stands still for so long; its connections stay open.
    Freeze(Duration),
    /// The guest vanishes, as if its power were cut.
    PullThePlug,
}

/// How a guest ended.
pub enum Ended {
    /// By itself; what was in its `/out` is in this directory.
    Done(PathBuf),
    /// Its watcher pulled the plug.
    Unplugged,
}

/// A disk of the guest.
pub struct Disk {
    /// Bytes; all zeros at the start.
    pub bytes: u64,
    /// Log of all writes (`blklogwrites`), in the machine's directory.
    pub log: Option<String>,
}

/// A machine to run.
pub struct Machine<'a> {
    /// Where its disks, logs and results are; emptied first.
    pub dir: &'a Path,
    /// Its memory.
    pub memory_mib: u32,
    /// Queue pairs of the controller.
    pub queues: u32,
    /// `/dev/nvme0n1`, `/dev/nvme0n2` …
    pub disks: Vec<Disk>,
    /// A network card, `eth0`: the guest reaches this machine's loopback at [`GATEWAY`].
    pub network: bool,
    /// After which it has hung.
    pub limit: Duration,
}

impl Machine<'_> {
    /// The device on which the guest leaves its results.
    pub fn results(&self) -> String {
        format!("/dev/nvme0n{}", self.disks.len() + 1)
    }

    /// Runs the machine to its end; the directory of what was in the guest's `/out`.
    ///
    /// # Errors
    /// If the guest hangs, leaves nothing, or its script failed.
    pub fn run(&self, kit: &Kit, kernel: &Kernel, initramfs: &[u8]) -> Result<PathBuf, Failure> {
        match self.run_watched(kit, kernel, initramfs, &mut || Ok(Watch::GoOn))? {
            Ended::Done(out) => Ok(out),
            Ended::Unplugged => unreachable!("nobody pulls the plug"),
        }
    }

    /// Runs the machine, and asks `watch` many times a second.
    ///
    /// # Errors
    /// As [`Machine::run`], and if the watcher fails.
    pub fn run_watched(
        &self,
        kit: &Kit,
        kernel: &Kernel,
        initramfs: &[u8],
        watch: &mut dyn FnMut() -> Result<Watch, Failure>,
    ) -> Result<Ended, Failure> {
        let _ = fs::remove_dir_all(self.dir);
        let out = self.dir.join("out");
        fs::create_dir_all(&out).map_err(Failure::at(out.display()))?;
        let initrd = self.dir.join("initrd");
        fs::write(&initrd, initramfs).map_err(Failure::at(initrd.display()))?;
        let mut qemu = self.command(kit, kernel)?;
        let child = qemu.spawn().map_err(Failure::at("qemu"))?;
        let Some(ended) = self.wait(child, watch)? else { return Ok(Ended::Unplugged) };
        let results = self.dir.join(format!("disk{}", self.disks.len()));
        // Without an archive tar fails: the guest ended before it had results.
        output(Command::new("tar").arg("xf").arg(results).arg("-C").arg(&out))
            .map_err(|Failure(why)| Failure(format!("{ended}: {why}\n{}", self.console())))?;
        let status = fs::read_to_string(out.join("status")).unwrap_or_default();
        let why = match status.trim() {
            "0" => return Ok(Ended::Done(out)),
            "" => format!("the guest ended before its script; QEMU: {ended}"),
            other => format!("the guest's script ended with {other}"),
        };
        let printed = last_lines(&out.join("printed"), None);
        Err(Failure(format!("{why}\n{printed}\n{}", self.console())))
    }

    /// QEMU with all devices; makes the disks.
    fn command(&self, kit: &Kit, kernel: &Kernel) -> Result<Command, Failure> {
        let mut command = kit.qemu();
        command.current_dir(self.dir).args(["-machine", "q35", "-accel", "tcg,thread=multi"]);
        command.args(["-cpu", "max", "-smp", "2", "-m", &self.memory_mib.to_string()]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(["-serial", "file:console", "-initrd", "initrd", "-kernel"]);
        command.arg(&kernel.image);
        // On a busy machine emulated time stands still for longer than the kernel's check of
        // its timer allows. There it measures its TSC wrong, too, up to three times: a guest
        // that keeps time with others reads a slower clock, which needs no measuring.
        let clock = if self.network { "clocksource=hpet" } else { "tsc=reliable" };
        let append = format!("console=ttyS0 panic=-1 quiet {clock} no_timer_check");
        command.args(["-append", &append]);
        command
            .arg("-device")
            .arg(format!("nvme,id=nvme,serial=guest,max_ioqpairs={}", self.queues));
        for (index, disk) in self.disks.iter().enumerate() {
            self.attach(&mut command, index, disk.bytes, disk.log.as_deref())?;
        }
        self.attach(&mut command, self.disks.len(), RESULTS_BYTES, None)?;
        if self.network {
            command.args(["-netdev", "user,id=net"]);
            command.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        }
        Ok(command)
    }

    /// Makes a disk and adds it as the next namespace, with 4 KiB blocks. What the guest
    /// flushes is not flushed here: its logs tell what a cut would leave.
    fn attach(
        &self,
        command: &mut Command,
        index: usize,
        bytes: u64,
        log: Option<&str>,
    ) -> Result<(), Failure> {
        let path = self.dir.join(format!("disk{index}"));
        let made = File::create(&path).and_then(|file| file.set_len(bytes));
        made.map_err(Failure::at(path.display()))?;
        let file = |node: &str, name: &str| {
            format!("driver=file,node-name={node},filename={name},cache.no-flush=on")
        };
        let mut top = format!("d{index}");
        command.arg("-blockdev").arg(file(&top, &format!("disk{index}")));
        if let Some(log) = log {
            let path = self.dir.join(log);
            File::create(&path).map_err(Failure::at(path.display()))?;
            command.arg("-blockdev").arg(file(&format!("g{index}"), log));
            command.arg("-blockdev").arg(format!(
                "driver=blklogwrites,node-name=l{index},file={top},log=g{index},log-sector-size=512"
            ));
            top = format!("l{index}");
        }
        command.arg("-device").arg(format!(
            "nvme-ns,bus=nvme,drive={top},nsid={},logical_block_size=4096,physical_block_size=4096",
            index + 1
        ));
        Ok(())
    }

    /// QEMU's end; `None` if the watcher pulled the plug.
    fn wait(
        &self,
        mut qemu: Child,
        watch: &mut dyn FnMut() -> Result<Watch, Failure>,
    ) -> Result<Option<ExitStatus>, Failure> {
        let limit = Instant::now() + self.limit;
        loop {
            if let Some(status) = qemu.try_wait().map_err(Failure::at("qemu"))? {
                return Ok(Some(status));
            }
            let watched = watch();
            if let Ok(Watch::Freeze(length)) = watched {
                signal(&qemu, "STOP")?;
                thread::sleep(length);
                signal(&qemu, "CONT")?;
            }
            let goes_on = matches!(watched, Ok(Watch::GoOn | Watch::Freeze(_)));
            if goes_on && Instant::now() < limit {
                thread::sleep(STEP);
                continue;
            }
            let _ = qemu.kill().and_then(|()| qemu.wait());
            if watched? == Watch::PullThePlug {
                return Ok(None);
            }
            let why = format!("the guest hangs after {:?}\n{}", self.limit, self.console());
            return Err(Failure(why));
        }
    }

    /// The last lines of the guest's console: all of a panic, however deep its stack.
    fn console(&self) -> String {
        last_lines(&self.dir.join("console"), Some("Kernel panic"))
    }
}

/// Sends a signal to a process that has not been waited for.
pub fn signal(process: &Child, name: &str) -> Result<String, Failure> {
    // The shell's own: the program is in a package of its own.
    output(Command::new("sh").arg("-c").arg(format!("kill -{name} {}", process.id())))
}

/// The end of a text; the whole of what began with `landmark`.
fn last_lines(path: &Path, landmark: Option<&str>) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let mark = landmark.and_then(|mark| lines.iter().position(|line| line.contains(mark)));
    let last = lines.len().saturating_sub(PRINTED_LINES);
    lines[mark.unwrap_or(last).min(last)..].join("\n")
}
