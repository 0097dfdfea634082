//! Two NVMe/TCP targets, each on one core; SPDK's polls, so that it is stopped while it is
//! not its turn.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::cases::{Case, Ground, Load};
use super::contenders::{Lab, MEMORY_MIB, SPDK_MIB, WARM_UP};
use super::contest::Run;
use super::figures;
use super::process::{Running, run};

/// The subsystem of both.
const NQN: &str = "nqn.2026-11.example:compare";
/// Bytes in huge pages that SPDK's host needs.
const PERF_MIB: u64 = 256;

/// The two targets.
pub struct Targets {
    ours: Running,
    peer: Running,
    at: [SocketAddr; 2],
    // The server's directory goes with it.
    _dir: tempfile::TempDir,
}

/// What the cases of this ground lack here.
pub fn missing(lab: &Lab, huge_mib: u64) -> Option<String> {
    let Some(spdk) = &lab.spdk else {
        return Some("SPDK's build directory is not given (--spdk DIR)".to_owned());
    };
    let programs = ["nvmf_tgt", "spdk_nvme_perf"].map(|name| program(spdk, name));
    if let Some(absent) = programs.iter().find(|path| !path.is_file()) {
        return Some(format!("no {}", absent.display()));
    }
    let needed = SPDK_MIB + MEMORY_MIB + PERF_MIB;
    (huge_mib < needed).then(|| format!("SPDK needs {needed} MiB of huge pages (vm.nr_hugepages)"))
}

fn program(spdk: &Path, name: &str) -> PathBuf {
    spdk.join("bin").join(name)
}

/// An address of loopback that nobody listens at.
fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("127.0.0.1: {e}"))?;
    listener.local_addr().map_err(|e| format!("127.0.0.1: {e}"))
}

fn mask(cpu: Option<usize>) -> String {
    format!("{:#x}", 1u128 << cpu.unwrap_or(0))
}

impl Targets {
    /// Starts both; `filled`: ours has written its volume and SPDK's is a malloc device, else
    /// both have nothing to read.
    pub fn start(lab: &Lab, filled: bool) -> Result<Targets, String> {
        let dir = tempfile::Builder::new().prefix("tessera-compare-").tempdir_in(&lab.dir);
        let dir = dir.map_err(|e| format!("{}: {e}", lab.dir.display()))?;
        let at = [free_address()?, free_address()?];
        let ours = start_ours(lab, at[0], filled)?;
        let peer = start_peer(lab, at[1], filled)?;
        peer.let_run(false)?;
        Ok(Targets { ours, peer, at, _dir: dir })
    }

    /// Lets one side run once.
    pub fn turn(&self, lab: &Lab, case: &Case, ours: bool, raw: &Path) -> Result<Run, String> {
        let (target, other) =
            if ours { (&self.ours, &self.peer) } else { (&self.peer, &self.ours) };
        other.let_run(false)?;
        target.let_run(true)?;
        let address = self.at[usize::from(!ours)];
        let with_perf = case.ground == Ground::NvmfMemory;
        let command = if with_perf { perf(lab, case, address)? } else { bench(lab, case, address) };
        let ended = run(command, raw, &[target.pid()], lab.limit())?;
        let (iops, p99_us) = if with_perf {
            (figures::of_spdk(&ended.output)?, figures::p99_of_perf(&ended.output))
        } else {
            (figures::of_tessera(&ended.output)?, figures::p99_of_tessera(&ended.output))
        };
        Ok(Run { iops, waited_percent: ended.waited_percent, p99_us })
    }
}

/// Our target on memory; `filled`: every block of the volume was written.
fn start_ours(lab: &Lab, at: SocketAddr, filled: bool) -> Result<Running, String> {
    // Its one core takes the first CPU by itself.
    let mut command = lab.program(None, &lab.tessera);
    command
        .args(["bench", "target", "--nqn", NQN, "--size", &format!("{MEMORY_MIB}MiB")])
        .arg(format!("tcp:{at}"));
    let target = serve(command, &lab.dir.join("tessera-target.log"), at)?;
    if filled {
        let mut fill = lab.program(lab.cpus.0, &lab.tessera);
        fill.args(["bench", "nvmf", "--nqn", NQN, "--fill", "--seconds", "0", "--warm-up", "0"])
            .arg(format!("tcp:{at}"));
        run(fill, &lab.results.join("tessera-target-fill.txt"), &[], lab.limit())?;
    }
    Ok(target)
}

/// SPDK's target, on a malloc device or a null device.
fn start_peer(lab: &Lab, at: SocketAddr, filled: bool) -> Result<Running, String> {
    let spdk = lab.spdk.as_ref().ok_or("no SPDK")?;
    let config = lab.dir.join("nvmf_tgt.json");
    let method = if filled { "bdev_malloc_create" } else { "bdev_null_create" };
    let blocks = MEMORY_MIB << 8;
    let address = json!({
        "trtype": "TCP", "adrfam": "IPv4", "traddr": at.ip().to_string(),
        "trsvcid": at.port().to_string(),
    });
    let text = json!({"subsystems": [
        {"subsystem": "bdev", "config": [
            {"method": method,
             "params": {"name": "B0", "num_blocks": blocks, "block_size": 4096}},
        ]},
        {"subsystem": "nvmf", "config": [
            {"method": "nvmf_create_transport", "params": {"trtype": "TCP"}},
            {"method": "nvmf_create_subsystem",
             "params": {"nqn": NQN, "allow_any_host": true, "serial_number": "C1"}},
            {"method": "nvmf_subsystem_add_ns",
             "params": {"nqn": NQN, "namespace": {"nsid": 1, "bdev_name": "B0"}}},
            {"method": "nvmf_subsystem_add_listener",
             "params": {"nqn": NQN, "listen_address": address}},
        ]},
    ]});
    fs::write(&config, text.to_string()).map_err(|e| format!("{}: {e}", config.display()))?;
    let mut command = lab.program(None, program(spdk, "nvmf_tgt"));
    command
        .args(["-m", &mask(lab.cpus.1), "-s", &(SPDK_MIB + MEMORY_MIB).to_string()])
        // Two runs at once would share the default socket for control.
        .args(["-c", "nvmf_tgt.json", "-r", "nvmf_tgt.sock"]);
    serve(command, &lab.dir.join("nvmf_tgt.log"), at)
}

fn serve(command: Command, log: &Path, at: SocketAddr) -> Result<Running, String> {
    Running::serve_until(command, log, &at.to_string(), || TcpStream::connect(at).is_ok())
}

/// SPDK's host. It deals its depth out to its connections.
fn perf(lab: &Lab, case: &Case, at: SocketAddr) -> Result<Command, String> {
    let spdk = lab.spdk.as_ref().ok_or("no SPDK")?;
    let Load { read_percent, random, block_kib, depth, connections, .. } = case.load;
    let how = match (random, read_percent) {
        (true, 100) => "randread",
        (true, 0) => "randwrite",
        (true, _) => "randrw",
        (false, 100) => "read",
        (false, 0) => "write",
        (false, _) => "rw",
    };
    let mut command = lab.program(None, program(spdk, "spdk_nvme_perf"));
    command
        .args(["-c", &mask(lab.cpus.0), "-s", &PERF_MIB.to_string(), "-L", "-w", how])
        .args(["-q", &(depth * connections).to_string(), "-P", &connections.to_string()])
        .args(["-o", &(block_kib << 10).to_string(), "-t", &lab.seconds.to_string()])
        .args(["-a", &WARM_UP.to_string(), "-r"])
        .arg(format!(
            "trtype:TCP adrfam:IPv4 traddr:{} trsvcid:{} subnqn:{NQN}",
            at.ip(),
            at.port()
        ));
    if !matches!(read_percent, 0 | 100) {
        command.args(["-M", &read_percent.to_string()]);
    }
    Ok(command)
}

/// Our host, which does not look at what it reads.
fn bench(lab: &Lab, case: &Case, at: SocketAddr) -> Command {
    let Load { read_percent, random, block_kib, depth, connections, .. } = case.load;
    let mut command = lab.program(lab.cpus.0, &lab.tessera);
    command
        .args(["--json", "bench", "nvmf", "--discard-reads", "--nqn", NQN])
        .args(["--read", &read_percent.to_string()])
        .args(["--pattern", if random { "rand" } else { "seq" }])
        .args(["--block-size", &format!("{block_kib}KiB"), "--depth", &depth.to_string()])
        .args(["--connections", &connections.to_string()])
        .args(["--seconds", &lab.seconds.to_string(), "--warm-up", &WARM_UP.to_string()])
        .arg(format!("tcp:{at}"));
    command
}
