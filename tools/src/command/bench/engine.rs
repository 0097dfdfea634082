//! `tessera bench engine`: a pool of one device and its cores, loaded from inside.

use std::path::PathBuf;

use engine::admin::size::ByteSize;
use engine::admin::{Config, PrefetchKind};
use engine::server::embedded::Embedded;
use engine::units::SEGMENT_BYTES;

use super::cell::{Cell, Owner, create_volume, measure};
use super::device::{self, Kind};
use super::hop::{self, HopReport};
use super::report::BenchReport;
use super::{BenchError, Load};
use crate::admin::size::parse_size;

/// Options of `bench engine`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    load: Load,
    /// What the data lies on
    #[arg(long, default_value = "memory")]
    device: Kind,
    /// The file or block device; one that does not exist is made
    #[arg(long)]
    path: Option<PathBuf>,
    /// Destroy what the file or block device holds
    #[arg(long)]
    overwrite: bool,
    /// Bytes of the device if it is made [default: twice the region and 1GiB]
    #[arg(long, value_parser = parse_size)]
    size: Option<u64>,
    /// Bytes of the volume that are filled and then visited
    #[arg(long, value_parser = parse_size, default_value = "1GiB")]
    region: u64,
    /// Cores, each with a load
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=64), default_value_t = 1)]
    cores: u8,
    /// Overwrite everything once in random order before
    #[arg(long)]
    scatter: bool,
    /// Leave the bytes in the core's buffers: no copy to a client's memory
    #[arg(long)]
    no_copy: bool,
    /// Who prefetches
    #[arg(long, default_value = "none")]
    prefetch: PrefetchKind,
    /// Microseconds that a core polls without work before it sleeps [default: the server's]
    #[arg(long)]
    spin_us: Option<u32>,
    /// Bytes of each core's buffers [default: the server's]
    #[arg(long, value_parser = parse_size)]
    memory: Option<u64>,
    /// Measure instead what it costs that a request's owner is another core
    #[arg(long, conflicts_with_all = ["cores", "device", "path", "scatter", "spin_us"])]
    hop: bool,
}

impl Args {
    /// True for the measurement of [`hop`].
    pub(super) fn is_hop(&self) -> bool {
        self.hop
    }

    fn region_bytes(&self) -> Result<u64, BenchError> {
        let bytes = self.region / SEGMENT_BYTES * SEGMENT_BYTES;
        if bytes == 0 { Err(BenchError::Region) } else { Ok(bytes) }
    }

    fn config(&self, cores: u8, spin_us: Option<u32>) -> Config {
        let mut config = Config::with_devices(Vec::new());
        config.cores = Some(cores.into());
        config.prefetch = self.prefetch;
        config.nbd = Vec::new();
        config.spin_us = spin_us.unwrap_or(config.spin_us);
        if let Some(bytes) = self.memory {
            config.memory_per_core = ByteSize::new(bytes);
        }
        config
    }

    /// Starts an engine on a blank device and runs `body` on it.
    fn with_server<T>(
        &self,
        config: Config,
        body: impl FnOnce(&Embedded) -> Result<T, BenchError>,
    ) -> Result<T, BenchError> {
        if !predictor::init() {
            eprintln!("training will start threads beside the cores: set RAYON_NUM_THREADS=1");
        }
        // The pending logs lie beside the device, as a data directory's do.
        let beside = self.path.as_ref().and_then(|path| path.canonicalize().ok());
        let beside = beside.as_ref().and_then(|path| path.parent()).map(PathBuf::from);
        let at = beside.filter(|dir| !dir.starts_with("/dev")).unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::Builder::new().prefix("tessera-bench-").tempdir_in(&at);
        let dir = dir.map_err(|source| BenchError::File { path: at, source })?;
        let bytes = self.size.unwrap_or(2 * self.region_bytes()? + (1 << 30)) / 4096 * 4096;
        let device = device::open(self.device, self.path.as_deref(), bytes, self.overwrite)?;
        let server = Embedded::start(dir.path(), config, vec![device])?;
        let result = body(&server);
        server.stop()?;
        result
    }
}

/// Measures one cell.
pub(super) fn run(args: &Args) -> Result<BenchReport, BenchError> {
    let region_bytes = args.region_bytes()?;
    let cell = Cell {
        cores: args.cores,
        loaded: args.cores,
        owner: Owner::Any,
        region_bytes,
        scatter: args.scatter,
        copy: !args.no_copy,
    };
    let (tally, cost) = args.with_server(args.config(args.cores, args.spin_us), |server| {
        let volume = create_volume(server, region_bytes)?;
        measure(server, volume, &args.load, &cell)
    })?;
    let what = match (args.device, args.no_copy) {
        (Kind::Memory, false) => "engine on memory",
        (Kind::Memory, true) => "engine on memory, no copy to the client",
        (Kind::Uring, false) => "engine on io_uring",
        (Kind::Uring, true) => "engine on io_uring, no copy to the client",
    };
    let jobs = (args.cores.into(), region_bytes);
    Ok(BenchReport::new(what.to_owned(), &args.load, jobs, &tally, ("cores", cost)))
}

/// Measures a core that asks for its own segments and for another core's.
pub(super) fn hop(args: &Args) -> Result<HopReport, BenchError> {
    let region_bytes = args.region_bytes()?;
    let mean_ns = |spin_us: u32, owner: Owner| {
        let cell =
            Cell { cores: 2, loaded: 1, owner, region_bytes, scatter: false, copy: !args.no_copy };
        args.with_server(args.config(2, Some(spin_us)), |server| {
            let volume = create_volume(server, region_bytes)?;
            Ok(measure(server, volume, &args.load, &cell)?.0)
        })
    };
    hop::compare(mean_ns)
}
