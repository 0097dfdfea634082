//! From responses, data and R2Ts to bytes.
//!
//! The headers of all that waits lie in one ring of bytes, each followed by the digest of its
//! data, so that what has no payload in between leaves as one slice. Payload leaves from the
//! buffer that it is in.
//!
//! Invariants: nothing grows (the consumer bounds what it queues by its slots); an entry's
//! buffer is its own until it was sent.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use nvme::CompletionEntry;
use nvme::tcp::digest::DIGEST_BYTES;
use nvme::tcp::pdu::{CapsuleResp, Data, IcResp, MAX_TERM_REQ_BYTES, R2t, TermReq, flags, kind};
use nvme::tcp::{Digests, Fatal, crc32c};
use smallvec::SmallVec;
use zerocopy::{Immutable, IntoBytes};

use super::Memory;

/// Slices handed to one `writev`.
const SLICES: usize = 256;
/// Bytes of an ordinary entry's header with both digests.
const ENTRY_BYTES: usize = 24 + 2 * DIGEST_BYTES;
/// Room for one Terminate Connection Request, one ICResp, and what is lost where the ring
/// turns.
const EXTRA_BYTES: usize = 3 * MAX_TERM_REQ_BYTES as usize;

/// Payload: `length` bytes of a buffer from `at`.
#[derive(Debug)]
pub struct Body<B> {
    /// The buffer.
    pub buf: B,
    /// First byte.
    pub at: usize,
    /// Bytes.
    pub length: usize,
}

/// What was sent.
#[derive(Debug)]
pub struct Sent<B> {
    /// The consumer's own name for it.
    pub token: u32,
    /// The buffer that its payload was in.
    pub buf: Option<B>,
}

#[derive(Debug)]
struct Entry<B> {
    /// Where its header lies in the ring.
    start: usize,
    /// Bytes of the header and its digest.
    head: usize,
    /// Bytes of the digest of the payload, behind them.
    tail: usize,
    /// Bytes of the ring that become free with it.
    span: usize,
    body: Option<Body<B>>,
    token: u32,
}

impl<B> Entry<B> {
    fn length(&self) -> usize {
        self.head + self.tail + self.body.as_ref().map_or(0, |body| body.length)
    }
}

/// The sending half of a connection.
#[derive(Debug)]
pub struct Sender<B> {
    entries: VecDeque<Entry<B>>,
    capacity: usize,
    ring: Box<[u8]>,
    write: usize,
    used: usize,
    /// Bytes that are gone of the first entries.
    gone: usize,
    /// Bytes that are not.
    waiting: usize,
    digests: Digests,
    /// Bytes that were ever sent.
    total: u64,
}

impl<B> Sender<B> {
    /// A sender with room for `capacity` entries.
    pub fn new(capacity: usize, digests: Digests) -> Self {
        let ring = vec![0; capacity * ENTRY_BYTES + EXTRA_BYTES].into_boxed_slice();
        Sender {
            entries: VecDeque::with_capacity(capacity),
            capacity,
            ring,
            write: 0,
            used: 0,
            gone: 0,
            waiting: 0,
            digests,
            total: 0,
        }
    }

    /// Digests of all that is queued from now on.
    pub fn begin(&mut self, digests: Digests) {
        self.digests = digests;
    }

    /// There is something to send.
    pub fn has_output(&self) -> bool {
        self.waiting > 0
    }

    /// The first entry is partly sent: nothing else may be sent before the rest of it.
    pub fn is_inside_pdu(&self) -> bool {
        self.gone > 0
    }

    /// Entries that there is room for.
    pub fn room(&self) -> usize {
        self.capacity - self.entries.len()
    }

    /// Bytes that were ever sent.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Queues an ICResp; it never has digests.
    pub fn initialize(&mut self, resp: &IcResp, token: u32) {
        let place = self.write_head(resp.as_bytes(), false, None);
        self.push(place, 0, None, token);
    }

    /// Queues a C2HTermReq about a PDU with this header; it never has digests.
    pub fn terminate(&mut self, fatal: Fatal, offender: &[u8], token: u32) {
        let mut bytes = SmallVec::<[u8; MAX_TERM_REQ_BYTES as usize]>::new();
        let req = TermReq::new(kind::C2H_TERM_REQ, fatal.fes, fatal.fei, offender.len());
        bytes.extend_from_slice(req.as_bytes());
        bytes.extend_from_slice(offender);
        let place = self.write_head(&bytes, false, None);
        self.push(place, 0, None, token);
    }

    /// Queues a response.
    #[inline]
    pub fn respond(&mut self, entry: CompletionEntry, token: u32) {
        self.plain(&CapsuleResp::new(entry, self.digests.header), token);
    }

    /// Queues an R2T for `length` bytes at `offset` of the data of command `cid`.
    pub fn ask(&mut self, cid: u16, ttag: u16, offset: u32, length: u32, token: u32) {
        self.plain(&R2t::new(cid, ttag, offset, length, self.digests.header), token);
    }

    /// Queues a C2HData: `body` at `offset` of the data of command `cid`; `data_flags` are
    /// [`flags::LAST`] and [`flags::SUCCESS`].
    #[inline]
    pub fn data<M: Memory<Buf = B>>(
        &mut self,
        cid: u16,
        offset: u32,
        data_flags: u8,
        body: Body<B>,
        token: u32,
        memory: &M,
    ) {
        let length = u32::try_from(body.length).expect("a piece of a transfer");
        let Digests { header, data } = self.digests;
        let mut pdu = Data::new(kind::C2H_DATA, cid, 0, offset, length, false);
        pdu = pdu.with_digests(header, data);
        pdu.common.flags |= data_flags & (flags::LAST | flags::SUCCESS);
        let payload = || crc32c(&memory.bytes(&body.buf)[body.at..][..body.length]);
        let place = self.write_head(pdu.as_bytes(), header, data.then(payload));
        self.push(place, if data { DIGEST_BYTES } else { 0 }, Some(body), token);
    }

    #[inline]
    fn plain<T: IntoBytes + Immutable>(&mut self, pdu: &T, token: u32) {
        let place = self.write_head(pdu.as_bytes(), self.digests.header, None);
        self.push(place, 0, None, token);
    }

    /// Puts a header with its digest, and the digest of its payload, into the ring: where they
    /// begin, and the bytes of the ring that they take.
    #[inline]
    fn write_head(&mut self, header: &[u8], digest: bool, payload: Option<u32>) -> (usize, usize) {
        let mut span = 0;
        if self.write + header.len() + 2 * DIGEST_BYTES > self.ring.len() {
            span = self.ring.len() - self.write;
            self.write = 0;
        }
        let start = self.write;
        let mut put = |bytes: &[u8]| {
            self.ring[self.write..][..bytes.len()].copy_from_slice(bytes);
            self.write += bytes.len();
        };
        put(header);
        if digest {
            put(&crc32c(header).to_le_bytes());
        }
        if let Some(payload) = payload {
            put(&payload.to_le_bytes());
        }
        span += self.write - start;
        self.used += span;
        assert!(self.used <= self.ring.len(), "the ring holds what the slots can produce");
        (start, span)
    }

    #[inline]
    fn push(
        &mut self,
        (start, span): (usize, usize),
        tail: usize,
        body: Option<Body<B>>,
        token: u32,
    ) {
        assert!(self.entries.len() < self.capacity, "a queue holds all that its slots can produce");
        let head = self.write - start - tail;
        let entry = Entry { start, head, tail, span, body, token };
        self.waiting += entry.length();
        self.entries.push_back(entry);
    }

    /// The front of the queue, as far as one send reaches.
    pub fn slices<'a, M: Memory<Buf = B>>(
        &'a self,
        memory: &'a M,
    ) -> SmallVec<[IoSlice<'a>; SLICES]> {
        let mut slices = SmallVec::new();
        let mut skip = self.gone;
        let mut left = |length: usize| {
            let gone = skip.min(length);
            skip -= gone;
            gone..length
        };
        // Bytes of the ring that are in no slice yet.
        let mut run = 0..0;
        for entry in &self.entries {
            if slices.len() + 3 > SLICES {
                break;
            }
            self.extend(&mut run, entry.start, left(entry.head), &mut slices);
            let Some(body) = &entry.body else { continue };
            let rest = left(body.length);
            if !rest.is_empty() {
                self.cut(&mut run, &mut slices);
                slices.push(IoSlice::new(&memory.bytes(&body.buf)[body.at..][rest]));
            }
            self.extend(&mut run, entry.start + entry.head, left(entry.tail), &mut slices);
        }
        self.cut(&mut run, &mut slices);
        slices
    }

    /// Lengthens the run by a part of the ring, or begins another.
    #[inline]
    fn extend<'a>(
        &'a self,
        run: &mut Range<usize>,
        start: usize,
        part: Range<usize>,
        slices: &mut SmallVec<[IoSlice<'a>; SLICES]>,
    ) {
        if part.is_empty() {
            return;
        }
        if run.end != start + part.start {
            self.cut(run, slices);
            run.start = start + part.start;
        }
        run.end = start + part.end;
    }

    /// Makes the run a slice.
    #[inline]
    fn cut<'a>(&'a self, run: &mut Range<usize>, slices: &mut SmallVec<[IoSlice<'a>; SLICES]>) {
        if run.start < run.end {
            slices.push(IoSlice::new(&self.ring[run.clone()]));
        }
        *run = 0..0;
    }

    /// Notes that the first `bytes` of [`Sender::slices`] were sent.
    ///
    /// # Panics
    /// If there were not so many.
    pub fn advance(&mut self, bytes: usize) {
        self.waiting = self.waiting.checked_sub(bytes).expect("no more is sent than there is");
        self.gone += bytes;
        self.total += bytes as u64;
    }

    /// The next entry that was sent whole.
    #[inline]
    pub fn pop_sent(&mut self) -> Option<Sent<B>> {
        let length = self.entries.front()?.length();
        if self.gone < length {
            return None;
        }
        self.gone -= length;
        Some(self.pop())
    }

    /// Any entry, sent or not: for a connection that is given up.
    pub fn discard(&mut self) -> Option<Sent<B>> {
        (self.gone, self.waiting) = (0, 0);
        (!self.entries.is_empty()).then(|| self.pop())
    }

    #[inline]
    fn pop(&mut self) -> Sent<B> {
        let entry = self.entries.pop_front().expect("the caller has looked");
        self.used -= entry.span;
        if self.entries.is_empty() {
            assert_eq!(self.used, 0, "the ring is empty with the queue");
            self.write = 0;
        }
        Sent { token: entry.token, buf: entry.body.map(|body| body.buf) }
    }
}
