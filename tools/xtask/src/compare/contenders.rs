//! One turn of one side.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cases::{Case, Ground, Load};
use super::contest::Run;
use super::nvmf::Targets;
use super::process::{Ended, on_cpu, run};
use super::servers::Servers;
use super::{figures, machine};
use crate::packages::installed;

/// Seconds that each side runs before it is measured.
pub(super) const WARM_UP: u64 = 1;
/// Bytes that a bdevperf of malloc devices needs in huge pages, beside the device.
pub(super) const SPDK_MIB: u64 = 256;
/// Region of cases in memory: more than any cache, less than the huge pages usually set aside.
pub(super) const MEMORY_MIB: u64 = 256;

/// What all turns share.
pub struct Lab {
    /// The command under test.
    pub tessera: PathBuf,
    /// Where files under test are, and contenders run: what they print names files from here.
    pub dir: PathBuf,
    /// Where raw output goes.
    pub results: PathBuf,
    /// SPDK's.
    pub bdevperf: Option<PathBuf>,
    /// Where SPDK's target and host are.
    pub spdk: Option<PathBuf>,
    /// Seconds measured in each turn.
    pub seconds: u64,
    /// MiB that are visited.
    pub region_mib: u64,
    /// For contenders in one process and clients, and for servers.
    pub cpus: (Option<usize>, Option<usize>),
}

/// What one case needs beside the lab.
pub enum Arena {
    /// A file that both sides use in turn.
    File(PathBuf),
    /// Nothing.
    Memory,
    /// Two servers.
    Servers(Servers),
    /// Two NVMe/TCP targets.
    Targets(Targets),
}

fn mib_free_in_huge_pages() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = info.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    2 * free.and_then(|pages| pages.trim().parse::<u64>().ok()).unwrap_or(0)
}

impl Lab {
    /// A lab whose contenders and clients have the last CPU, and whose servers the first.
    pub fn new(
        tessera: PathBuf,
        dir: PathBuf,
        results: PathBuf,
        (bdevperf, spdk): (Option<PathBuf>, Option<PathBuf>),
    ) -> Self {
        let cpus = machine::cpus();
        let cpus = (cpus.last().copied(), cpus.first().copied());
        Self { tessera, dir, results, bdevperf, spdk, seconds: 3, region_mib: 1024, cpus }
    }

    /// What a case lacks here.
    pub fn missing(&self, case: &Case) -> Option<String> {
        let program = |name: &str| (!installed(name)).then(|| format!("{name} is not installed"));
        match case.ground {
            Ground::File { .. } => program("fio"),
            Ground::Memory { .. } => match &self.bdevperf {
                None => Some("SPDK's bdevperf is not given (--bdevperf PATH)".to_owned()),
                Some(path) if !path.is_file() => Some(format!("no {}", path.display())),
                Some(_) if mib_free_in_huge_pages() < SPDK_MIB + MEMORY_MIB => Some(format!(
                    "bdevperf needs {} MiB of huge pages (vm.nr_hugepages)",
                    SPDK_MIB + MEMORY_MIB
                )),
                Some(_) => None,
            },
            Ground::NbdFile | Ground::NbdMemory => {
                program("fio").or_else(|| program("qemu-storage-daemon"))
            }
            Ground::NvmfMemory | Ground::NvmfNull => {
                super::nvmf::missing(self, mib_free_in_huge_pages())
            }
        }
    }

    /// Files and servers of a case.
    pub fn prepare(&self, case: &Case) -> Result<Arena, String> {
        match case.ground {
            Ground::Memory { .. } => Ok(Arena::Memory),
            Ground::File { .. } => {
                let name = PathBuf::from("file");
                written_file(&self.dir.join(&name), 3 * self.region_mib + 1024)?;
                Ok(Arena::File(name))
            }
            Ground::NbdFile => Servers::start(self, Path::new(""), true).map(Arena::Servers),
            Ground::NbdMemory => {
                Servers::start(self, Path::new("/dev/shm"), false).map(Arena::Servers)
            }
            Ground::NvmfMemory => Targets::start(self, true).map(Arena::Targets),
            Ground::NvmfNull => Targets::start(self, false).map(Arena::Targets),
        }
    }

    /// Lets one side run once.
    pub fn turn(
        &self,
        arena: &mut Arena,
        case: &Case,
        ours: bool,
        round: usize,
    ) -> Result<Run, String> {
        let side = if ours { "ours" } else { "peer" };
        let raw = self.results.join(format!("{}-{round}-{side}.txt", case.name));
        if let Arena::Targets(targets) = arena {
            return targets.turn(self, case, ours, &raw);
        }
        let (ended, iops) = match (arena, case.ground) {
            (Arena::File(path), Ground::File { scattered }) if ours => {
                let ended = self.engine(case, Some(path), scattered, true, &raw)?;
                let iops = figures::of_tessera(&ended.output)?;
                (ended, iops)
            }
            (Arena::File(path), _) => {
                let ended = self.fio_on_file(case, path, &raw)?;
                let iops = figures::of_fio(&ended.output)?;
                (ended, iops)
            }
            (Arena::Servers(servers), _) => {
                let ended = self.fio_on_server(case, servers, ours, &raw)?;
                let iops = figures::of_fio(&ended.output)?;
                (ended, iops)
            }
            (Arena::Memory, Ground::Memory { copy }) if ours => {
                let ended = self.engine(case, None, false, copy, &raw)?;
                let iops = figures::of_tessera(&ended.output)?;
                (ended, iops)
            }
            (Arena::Targets(_), _) => return Err("they have turns of their own".to_owned()),
            (Arena::Memory, _) => {
                let ended = self.bdevperf(case, &raw)?;
                let iops = figures::of_spdk(&ended.output)?;
                (ended, iops)
            }
        };
        Ok(Run { iops, waited_percent: ended.waited_percent, p99_us: None })
    }

    /// A program bound to a CPU that runs where the files under test are.
    pub fn program(&self, cpu: Option<usize>, program: impl Into<PathBuf>) -> Command {
        let mut command = on_cpu(cpu, program);
        command.current_dir(&self.dir);
        command
    }

    pub(super) fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds + 120)
    }

    fn engine(
        &self,
        case: &Case,
        path: Option<&Path>,
        scattered: bool,
        copy: bool,
        raw: &Path,
    ) -> Result<Ended, String> {
        let Load { read_percent, random, block_kib, depth, fsync, .. } = case.load;
        let region_mib = if path.is_some() { self.region_mib } else { MEMORY_MIB };
        let mut command = self.program(self.cpus.0, &self.tessera);
        command
            .args(["--json", "bench", "engine", "--read", &read_percent.to_string()])
            .args(["--pattern", if random { "rand" } else { "seq" }])
            .args(["--block-size", &format!("{block_kib}KiB"), "--depth", &depth.to_string()])
            .args(["--fsync", &fsync.to_string(), "--region", &format!("{region_mib}MiB")])
            .args(["--seconds", &self.seconds.to_string(), "--warm-up", &WARM_UP.to_string()]);
        if let Some(path) = path {
            command.args(["--device", "uring", "--overwrite", "--path"]).arg(path);
        }
        if scattered {
            command.arg("--scatter");
        }
        if !copy {
            command.arg("--no-copy");
        }
        run(command, raw, &[], self.limit())
    }

    fn fio(&self, case: &Case, cpu: Option<usize>) -> Command {
        let Load { read_percent, random, block_kib, depth, fsync, .. } = case.load;
        let how = match (random, read_percent) {
            (true, 100) => "randread",
            (true, 0) => "randwrite",
            (false, 100) => "read",
            (false, 0) => "write",
            (true, _) => "randrw",
            (false, _) => "rw",
        };
        let mut command = self.program(cpu, "fio");
        command
            .args(["--name=case", "--thread", "--output-format=json", "--time_based"])
            .args(["--norandommap", "--randrepeat=0", "--group_reporting"])
            .arg(format!("--rw={how}"))
            .arg(format!("--rwmixread={read_percent}"))
            .arg(format!("--bs={block_kib}k"))
            .arg(format!("--iodepth={depth}"))
            .arg(format!("--size={}m", self.region_mib))
            .arg(format!("--runtime={}", self.seconds))
            .arg(format!("--ramp_time={WARM_UP}"));
        if fsync > 0 {
            command.arg(format!("--fdatasync={fsync}"));
        }
        command
    }

    fn fio_on_file(&self, case: &Case, path: &Path, raw: &Path) -> Result<Ended, String> {
        let mut command = self.fio(case, self.cpus.0);
        command
            .args(["--ioengine=io_uring", "--direct=1", "--fixedbufs=1", "--registerfiles=1"])
            .arg(format!("--filename={}", path.display()));
        run(command, raw, &[], self.limit())
    }

    fn fio_on_server(
        &self,
        case: &Case,
        servers: &Servers,
        ours: bool,
        raw: &Path,
    ) -> Result<Ended, String> {
        let mut command = self.fio(case, self.cpus.0);
        command.arg("--ioengine=nbd").arg(format!("--uri={}", servers.uri(ours)));
        run(command, raw, &[servers.pid(ours)], self.limit())
    }

    fn bdevperf(&self, case: &Case, raw: &Path) -> Result<Ended, String> {
        let program = self.bdevperf.as_ref().ok_or("no bdevperf")?;
        let config = self.results.join("bdevperf.json");
        let blocks = MEMORY_MIB << 8;
        let device = serde_json::json!({"subsystems": [{"subsystem": "bdev", "config": [{
            "method": "bdev_malloc_create",
            "params": {"name": "Malloc0", "num_blocks": blocks, "block_size": 4096},
        }]}]});
        fs::write(&config, device.to_string()).map_err(|e| format!("{}: {e}", config.display()))?;
        let mut command = Command::new(program);
        command
            .args(["-w", "randread", "-o", "4096", "-q", &case.load.depth.to_string()])
            .args(["-t", &(self.seconds + WARM_UP).to_string()])
            .args(["-m", &format!("{:#x}", 1u128 << self.cpus.0.unwrap_or(0))])
            .args(["-s", &(SPDK_MIB + MEMORY_MIB).to_string(), "-c"])
            .arg(&config);
        run(command, raw, &[], self.limit())
    }
}

/// Makes a file of this size whose blocks are allocated and written, unless it is there.
pub fn written_file(path: &Path, mib: u64) -> Result<(), String> {
    use std::io::Write;
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if fs::metadata(path).is_ok_and(|meta| meta.len() == mib << 20) {
        return Ok(());
    }
    let mut file = fs::File::create(path).map_err(failed)?;
    // Not zeros, which a file system or what lies below may treat as holes.
    let bytes: Vec<u8> = (0..1u32 << 20).map(|i| (i % 251) as u8 + 1).collect();
    for _ in 0..mib {
        file.write_all(&bytes).map_err(failed)?;
    }
    file.sync_all().map_err(failed)
}
