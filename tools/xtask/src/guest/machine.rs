//! One run of QEMU: a machine with NVMe disks that boots an initramfs.
//!
//! All disks are namespaces of one controller, in order. The last is added
//! here: the guest's results.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use super::{Failure, Kit, output};

const RESULTS_BYTES: u64 = 512 << 20;
const PRINTED_LINES: usize = 40;

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
    pub fn run(&self, kit: &Kit, initramfs: &[u8]) -> Result<PathBuf, Failure> {
        let _ = fs::remove_dir_all(self.dir);
        let out = self.dir.join("out");
        fs::create_dir_all(&out).map_err(Failure::at(out.display()))?;
        let initrd = self.dir.join("initrd");
        fs::write(&initrd, initramfs).map_err(Failure::at(initrd.display()))?;
        let mut command = kit.qemu();
        command.current_dir(self.dir).args(["-machine", "q35", "-accel", "tcg,thread=multi"]);
        command.args(["-cpu", "max", "-smp", "2", "-m", &self.memory_mib.to_string()]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(["-serial", "file:console", "-initrd", "initrd", "-kernel"]).arg(&kit.kernel);
        // On a busy machine emulated time stands still for longer than the kernel's check of
        // its timer allows.
        let append = "console=ttyS0 panic=-1 quiet tsc=reliable no_timer_check";
        command.args(["-append", append]);
        command
            .arg("-device")
            .arg(format!("nvme,id=nvme,serial=guest,max_ioqpairs={}", self.queues));
        for (index, disk) in self.disks.iter().enumerate() {
            self.attach(&mut command, index, disk.bytes, disk.log.as_deref())?;
        }
        self.attach(&mut command, self.disks.len(), RESULTS_BYTES, None)?;
        let ended = self.wait(command.spawn().map_err(Failure::at("qemu"))?)?;
        let results = self.dir.join(format!("disk{}", self.disks.len()));
        // Without an archive tar fails: the guest ended before it had results.
        output(Command::new("tar").arg("xf").arg(results).arg("-C").arg(&out))
            .map_err(|Failure(why)| Failure(format!("{ended}: {why}\n{}", self.console())))?;
        let status = fs::read_to_string(out.join("status")).unwrap_or_default();
        if status.trim() != "0" {
            let printed = fs::read_to_string(out.join("printed")).unwrap_or_default();
            let why = format!("the guest's script ended with {}\n{printed}", status.trim());
            return Err(Failure(why + &self.console()));
        }
        Ok(out)
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

    fn wait(&self, mut qemu: Child) -> Result<ExitStatus, Failure> {
        let limit = Instant::now() + self.limit;
        loop {
            if let Some(status) = qemu.try_wait().map_err(Failure::at("qemu"))? {
                return Ok(status);
            }
            if Instant::now() > limit {
                let _ = qemu.kill().and_then(|()| qemu.wait());
                let why = format!("the guest hangs after {:?}\n{}", self.limit, self.console());
                return Err(Failure(why));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The last lines of the guest's console.
    fn console(&self) -> String {
        let bytes = fs::read(self.dir.join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(PRINTED_LINES)..].join("\n")
    }
}
