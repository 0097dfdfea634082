//! What the control side asks of a core, and what it gets back.

use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender};

use predictor::online::{Reason, Tally};
use predictor::prefetch::{PrefetchKind, Settings};
use predictor::rank::{Model, Owner, Saved};
use predictor::{Access, deep};

use crate::core::meter::Meter;
use crate::request::Failure;
use crate::stage::load::Staging;
use crate::table::Counters;
use crate::table::op::Part;
use crate::target::load::Load;
use crate::target::nvmf::{AssociationId, Namespaces, NewQueue};
use crate::target::socket::Socket;
use crate::tier::heat::{HeatCounts, HeatForecast};
use crate::units::{ClientId, CoreId, SliceId, VolumeId};
use crate::volume::Volumes;
use crate::volume::composer::Message;

use super::recorder::TraceTap;

/// A prediction to be carried out: who made it, if another core, and for which block.
pub type Forecast = (Option<CoreId>, SliceId, VolumeId, u64);

/// Everything that arrives in a core's mailbox.
pub enum CoreMessage {
    /// From the composer or a table of a core.
    Data(Message),
    /// A prediction of another core; answered with `Predicted`.
    Predict(CoreId, SliceId, VolumeId, u64),
    /// What became of it: the volume and block, and the owner's answer.
    Predicted(VolumeId, u64, Staging),
    /// From the control side.
    Command(Box<Command>),
}

/// How a control operation on a core ended.
pub type Outcome = Result<(), Failure>;

/// From the control side to one core.
pub enum Command {
    /// The volumes from now on. Answered so that a shrink or deletion knows when nobody
    /// can begin a request beyond the end any more and all that began before have ended.
    Volumes(Volumes, Sender<Outcome>),
    /// A client of the NBD target.
    Connection(Socket),
    /// An I/O queue of the NVMe/TCP target.
    NvmfQueue(Box<NewQueue>),
    /// Hang up on the I/O queues of an association; each tells its end.
    NvmfDrop(AssociationId),
    /// What the I/O queues of an association may reach from now on.
    NvmfNamespaces(AssociationId, Arc<Namespaces>),
    /// Make everything durable.
    Flush(Sender<Outcome>),
    /// A part for a slice of this core.
    Part(SliceId, Part, Sender<Outcome>),
    /// Drop the fragments of a volume from a segment on.
    DropRange(VolumeId, u32, Sender<Outcome>),
    /// Move a volume to the cold tier; answered when nothing is left to move.
    Cool(VolumeId, Sender<Outcome>),
    /// Who prefetches, and how.
    Prefetch(PrefetchKind, Settings),
    /// Bytes that stages may take on this core.
    StageBudget(u64),
    /// A model for the ranker's tower, and whether it is trained.
    Tower(Arc<deep::Model>, bool),
    /// Models of an earlier run, or of all cores.
    Remember(Arc<Saved>),
    /// What a model of this core has learned, by its number.
    Learned(usize, Sender<Option<(Owner, Model)>>),
    /// Why the last stages were made; of one volume, if given.
    Explain(Option<VolumeId>, Sender<Vec<Reason>>),
    /// Requests of a client to learn from.
    Study(ClientId, Vec<Access>, Sender<()>),
    /// Copy all requests here, or to nobody.
    Tap(Option<Arc<TraceTap>>),
    /// Load a volume from this core, instead of any load before.
    Load(Box<Load>),
    /// The requests counted per segment, in a buffer that comes with the question and has
    /// none; the core goes on with that buffer if they are taken, else fills it with a copy.
    Heat {
        /// Without counts.
        into: HeatCounts,
        /// Begin at none.
        taken: bool,
        /// Has room for one answer.
        reply: SyncSender<HeatCounts>,
    },
    /// What is expected of each segment, or nothing.
    Forecast(Option<Arc<HeatForecast>>),
    /// A snapshot of this core's counters.
    Stats(Sender<CoreStats>),
    /// Take no new work, finish what is under way, flush, checkpoint, end.
    Stop,
}

/// Counters of a device on one core.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeviceStats {
    /// Operations.
    pub reads: u64,
    /// Operations.
    pub writes: u64,
    /// Bytes.
    pub read_bytes: u64,
    /// Bytes.
    pub write_bytes: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Bytes in slots in use.
    pub used_bytes: u64,
}

/// What one core reports.
#[derive(Clone, Debug, Default)]
pub struct CoreStats {
    /// The table's counters.
    pub counters: Counters,
    /// By device.
    pub devices: Vec<DeviceStats>,
    /// Client flushes.
    pub flushes: u64,
    /// Client requests that failed.
    pub errors: u64,
    /// Bytes in stages now.
    pub staged_bytes: u64,
    /// Slices of the fragment table.
    pub slices: u32,
    /// Fragments in them.
    pub fragments: u64,
    /// By volume: fragments, bytes on the fast tier, bytes on the cold tier.
    pub volumes: Vec<(VolumeId, u64, u64, u64)>,
    /// The volume of each client connection; those that negotiate have none.
    pub connections: Vec<Option<VolumeId>>,
    /// What the learned predictor has done, if it is at work.
    pub prediction: Option<Tally>,
    /// What its thread has cost.
    pub meter: Meter,
    /// CPU it is pinned to.
    pub cpu: Option<usize>,
}
