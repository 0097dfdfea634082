//! A server of one core that turns only when it is told to.
//!
//! For counting what a request takes: everything but the control side happens on
//! the calling thread, and nothing while nobody calls. No executor, no sleep.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{Receiver, channel};

use super::ServeError;
use super::admin;
use super::command::{Command, CoreStats};
use super::control::{self, Launched};
use super::core_loop::CoreLoop;
use super::open::{self, OpenDevice};
use super::start::Kit;
use crate::admin::config::Config;
use crate::admin::protocol::{AdminError, AdminRequest, AdminResponse};
use crate::core::clock;
use crate::core::reactor::Poll;
use crate::request::Failure;
use crate::target::load::{Job, Load, News, Tally};
use crate::units::CoreId;

/// A server whose one core turns on the calling thread.
pub struct ByHand {
    core: CoreLoop,
    launched: Launched<Vec<Kit>>,
    news: Option<Receiver<News>>,
}

impl ByHand {
    /// Opens the pool on `devices` as [`super::embedded::Embedded::start`] does. Staged
    /// fragments are not promoted, so that reads of them stay reads of stages.
    pub fn start(
        data_dir: &Path,
        config: Config,
        devices: Vec<OpenDevice>,
    ) -> Result<ByHand, ServeError> {
        let opened = open::open_on(data_dir, devices)?;
        let config = Config { cores: Some(1), ..config };
        let mut launched = control::launch(data_dir, config, opened, Ok)?;
        let kit = launched.cores.pop().expect("one core").without_promotion();
        let (core, _) = kit.build()?;
        Ok(ByHand { core, launched, news: None })
    }

    /// Carries out an admin request, except `stop`, while the core turns.
    pub fn ask(&mut self, request: AdminRequest) -> Result<AdminResponse, AdminError> {
        let server = Arc::clone(&self.launched.server);
        let answer = std::thread::spawn(move || admin::handle(&server, request, &mut |_| ()));
        while !answer.is_finished() {
            self.turn();
        }
        answer.join().expect("an admin request does not panic")
    }

    /// Hands a load to the core. It begins with the next turn.
    pub fn begin(&mut self, job: Job) {
        let (sender, receiver) = channel();
        let load = Load::new(job, Arc::new(AtomicU32::new(0)), 1, sender);
        self.launched.server.send(CoreId::new(0), Command::Load(Box::new(load)));
        self.news = Some(receiver);
    }

    /// Turns the core until the load has ended.
    ///
    /// # Panics
    /// If none was begun.
    pub fn finish(&mut self) -> Result<Tally, Failure> {
        let news = self.news.take().expect("a load was begun");
        loop {
            self.turn();
            match news.try_recv() {
                Ok(News::Ended(tally)) => return Ok(*tally),
                Ok(News::Failed(failure)) => return Err(failure),
                Ok(News::Begun) | Err(_) => {}
            }
        }
    }

    /// The core's counters.
    pub fn stats(&mut self) -> CoreStats {
        let (sender, receiver) = channel();
        self.launched.server.send(CoreId::new(0), Command::Stats(sender));
        loop {
            self.turn();
            if let Ok(stats) = receiver.try_recv() {
                return stats;
            }
        }
    }

    /// Sends the core a command. It is taken with the next turn.
    pub fn send(&self, command: Command) {
        self.launched.server.send(CoreId::new(0), command);
    }

    /// Pages of the core's arena that nobody has.
    #[cfg(test)]
    pub fn free_pages(&self) -> u32 {
        self.core.free_pages()
    }

    /// Turns the core once.
    pub fn turn(&mut self) {
        self.core.poll(clock::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::protocol::PrefetchKind;
    use crate::device::Store;
    use crate::format::superblock::Role;
    use crate::server::embedded::Embedded;
    use crate::stage::load::QUIET_NS;
    use crate::target::load::{Mix, Order, Span};
    use crate::units::{SEGMENT_BYTES, VolumeId};
    use crate::volume::placement::slice_of;

    fn job(volume: VolumeId, fill: bool, read_percent: u8, requests: u64) -> Job {
        Job {
            volume,
            mix: Mix { block_bytes: 4096, read_percent, order: Order::Random, flush_every: 8 },
            extents: vec![0],
            extent_bytes: SEGMENT_BYTES,
            depth: 4,
            fill,
            scatter: fill,
            copy: true,
            warm_up: Span::Requests(0),
            measure: Span::Requests(requests),
            seed: 1,
        }
    }

    fn create(core: &mut ByHand) -> VolumeId {
        let (name, size_bytes) = ("v".to_owned(), SEGMENT_BYTES);
        let (fragment_size, block_bytes, read_only) = (None, None, false);
        let create =
            AdminRequest::VolumeCreate { name, size_bytes, fragment_size, block_bytes, read_only };
        let Ok(AdminResponse::Volume(volume)) = core.ask(create) else { panic!("a volume") };
        VolumeId::new(volume.id)
    }

    /// A server of two devices in memory, and a volume on it.
    fn server(prefetch: PrefetchKind) -> (tempfile::TempDir, ByHand, VolumeId) {
        let dir = tempfile::tempdir().expect("a directory");
        let device = |role| OpenDevice {
            store: Arc::new(Store::memory(512 << 20).expect("memory")),
            path: "memory".into(),
            role,
        };
        let mut config = Config::with_devices(Vec::new());
        config.prefetch = prefetch;
        let devices = vec![device(Role::Fast), device(Role::Cold)];
        let mut core = ByHand::start(dir.path(), config, devices).expect("a pool");
        let volume = create(&mut core);
        (dir, core, volume)
    }

    fn spill(core: &mut ByHand) {
        core.ask(AdminRequest::VolumeSpill { name: "v".to_owned() }).expect("spilled");
    }

    #[test]
    fn stages_are_read_at_once_unless_demand_has_come_lately() {
        let (_dir, mut core, volume) = server(PrefetchKind::None);
        core.begin(job(volume, true, 50, 8));
        core.finish().expect("no failure");
        spill(&mut core);
        // Times of its own from here on, so that no machine is too slow for them.
        let demanded = clock::now().after(2 * QUIET_NS);
        let one = Mix { order: Order::Sequential, ..job(volume, false, 100, 0).mix };
        core.begin(Job { mix: one, depth: 1, ..job(volume, false, 100, 1) });
        let cold_reads = |core: &mut ByHand, now| {
            let before = core.core.device_stats(1).reads;
            for _ in 0..100 {
                core.core.poll(now);
            }
            core.core.device_stats(1).reads - before
        };
        let stage = |core: &mut ByHand, mebibyte: u64, now| {
            core.core.foresee(slice_of(volume, mebibyte << 20), volume, mebibyte << 8);
            cold_reads(core, now)
        };
        assert_eq!(cold_reads(&mut core, demanded), 1, "blocks of a client");
        assert_eq!(stage(&mut core, 8, demanded.after(QUIET_NS)), 4);
        assert_eq!(stage(&mut core, 9, demanded.after(QUIET_NS + 1)), 1);
        assert_eq!(stage(&mut core, 9, demanded.after(QUIET_NS + 1)), 0, "it is there");
    }

    /// The copies of the metadata are on two devices.
    #[test]
    fn a_map_is_read_once_a_device_that_failed_answers_again() {
        const DEVICE_BYTES: u64 = 512 << 20;
        let dir = tempfile::tempdir().expect("a directory");
        let paths = ["one", "other"].map(|name| dir.path().join(name));
        for path in &paths {
            Store::create(path, DEVICE_BYTES).expect("made");
        }
        let start = || {
            let device = |path: &std::path::PathBuf| OpenDevice {
                store: Arc::new(Store::open(path, 0).expect("opens")),
                path: path.clone(),
                role: Role::Fast,
            };
            (dir.path(), Config::with_devices(Vec::new()), paths.iter().map(device).collect())
        };
        let by_hand = |(dir, config, devices)| ByHand::start(dir, config, devices).expect("a pool");
        let mut core = by_hand(start());
        let volume = create(&mut core);
        core.begin(job(volume, true, 50, 8));
        core.finish().expect("no failure");
        drop(core);
        let (data_dir, config, devices) = start();
        Embedded::start(data_dir, config, devices).and_then(Embedded::stop).expect("checkpoints");

        let mut core = by_hand(start());
        let kept = paths.each_ref().map(|path| path.with_extension("kept"));
        for (path, kept) in paths.iter().zip(&kept) {
            std::fs::copy(path, kept).expect("kept");
        }
        let mut read = || {
            core.begin(job(volume, false, 100, 100));
            core.finish().map(|tally| tally.reads)
        };
        let cut = |path: &Path, then: u64| {
            let file = std::fs::File::options().write(true).open(path).expect("opens");
            file.set_len(1 << 20).and_then(|()| file.set_len(then)).expect("cut");
        };
        paths.iter().for_each(|path| cut(path, DEVICE_BYTES));
        assert_eq!(read(), Err(Failure::Media), "zeros in both copies");
        for path in &paths {
            cut(path, 1 << 20);
            assert_eq!(read(), Err(Failure::Device), "zeros in one");
            cut(path, DEVICE_BYTES);
        }
        for (path, kept) in paths.iter().zip(&kept) {
            std::fs::copy(kept, path).expect("as it was");
        }
        assert_eq!(read(), Ok(100));
    }

    #[test]
    fn requests_are_counted_exactly_and_stages_are_read() {
        let (_dir, mut core, volume) = server(PrefetchKind::Readahead);
        core.begin(job(volume, true, 50, 1000));
        let tally = core.finish().expect("no failure");
        assert_eq!(tally.requests() + tally.flushes, 1000);
        assert_eq!(tally.latency_ns.len(), tally.requests());
        let written = core.stats().counters.write_bytes;
        assert_eq!(written, 2 * SEGMENT_BYTES + tally.writes * 4096, "filled, scattered, loaded");
        spill(&mut core);
        let in_order = Mix { order: Order::Sequential, ..job(volume, false, 100, 0).mix };
        core.begin(Job { mix: in_order, depth: 1, ..job(volume, false, 100, 4096) });
        core.finish().expect("no failure");
        let before = core.stats().counters;
        core.begin(job(volume, false, 100, 1000));
        assert_eq!(core.finish().expect("no failure").reads, 1000);
        let after = core.stats().counters;
        // The first reads of a fragment that was not staged ahead wait for its stage.
        let hits = after.hits - before.hits;
        assert!(hits >= 900 && after.promotions == 0, "{before:?} {after:?}");
    }
}
