//! The composer: from a client's request to the owner of its segment and back.
//!
//! Runs on the core that the client is connected to. It checks the request
//! against the volume, sends one part to the owner (or a flush to every core),
//! and completes the request when all of it has ended. No bytes pass through.

use super::Volumes;
use super::placement::{core_of, slice_of};
use crate::planted::{Bug, planted};
use crate::request::{Buf, Completion, Failure, Op, Request};
use crate::table::op::Part;
use crate::table::pool::Pool;
use crate::table::sink::{Done, Met};
use crate::units::{CoreId, DeviceId, SliceId, VolumeId, WINDOW_BYTES};

/// What one core says to another.
#[derive(Debug)]
pub enum Message {
    /// A part for a slice of the receiver.
    Part(SliceId, Part),
    /// Make completed changes of a volume durable; ends as a part does.
    Flush(VolumeId, u64),
    /// A part or flush has ended at its owner.
    Done(Done),
    /// A core has no fast slot for a new fragment and nothing to spill: empty a chunk for it.
    AskSpace(CoreId),
    /// The answer: a chunk of a device, claimed, or none.
    GiveSpace(Option<(DeviceId, u32)>),
    /// Flush a device whose flushes are the receiver's, for this core.
    AskFlush(DeviceId, CoreId),
    /// The answer.
    Flushed(DeviceId, Result<(), Failure>),
}

impl Message {
    /// It takes a place in the receiver's table, and may have to wait for one. The others must
    /// not wait behind it: they are what frees places.
    pub fn takes_slot(&self) -> bool {
        matches!(self, Message::Part(..) | Message::Flush(..))
    }
}

/// What the predictor says of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foresight {
    /// More of the fragment is expected to be read: stage all of it on a miss.
    pub whole: bool,
    /// Tell what the request has met: [`Outlet::met`].
    pub watched: bool,
}

/// A request that the predictor wants to hear of again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its volume.
    pub volume: VolumeId,
    /// Its first byte.
    pub offset: u64,
    /// Its bytes.
    pub length: u32,
    /// [`Foresight::whole`].
    pub whole: bool,
}

impl Watched {
    /// The fragments that it touches, where they have `1 << shift` bytes.
    pub fn fragments(&self, shift: u8) -> std::ops::RangeInclusive<u64> {
        let last = self.offset + u64::from(self.length.max(1)) - 1;
        self.offset >> shift..=last >> shift
    }
}

/// Where the composer's output goes.
pub trait Outlet {
    /// To a core, this one included.
    fn send(&mut self, to: CoreId, message: Message);
    /// To the target that made the request.
    fn complete(&mut self, completion: Completion);
    /// A watched request has met this; before its completion.
    fn met(&mut self, watched: Watched, met: Met);
}

#[derive(Debug)]
struct Pending {
    tag: u64,
    buf: Option<Buf>,
    remaining: u32,
    failure: Option<Failure>,
    watched: Option<Watched>,
    met: Met,
    /// Parity of the volumes' epoch in which it began.
    epoch: usize,
}

/// The composer of one core.
#[derive(Debug)]
pub struct Composer {
    core: CoreId,
    cores: u8,
    volumes: Volumes,
    pending: Pool<Pending>,
    /// Parity of the current list of volumes, and requests under way by parity.
    epoch: usize,
    live: [u32; 2],
    /// Under shutdown nothing new is taken.
    stopping: bool,
    /// Connections that have changed a volume since they last flushed it.
    #[cfg(feature = "planted")]
    written: Vec<(crate::units::ClientId, VolumeId)>,
}

const INDEX_BITS: u32 = 56;

impl Composer {
    /// A composer with room for `max_requests` at once.
    pub fn new(core: CoreId, cores: u8, max_requests: u32) -> Self {
        assert!(core.get() < cores);
        Self {
            core,
            cores,
            volumes: Volumes::default(),
            pending: Pool::new(max_requests),
            epoch: 0,
            live: [0; 2],
            stopping: false,
            #[cfg(feature = "planted")]
            written: Vec::new(),
        }
    }

    /// True for a flush by a connection that has written nothing since its last one.
    #[cfg(feature = "planted")]
    fn has_nothing_of(&mut self, client: crate::units::ClientId, volume: VolumeId, op: Op) -> bool {
        let before = self.written.len();
        match op {
            Op::Flush => self.written.retain(|entry| *entry != (client, volume)),
            Op::Read | Op::Status => {}
            _ => self.written.push((client, volume)),
        }
        op == Op::Flush && self.written.len() == before
    }

    /// The core that made a part or flush, from its origin.
    pub fn home(origin: u64) -> CoreId {
        CoreId::new(u8::try_from(origin >> INDEX_BITS).expect("eight bits"))
    }

    /// The volumes as this core knows them.
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// Replaces the volumes. Requests under way end as they began; see [`Composer::has_settled`].
    pub fn set_volumes(&mut self, volumes: Volumes) {
        self.volumes = volumes;
        self.epoch = 1 - self.epoch;
    }

    /// True once every request that began with the list of volumes before has ended.
    pub fn has_settled(&self) -> bool {
        self.live[1 - self.epoch] == 0 || planted(Bug::TrimWithoutDrain)
    }

    /// Refuses everything from now on.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// True if another request can be taken.
    pub fn can_submit(&self) -> bool {
        self.pending.free() > 0
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Takes a request.
    ///
    /// # Panics
    /// Unless [`Composer::can_submit`]; if the request crosses a window (a segment for status).
    pub fn submit(&mut self, request: Request, foresight: Foresight, out: &mut impl Outlet) {
        let Request { tag, volume, op, fua, offset, length, buf, .. } = request;
        #[cfg(feature = "planted")]
        let client = request.client;
        let fragment = match self.check(volume, op, offset.get(), length) {
            Ok(fragment) => fragment,
            Err(failure) => return out.complete(Completion { tag, buf, result: Err(failure) }),
        };
        let flush = op == Op::Flush;
        #[cfg(feature = "planted")]
        if planted(Bug::FlushOfOneConnection) && self.has_nothing_of(client, volume, op) {
            return out.complete(Completion { tag, buf, result: Ok(()) });
        }
        if !flush && length == 0 {
            return out.complete(Completion { tag, buf, result: Ok(()) });
        }
        let asked = if planted(Bug::FlushOfOneCore) { 1 } else { self.cores };
        let remaining = if flush { u32::from(asked) } else { 1 };
        let whole = foresight.whole;
        let watched = Watched { volume, offset: offset.get(), length, whole };
        let watched = foresight.watched.then_some(watched);
        let (failure, met, epoch) = (None, Met::Near, self.epoch);
        let pending = Pending { tag, buf: None, remaining, failure, watched, met, epoch };
        self.live[self.epoch] += 1;
        let index = self.pending.insert(pending).expect("can_submit was true");
        let origin = u64::from(self.core.get()) << INDEX_BITS | u64::from(index);
        if flush {
            for core in 0..asked {
                out.send(CoreId::new(core), Message::Flush(volume, origin));
            }
            return;
        }
        let window = if op == Op::Status { crate::units::SEGMENT_BYTES } else { WINDOW_BYTES };
        let last = offset.get() + u64::from(length) - 1;
        assert_eq!(offset.get() / window, last / window, "a request stays within a window");
        let slice = slice_of(volume, offset.get());
        let offset = offset.get();
        let (stage, hint) = (foresight.whole, None);
        let part = Part { origin, volume, op, fua, offset, length, fragment, stage, buf, hint };
        out.send(core_of(slice, self.cores), Message::Part(slice, part));
    }

    fn check(
        &self,
        volume: VolumeId,
        op: Op,
        offset: u64,
        length: u32,
    ) -> Result<crate::units::FragmentSize, Failure> {
        if self.stopping {
            return Err(Failure::Stopping);
        }
        let volume = self.volumes.get(volume).ok_or(Failure::OutOfRange)?;
        let end = offset.checked_add(length.into()).ok_or(Failure::OutOfRange)?;
        if end > volume.view.size_bytes {
            return Err(Failure::OutOfRange);
        }
        if volume.view.read_only && !matches!(op, Op::Read | Op::Status | Op::Flush) {
            return Err(Failure::ReadOnly);
        }
        Ok(volume.fragment)
    }

    /// A part or flush of this core has ended.
    pub fn done(&mut self, done: Done, out: &mut impl Outlet) {
        assert_eq!(Self::home(done.origin), self.core, "an answer that belongs to another core");
        let index = u32::try_from(done.origin & ((1 << INDEX_BITS) - 1)).expect("an index");
        let pending = self.pending.get_mut(index);
        pending.remaining -= 1;
        if done.buf.is_some() {
            pending.buf = done.buf;
        }
        if let Err(failure) = done.result {
            pending.failure.get_or_insert(failure);
        }
        pending.met = pending.met.max(done.met);
        if pending.remaining == 0 {
            let Pending { tag, buf, failure, watched, met, epoch, .. } = self.pending.remove(index);
            self.live[epoch] -= 1;
            if let Some(watched) = watched {
                out.met(watched, met);
            }
            out.complete(Completion { tag, buf, result: failure.map_or(Ok(()), Err) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::VolumeView;
    use crate::units::{ClientId, FragmentSize, SEGMENT_BYTES, VolumeOffset};
    use crate::volume::Volume;

    #[derive(Default)]
    struct Recorded {
        sent: Vec<(CoreId, Message)>,
        completed: Vec<Completion>,
        met: Vec<(Watched, Met)>,
    }

    impl Outlet for Recorded {
        fn send(&mut self, to: CoreId, message: Message) {
            self.sent.push((to, message));
        }
        fn complete(&mut self, completion: Completion) {
            self.completed.push(completion);
        }
        fn met(&mut self, watched: Watched, met: Met) {
            self.met.push((watched, met));
        }
    }

    fn volumes(size_bytes: u64, read_only: bool) -> Volumes {
        let (id, name) = (VolumeId::new(1), "v".to_owned());
        let view = VolumeView { id, name, size_bytes, block_bytes: 512, read_only };
        Volumes::new(vec![Volume { view, uuid: [0; 16], fragment: FragmentSize::DEFAULT }])
    }

    fn composer() -> Composer {
        let mut composer = Composer::new(CoreId::new(1), 3, 4);
        composer.set_volumes(volumes(4 * SEGMENT_BYTES, false));
        composer
    }

    fn done(origin: u64, met: Met, result: Result<(), Failure>) -> Done {
        Done { origin, met, buf: None, result }
    }

    fn request(op: Op, offset: u64, length: u32) -> Request {
        let (client, volume) = (ClientId::new(0), VolumeId::new(1));
        let offset = VolumeOffset::new(offset);
        Request { tag: 9, client, volume, op, fua: false, offset, length, buf: None }
    }

    #[test]
    fn a_request_goes_to_the_owner_of_its_segment_and_comes_back() {
        let (mut composer, mut out) = (composer(), Recorded::default());
        let offset = 2 * SEGMENT_BYTES + 512;
        let foresight = Foresight { whole: true, watched: true };
        composer.submit(request(Op::Discard, offset, 4096), foresight, &mut out);
        let (to, Message::Part(slice, part)) = out.sent.pop().expect("sent") else {
            panic!("a part")
        };
        assert_eq!(slice, slice_of(VolumeId::new(1), offset));
        assert_eq!(to, core_of(slice, 3));
        assert!(part.stage && part.offset == offset && part.length == 4096);
        assert_eq!(Composer::home(part.origin), CoreId::new(1));
        composer.done(done(part.origin, Met::Staged, Ok(())), &mut out);
        let watched = Watched { volume: VolumeId::new(1), offset, length: 4096, whole: true };
        assert_eq!(out.met, [(watched, Met::Staged)]);
        assert_eq!((out.completed[0].tag, out.completed[0].result), (9, Ok(())));
        assert_eq!(composer.in_flight(), 0);
    }

    #[test]
    fn a_flush_asks_every_core_and_fails_if_one_does() {
        let (mut composer, mut out) = (composer(), Recorded::default());
        composer.submit(request(Op::Flush, 0, 0), Foresight::default(), &mut out);
        let cores: Vec<_> = out.sent.iter().map(|(to, _)| to.get()).collect();
        assert_eq!(cores, [0, 1, 2]);
        for (to, message) in std::mem::take(&mut out.sent) {
            let Message::Flush(_, origin) = message else { panic!("a flush") };
            assert!(out.completed.is_empty());
            let result = if to.get() == 1 { Err(Failure::Device) } else { Ok(()) };
            composer.done(done(origin, Met::Near, result), &mut out);
        }
        assert_eq!(out.completed[0].result, Err(Failure::Device));
    }

    #[test]
    fn what_a_volume_does_not_allow_fails_at_once() {
        let (mut composer, mut out) = (composer(), Recorded::default());
        composer.submit(
            request(Op::Discard, 4 * SEGMENT_BYTES - 512, 1024),
            Foresight::default(),
            &mut out,
        );
        composer.set_volumes(volumes(SEGMENT_BYTES, true));
        composer.submit(request(Op::Discard, 0, 512), Foresight::default(), &mut out);
        composer.submit(request(Op::Discard, 0, 0), Foresight::default(), &mut out);
        composer.stop();
        composer.submit(request(Op::Flush, 0, 0), Foresight::default(), &mut out);
        let results: Vec<_> = out.completed.iter().map(|end| end.result).collect();
        let expected =
            [Failure::OutOfRange, Failure::ReadOnly, Failure::ReadOnly, Failure::Stopping];
        assert_eq!(results, expected.map(Err));
        assert!(out.sent.is_empty());
    }

    #[test]
    fn volumes_settle_when_the_requests_before_have_ended() {
        let (mut composer, mut out) = (composer(), Recorded::default());
        composer.submit(request(Op::Discard, 0, 512), Foresight::default(), &mut out);
        composer.set_volumes(volumes(SEGMENT_BYTES, false));
        composer.submit(request(Op::Discard, 0, 512), Foresight::default(), &mut out);
        assert!(!composer.has_settled());
        let Message::Part(_, part) = &out.sent[0].1 else { panic!("a part") };
        let origin = part.origin;
        composer.done(done(origin, Met::Near, Ok(())), &mut out);
        assert!(out.met.is_empty(), "nobody watches");
        assert!(composer.has_settled() && composer.in_flight() == 1);
    }
}
