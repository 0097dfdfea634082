//! `tessera bench`: how fast the engine is by itself, and how fast an NBD or NVMe/TCP server is.

mod cell;
mod device;
mod engine;
mod hop;
mod nbd;
mod nvmf;
mod report;
mod target;

use ::engine::target::load::{Mix, Order};
use clap::ValueEnum;

use super::Context;
use crate::admin::size::parse_size;
use crate::error::CommandError;

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// The engine in this process, without sockets: the cores, the table, the device
    Engine(engine::Args),
    /// A running NBD server, through its socket
    Nbd(nbd::Args),
    /// A running NVMe/TCP target, ours or any other
    Nvmf(nvmf::Args),
    /// A volume in memory for NVMe/TCP hosts, until SIGTERM: to measure without a disk
    Target(target::Args),
    /// How long a cache line takes from the first CPU to the second and back
    Cpus,
}

/// The order of the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pattern {
    /// Uniformly random
    Rand,
    /// One after the other
    Seq,
}

/// What is asked for, and for how long.
#[derive(Debug, clap::Args)]
struct Load {
    /// Bytes of a read or write: a power of two from 512 to 256KiB
    #[arg(long, value_parser = parse_block, default_value = "4KiB")]
    block_size: u32,
    /// Requests under way on each core or connection
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=512), default_value_t = 32)]
    depth: u16,
    /// Reads among the requests in per cent; the rest are writes
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100), default_value_t = 100)]
    read: u8,
    /// The order of the blocks
    #[arg(long, default_value = "rand")]
    pattern: Pattern,
    /// Flush after every so many writes; 0 for never
    #[arg(long, default_value_t = 0, value_name = "WRITES")]
    fsync: u32,
    /// Seconds measured
    #[arg(long, value_parser = parse_seconds, default_value = "5")]
    seconds: f64,
    /// Seconds before that without measuring
    #[arg(long, value_parser = parse_seconds, default_value = "1")]
    warm_up: f64,
    /// Of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Load {
    fn mix(&self) -> Mix {
        let order = match self.pattern {
            Pattern::Rand => Order::Random,
            Pattern::Seq => Order::Sequential,
        };
        Mix {
            block_bytes: self.block_size,
            read_percent: self.read,
            order,
            flush_every: self.fsync,
        }
    }
}

fn parse_block(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    let fits = bytes.is_power_of_two() && (512..=256 << 10).contains(&bytes);
    let bytes = u32::try_from(bytes).ok().filter(|_| fits);
    bytes.ok_or_else(|| "expected a power of two from 512 to 256KiB".to_owned())
}

fn parse_seconds(text: &str) -> Result<f64, &'static str> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds up to a day"),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a day, checked")]
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// Runs the command.
pub fn run(what: &What, context: &Context) -> Result<(), CommandError> {
    match what {
        What::Engine(args) if args.is_hop() => {
            let report = engine::hop(args)?;
            context.form.print(&report, hop::HopReport::table);
        }
        What::Engine(args) => {
            let report = engine::run(args)?;
            context.form.print(&report, report::BenchReport::table);
        }
        What::Nbd(args) => {
            let report = nbd::run(args)?;
            context.form.print(&report, report::BenchReport::table);
        }
        What::Nvmf(args) => {
            let report = nvmf::run(args)?;
            context.form.print(&report, report::BenchReport::table);
        }
        What::Target(args) => target::run(args)?,
        What::Cpus => {
            let report = hop::Distance { cache_line_round_trip_ns: hop::distance() };
            context.form.print(&report, hop::Distance::table);
        }
    }
    Ok(())
}

/// Why a measurement cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The server in this process cannot start or stop.
    #[error(transparent)]
    Serve(#[from] ::engine::server::ServeError),
    /// It refuses the volume.
    #[error("making the volume: {0}")]
    Volume(#[from] ::engine::admin::AdminError),
    /// A request of the engine failed.
    #[error("a request failed: {0}")]
    Request(#[from] ::engine::request::Failure),
    /// The core that ran a load is gone.
    #[error("a core ended while it was measured")]
    CoreGone,
    /// The file holds something.
    #[error("{}: exists and is not blank; --overwrite destroys what it holds", .0.display())]
    NotBlank(std::path::PathBuf),
    /// A path is needed, or not.
    #[error("--device uring needs --path FILE, and --device memory none")]
    Path,
    /// Regions are made of whole segments.
    #[error("the region must be at least 16MiB")]
    Region,
    /// A file or directory.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The device cannot be opened.
    #[error(transparent)]
    Open(#[from] ::engine::device::file::OpenError),
    /// The NBD server or the connection failed.
    #[error(transparent)]
    Nbd(#[from] ::engine::target::nbd::client::Error),
    /// The NVMe/TCP target or the connection failed.
    #[error(transparent)]
    Nvmf(#[from] nvme::tcp::initiator::Error),
    /// It failed a command.
    #[error("a command failed: {0}")]
    Command(String),
    /// It grants fewer I/O queues than asked for.
    #[error("the target grants {found} I/O queues, not {wanted}")]
    TooFewQueues {
        /// Asked for.
        wanted: u16,
        /// Granted.
        found: usize,
    },
    /// The size of requests does not fit.
    #[error(
        "--block-size must be a multiple of the namespace's {block_bytes} bytes and at most {most}"
    )]
    BlockSize {
        /// The namespace's.
        block_bytes: u32,
        /// The controller's limit.
        most: u64,
    },
    /// The export holds less than a block.
    #[error("the export is smaller than a block")]
    SmallExport,
    /// Signals cannot be taken over.
    #[error("taking over signals: {0}")]
    Signals(std::io::Error),
    /// A thread of ours is gone.
    #[error("a client thread ended early")]
    ThreadGone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_checked() {
        assert_eq!(parse_block("4KiB"), Ok(4096));
        assert!(parse_block("3KiB").is_err() && parse_block("512KiB").is_err());
        assert_eq!(parse_seconds("0.5").map(nanos), Ok(500_000_000));
        assert!(parse_seconds("-1").is_err() && parse_seconds("nan").is_err());
    }
}
