//! A whole core on devices in memory, turned by hand.

use std::sync::Arc;

use engine::admin::{AdminRequest, AdminResponse, Config, PrefetchKind, Role};
use engine::device::Store;
use engine::server::by_hand::ByHand;
use engine::server::open::OpenDevice;
use engine::target::load::{Job, Mix, Order, Span, Tally};
use engine::units::{SEGMENT_BYTES, VolumeId};

/// Bytes of each device.
const DEVICE_BYTES: u64 = 512 << 20;
/// Requests under way.
const DEPTH: u16 = 32;

/// Where the volume's blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// On the fast device.
    Fast,
    /// On the cold device, and copies of all of them in memory.
    Staged,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Random reads of 4 KiB.
    Read,
    /// Random writes of 4 KiB.
    Write,
}

/// A core with one volume of a segment.
pub struct Core {
    pub(crate) core: ByHand,
    pub(crate) volume: VolumeId,
    /// Pending logs and the lock; removed with the core.
    _dir: tempfile::TempDir,
}

impl Core {
    /// A core whose volume is filled.
    ///
    /// # Panics
    /// If the machine refuses memory, files or io_uring.
    pub fn new(tier: Tier) -> Core {
        let dir = tempfile::tempdir().expect("a directory");
        let device = |role| OpenDevice {
            store: Arc::new(Store::memory(DEVICE_BYTES).expect("memory")),
            path: "memory".into(),
            role,
        };
        let mut config = Config::with_devices(Vec::new());
        config.prefetch =
            if tier == Tier::Staged { PrefetchKind::Readahead } else { PrefetchKind::None };
        let devices = vec![device(Role::Fast), device(Role::Cold)];
        let mut core = ByHand::start(dir.path(), config, devices).expect("a pool");
        let create = AdminRequest::VolumeCreate {
            name: "v".to_owned(),
            size_bytes: SEGMENT_BYTES,
            fragment_size: None,
            block_bytes: None,
            read_only: false,
        };
        let Ok(AdminResponse::Volume(volume)) = core.ask(create) else {
            panic!("the volume was not made")
        };
        let mut this = Core { core, volume: VolumeId::new(volume.id), _dir: dir };
        this.core.begin(Job { fill: true, ..this.job(Work::Write, 0) });
        this.finish();
        if tier == Tier::Staged {
            this.stage();
        }
        this
    }

    /// Moves everything to the cold device, and reads it in order, so that it is staged.
    fn stage(&mut self) {
        self.core.ask(AdminRequest::VolumeSpill { name: "v".to_owned() }).expect("it spills");
        let mut job = self.job(Work::Read, SEGMENT_BYTES / 4096);
        job.mix.order = Order::Sequential;
        job.depth = 1;
        self.core.begin(job);
        self.finish();
    }

    fn job(&self, work: Work, requests: u64) -> Job {
        let read_percent = if work == Work::Read { 100 } else { 0 };
        Job {
            volume: self.volume,
            mix: Mix { block_bytes: 4096, read_percent, order: Order::Random, flush_every: 0 },
            extents: vec![0],
            extent_bytes: SEGMENT_BYTES,
            depth: DEPTH,
            fill: false,
            scatter: false,
            copy: true,
            warm_up: Span::Requests(0),
            measure: Span::Requests(requests),
            seed: 1,
        }
    }

    /// Hands out work; it begins with [`Core::finish`].
    pub fn begin(&mut self, work: Work, requests: u64) -> &mut Core {
        self.core.begin(self.job(work, requests));
        self
    }

    /// Turns the core until the work is done.
    ///
    /// # Panics
    /// If a request fails.
    pub fn finish(&mut self) -> Tally {
        self.core.finish().expect("no request fails")
    }

    /// Reads that a stage has served so far.
    pub fn hits(&mut self) -> u64 {
        self.core.stats().counters.hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tier_serves_what_it_is_there_for() {
        // The first reads of a fragment that was not staged ahead wait for its stage.
        for (tier, from_stages) in [(Tier::Fast, 0..=0), (Tier::Staged, 450..=500)] {
            let mut core = Core::new(tier);
            let before = core.hits();
            assert_eq!(core.begin(Work::Read, 500).finish().reads, 500);
            let hits = core.hits() - before;
            assert!(from_stages.contains(&hits), "{hits}");
        }
        assert_eq!(Core::new(Tier::Fast).begin(Work::Write, 500).finish().writes, 500);
    }
}
