//! `tessera demo`: the whole system at work, in a directory that is removed.
//!
//! A server of its own (a child process, ended by its id whatever happens)
//! with a cold device that behaves like a hard disk; a volume, filled and
//! spilled; real recorded I/O replayed once to learn from, then its
//! continuation without prefetching, with readahead and with the model, each
//! time from a cold start. All replays are judged on the same requests, which
//! none of them has seen.

mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::replay::{inspect, measure, set_prefetch};
use super::tier::spill;
use super::{Context, attach, volume};
use crate::admin::config::{DeviceConfig, Emulate};
use crate::admin::size::ByteSize;
use crate::admin::{AdminRequest, Config, PrefetchKind, Role};
use crate::block::{BlockClient, BlockOp};
use crate::error::CommandError;
use crate::interrupt::Interrupt;
use crate::progress::{byte_bar, count_bar};
use crate::replay::Options;
use crate::replay::report::{ReplayReport, comparison};
use server::Server;

/// The recorded I/O that ships with the sources; see the README beside it.
const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/trace.csv.zst");
const VOLUME: &str = "demo";
const VOLUME_BYTES: u64 = 512 << 20;
const FAST_BYTES: u64 = 1 << 30;
const COLD_BYTES: u64 = 2 << 30;
/// Small against the volume, so that staging has to choose.
const STAGE_BYTES: u64 = 32 << 20;
/// Limits of one replay: four of them and the rest end within three minutes.
const MAX_TIME: Duration = Duration::from_secs(20);
/// Share of the trace to learn from, in percent.
const LEARN_PERCENT: u64 = 60;

/// Options of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Replay another trace
    #[arg(long, value_name = "FILE", default_value = TRACE, hide_default_value = true)]
    trace: PathBuf,
    /// Where the temporary data directory is made [default: the system's]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args, outer: &Context) -> Result<(), CommandError> {
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let interrupt = Interrupt::install().map_err(CommandError::file(&parent))?;
    let (records, _) = inspect(&args.trace)?;
    let dir = tempfile::Builder::new()
        .prefix("tessera-demo-")
        .tempdir_in(&parent)
        .map_err(CommandError::file(&parent))?;
    let context = Context { data_dir: dir.path().to_path_buf(), form: outer.form };
    configure(&context.data_dir)?;
    say("starting a server with an emulated hard disk as its cold device");
    let server = Server::start(&context, &interrupt)?;
    let reports = prepare(&context, &interrupt)
        .and_then(|()| compare(&args.trace, records, &context, &interrupt));
    server.stop(&context);
    let reports = reports?;
    drop(dir);
    outer.form.print(&reports, |reports| {
        format!(
            "{}\nThe cold device was emulated: one head, 8 ms seek, 150 MB/s.\n\n{ATTACH}",
            comparison(reports)
        )
    });
    Ok(())
}

const ATTACH: &str = "\
To attach your own tools, start a server and make a volume:
  tessera serve &
  tessera volume create vm1 --size 8GiB
then, with U='nbd+unix:///vm1?socket=./tessera-data/nbd.sock':
  nbdinfo \"$U\"
  nbdcopy disk.img \"$U\"
  TESSERA_NBD_URI=\"$U\" fio fio-profiles/randread.fio
  qemu-system-x86_64 … -drive file=nbd:unix:./tessera-data/nbd.sock:exportname=vm1,format=raw,if=virtio
  tessera status";

fn say(line: &str) {
    eprintln!("demo: {line}");
}

fn configure(dir: &Path) -> Result<(), CommandError> {
    let device = |path: &str, role, bytes, emulate| DeviceConfig {
        path: PathBuf::from(path),
        role,
        size: Some(ByteSize::new(bytes)),
        emulate,
    };
    let mut config = Config::with_devices(vec![
        device("fast.img", Role::Fast, FAST_BYTES, None),
        device("cold.img", Role::Cold, COLD_BYTES, Some(Emulate::Hdd)),
    ]);
    config.stage_budget = ByteSize::new(STAGE_BYTES);
    let path = dir.join(crate::admin::config::CONFIG_NAME);
    std::fs::write(&path, config.to_toml()).map_err(CommandError::file(path))
}

/// A volume full of data that is not zero.
fn prepare(context: &Context, interrupt: &Interrupt) -> Result<(), CommandError> {
    let mut admin = context.admin()?;
    let create = AdminRequest::VolumeCreate {
        name: VOLUME.to_owned(),
        size_bytes: VOLUME_BYTES,
        fragment_size: None,
        block_bytes: None,
        read_only: false,
    };
    volume(&mut admin, &create)?;
    let mut client = attach(&mut admin, VOLUME)?;
    let failed = |source| CommandError::Block { volume: VOLUME.to_owned(), source };
    let data: Vec<u8> = (0..1_u32 << 20).map(|i| (i % 251) as u8 | 1).collect();
    let bar = byte_bar("fill", VOLUME_BYTES);
    let (mut sent, mut completed, mut done) = (0, 0, Vec::new());
    let chunks = VOLUME_BYTES / data.len() as u64;
    while completed < chunks {
        while sent < chunks && sent - completed < 8 {
            let offset = sent * data.len() as u64;
            client.send(sent, BlockOp::Write { offset, data: &data }).map_err(failed)?;
            sent += 1;
        }
        client.poll(Duration::from_millis(200), &mut done).map_err(failed)?;
        for reply in done.drain(..) {
            reply.result.map_err(failed)?;
            completed += 1;
        }
        bar.set_position(completed * data.len() as u64);
        if interrupt.is_set() {
            return Err(CommandError::Interrupted);
        }
    }
    bar.finish_and_clear();
    admin.call(&AdminRequest::Flush)?;
    Ok(())
}

/// Learns from the first part of the trace, then replays the rest three times.
fn compare(
    trace: &Path,
    records: u64,
    context: &Context,
    interrupt: &Interrupt,
) -> Result<Vec<ReplayReport>, CommandError> {
    let learn = records * LEARN_PERCENT / 100;
    let skip = usize::try_from(learn).unwrap_or(usize::MAX);
    let part = |max_requests| Options {
        depth: 1,
        speed: None,
        slow_read: Duration::from_millis(4),
        max_requests: Some(max_requests),
        max_time: Some(MAX_TIME),
    };
    let (learning, mut judging) = (part(learn), part(records - learn));
    let replay = |what: &str, kind, skip, options: &Options| {
        spill(context, VOLUME)?;
        set_prefetch(&mut context.admin()?, kind)?;
        let mut client = attach(&mut context.admin()?, VOLUME)?;
        let bar = count_bar(what, options.max_requests.unwrap_or(0));
        let observe = |sent| bar.set_position(sent);
        let report = measure(context, &mut client, trace, kind, skip, options, interrupt, observe)?;
        bar.finish_and_clear();
        Ok::<_, CommandError>(report)
    };
    say("replaying the first part of the trace, for the model to learn from");
    replay("learn", PrefetchKind::Learned, 0, &learning)?;
    let mut reports = Vec::new();
    for kind in [PrefetchKind::None, PrefetchKind::Readahead, PrefetchKind::Learned] {
        say(&format!("replaying the rest from a cold start, prefetch {kind}"));
        let report = replay(&kind.to_string(), kind, skip, &judging)?;
        // The first may have been ended by its time; the others replay as much as it did.
        judging.max_requests = Some(report.read.count + report.write.count + report.failed);
        reports.push(report);
    }
    Ok(reports)
}
