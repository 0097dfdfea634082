//! `tessera bench target`: a volume in memory for NVMe/TCP hosts, until it is told to end.
//!
//! What it serves is gone with it: the path of a server, with its table and checksums, without
//! a disk's share in the figures.

use std::net::SocketAddr;
use std::time::Duration;

use engine::admin::{AdminRequest, Config};
use engine::server::embedded::Embedded;
use nvme::Nqn;

use super::BenchError;
use super::device::{self, Kind};
use super::nvmf::parse_address;
use crate::admin::size::parse_size;
use crate::interrupt::Interrupt;

/// Options of `bench target`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where hosts connect: tcp:HOST:PORT
    #[arg(value_parser = parse_address)]
    address: SocketAddr,
    /// The subsystem; any host may connect
    #[arg(long, value_name = "NQN")]
    nqn: Nqn,
    /// Bytes of the volume, which is namespace 1
    #[arg(long, value_parser = parse_size, default_value = "1GiB")]
    size: u64,
    /// Cores
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=64), default_value_t = 1)]
    cores: u8,
    /// Microseconds that a core polls without work before it sleeps [default: the server's]
    #[arg(long)]
    spin_us: Option<u32>,
}

/// What the volume is called.
const VOLUME: &str = "bench";
/// Between two looks at whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Serves until SIGTERM or SIGINT.
pub(super) fn run(args: &Args) -> Result<(), BenchError> {
    if !predictor::init() {
        eprintln!("training will start threads beside the cores: set RAYON_NUM_THREADS=1");
    }
    let interrupt = Interrupt::install().map_err(BenchError::Signals)?;
    let at = std::env::temp_dir();
    let dir = tempfile::Builder::new().prefix("tessera-bench-").tempdir_in(&at);
    let dir = dir.map_err(|source| BenchError::File { path: at, source })?;
    // Blocks are never overwritten in place, and journals need room.
    let device = device::open(Kind::Memory, None, 2 * args.size + (1 << 30), false)?;
    let mut config = Config::with_devices(Vec::new());
    config.cores = Some(args.cores.into());
    config.nbd = Vec::new();
    config.prefetch = engine::admin::PrefetchKind::None;
    config.spin_us = args.spin_us.unwrap_or(config.spin_us);
    // The address is the caller's choice, and the volume is empty.
    config.insecure_listen = true;
    let mut server = Embedded::start(dir.path(), config, vec![device])?;
    let result = export(&mut server, args);
    if result.is_ok() {
        eprintln!("serving {} at {}", args.nqn, args.address);
        while !interrupt.is_set() {
            std::thread::sleep(LOOK);
        }
    }
    server.stop()?;
    result
}

fn export(server: &mut Embedded, args: &Args) -> Result<(), BenchError> {
    server.start_nvmf()?;
    server.ask(AdminRequest::VolumeCreate {
        name: VOLUME.to_owned(),
        size_bytes: args.size,
        fragment_size: None,
        block_bytes: None,
        read_only: false,
    })?;
    server.ask(AdminRequest::NvmfSubsystemAdd {
        nqn: args.nqn.to_string(),
        volumes: vec![VOLUME.to_owned()],
        hosts: None,
        read_only: false,
        serial: None,
    })?;
    // Last: whoever reaches it finds the subsystem.
    server.ask(AdminRequest::NvmfListen { address: args.address })?;
    Ok(())
}
