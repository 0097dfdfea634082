//! From bytes to PDUs.
//!
//! Whatever the stream has comes into one buffer, where headers are read in place. The
//! payload of a PDU goes to the targets that the consumer gives: copied once as far as it is
//! in the buffer already, straight from the stream otherwise.
//!
//! Invariants:
//! - at most one PDU is in work; its payload is placed, or skipped, before the next header
//!   is looked at;
//! - `space` never offers room behind the payload of a target that more payload follows:
//!   that belongs into the next target.

use std::io::IoSliceMut;

use nvme::tcp::check::Shape;
use nvme::tcp::digest::DIGEST_BYTES;
use nvme::tcp::pdu::{CommonHeader, MAX_HEADER_BYTES};
use nvme::tcp::{Digest, Digests, Fatal, Received, Receiver as Side, Stage, check};
use zerocopy::FromBytes;

use super::Memory;

/// Least capacity: any header with digest and padding, and room to go on behind it.
const MIN_CAPACITY: usize = 1024;

/// Where payload goes: bytes `at..end` of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Target<B> {
    /// The buffer.
    pub buf: B,
    /// Where the next byte goes.
    pub at: usize,
    /// Where it is full.
    pub end: usize,
}

/// What was received.
#[derive(Debug)]
pub enum Event<B> {
    /// A header. If `data` bytes follow, give targets for them, or skip them.
    Pdu {
        /// The header.
        header: Received,
        /// Bytes of payload.
        data: u32,
    },
    /// A target is full, or it has the last of the PDU's payload.
    Filled {
        /// The target.
        target: Target<B>,
        /// The payload has ended; false if it does not have its digest.
        end: Option<bool>,
    },
    /// The payload that was to be skipped has ended.
    Skipped,
}

#[derive(Debug)]
enum State<B> {
    /// A header is to come.
    Header,
    /// `left` bytes of payload are to come.
    Payload { left: u32, place: Place<B> },
}

#[derive(Debug)]
enum Place<B> {
    /// Nowhere yet.
    Unknown,
    Target(Target<B>),
    Nowhere,
}

/// The receiving half of a connection.
#[derive(Debug)]
pub struct Receiver<B> {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    state: State<B>,
    /// Of the payload so far, if it has one.
    digest: Option<Digest>,
    /// How far the target's bytes are in the digest.
    digested: usize,
    stage: Stage,
    digests: Digests,
    /// Most bytes that are taken into the buffer at once.
    appetite: usize,
    /// Bytes that ever came.
    total: u64,
}

impl<B> Receiver<B> {
    /// A receiver of a connection that begins, with a buffer of `capacity` bytes.
    ///
    /// # Panics
    /// If that is less than any header needs.
    pub fn new(capacity: usize) -> Self {
        assert!(capacity >= MIN_CAPACITY, "a header fits");
        Receiver {
            bytes: vec![0; capacity].into_boxed_slice(),
            start: 0,
            end: 0,
            state: State::Header,
            digest: None,
            digested: 0,
            stage: Stage::Initial,
            digests: Digests::default(),
            appetite: capacity,
            total: 0,
        }
    }

    /// One that goes on where another stopped, after its [`Receiver::into_unread`].
    ///
    /// # Panics
    /// If `received` does not fit the capacity.
    pub fn resume(capacity: usize, digests: Digests, received: &[u8]) -> Self {
        let mut this = Self::new(capacity);
        this.bytes[..received.len()].copy_from_slice(received);
        this.end = received.len();
        this.begin(digests);
        this
    }

    /// The ICReq was good: from now on other PDUs come, with these digests.
    pub fn begin(&mut self, digests: Digests) {
        (self.stage, self.digests) = (Stage::Running, digests);
    }

    /// What was received and not looked at.
    ///
    /// # Panics
    /// In the middle of a payload.
    pub fn into_unread(self) -> Vec<u8> {
        assert!(matches!(self.state, State::Header), "only whole PDUs are handed on");
        self.bytes[self.start..self.end].to_vec()
    }

    /// Bytes that ever came.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The peer owes the rest of a PDU, and there is room for it.
    pub fn is_inside_pdu(&self) -> bool {
        match &self.state {
            State::Header => self.start < self.end,
            State::Payload { place, .. } => !matches!(place, Place::Unknown),
        }
    }

    /// Bounds what is taken into the buffer at once: little, where long payloads are expected
    /// that had better come straight into their targets.
    pub fn set_appetite(&mut self, bytes: usize) {
        self.appetite = bytes.clamp(MIN_CAPACITY, self.bytes.len());
    }

    /// Where the next bytes of the stream go, in this order; `None` if none can be taken
    /// before the consumer has taken what there is.
    pub fn space<'a, M: Memory<Buf = B>>(
        &'a mut self,
        memory: &'a mut M,
    ) -> Option<[IoSliceMut<'a>; 2]> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.bytes.len() - self.end < MIN_CAPACITY {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let stop = self.bytes.len().min(self.end + self.appetite);
        let scratch = &mut self.bytes[self.end..stop];
        let (direct, scratch): (&mut [u8], &mut [u8]) = match &mut self.state {
            State::Payload { place: Place::Unknown, .. } => return None,
            State::Payload { left, place: Place::Target(target) } if *left > 0 => {
                let rest = target.end - target.at;
                let more_follows = *left as usize > rest;
                let end = target.at + rest.min(*left as usize);
                let direct = &mut memory.bytes_mut(&mut target.buf)[target.at..end];
                (direct, if more_follows { &mut [] } else { scratch })
            }
            _ => (&mut [], scratch),
        };
        if direct.is_empty() && scratch.is_empty() {
            return None;
        }
        Some([IoSliceMut::new(direct), IoSliceMut::new(scratch)])
    }

    /// Notes that `bytes` were put into [`Receiver::space`].
    ///
    /// # Panics
    /// If there was not so much of it.
    pub fn received(&mut self, bytes: usize) {
        self.total += bytes as u64;
        let mut direct = 0;
        if let State::Payload { left, place: Place::Target(target) } = &mut self.state {
            direct = bytes.min(target.end - target.at).min(*left as usize);
            target.at += direct;
            *left -= u32::try_from(direct).expect("at most left");
        }
        self.end += bytes - direct;
        assert!(self.end <= self.bytes.len(), "no more than there is space");
    }

    /// The next event, as far as bytes and targets reach.
    ///
    /// # Errors
    /// When the peer broke the protocol. Nothing more can be made of the stream then;
    /// [`Receiver::offender`] has the header in error.
    #[inline]
    pub fn next<M: Memory<Buf = B>>(&mut self, memory: &mut M) -> Result<Option<Event<B>>, Fatal> {
        match self.state {
            State::Header => self.header(),
            State::Payload { place: Place::Unknown, .. } => Ok(None),
            State::Payload { place: Place::Nowhere, .. } => Ok(self.pass_over()),
            State::Payload { place: Place::Target(_), .. } => Ok(self.place(memory)),
        }
    }

    /// The header that [`Receiver::next`] refused, as far as it was received.
    pub fn offender(&self) -> &[u8] {
        let held = &self.bytes[self.start..self.end];
        let hlen = held.get(2).map_or(0, |hlen| usize::from(*hlen)).max(size_of::<CommonHeader>());
        &held[..held.len().min(hlen).min(MAX_HEADER_BYTES)]
    }

    /// Gives the payload that is to come a place.
    ///
    /// # Panics
    /// If none is to come, or it has one.
    pub fn fill(&mut self, target: Target<B>) {
        assert!(target.at < target.end, "a target has room");
        let State::Payload { place, .. } = &mut self.state else { panic!("a payload is to come") };
        assert!(matches!(place, Place::Unknown), "one target at a time");
        self.digested = target.at;
        *place = Place::Target(target);
    }

    /// Drops the payload that is to come.
    ///
    /// # Panics
    /// If none is to come, or it has a place.
    pub fn skip(&mut self) {
        let State::Payload { place, .. } = &mut self.state else { panic!("a payload is to come") };
        assert!(matches!(place, Place::Unknown), "what has a target is not skipped");
        *place = Place::Nowhere;
    }

    /// The connection is given up: the target in work, if any.
    pub fn abandon(&mut self) -> Option<Target<B>> {
        match std::mem::replace(&mut self.state, State::Header) {
            State::Payload { place: Place::Target(target), .. } => Some(target),
            _ => None,
        }
    }

    #[inline]
    fn header(&mut self) -> Result<Option<Event<B>>, Fatal> {
        let held = &self.bytes[self.start..self.end];
        let Ok((common, _)) = CommonHeader::ref_from_prefix(held) else { return Ok(None) };
        let shape = check::shape(common, Side::Controller, self.stage, self.digests)?;
        if held.len() < shape.header_bytes {
            return Ok(None);
        }
        let header = check::header(held, &shape)?;
        if held.len() < shape.data_start {
            return Ok(None);
        }
        self.start += shape.data_start;
        self.enter(&shape);
        Ok(Some(Event::Pdu { header, data: shape.data_bytes }))
    }

    #[inline]
    fn enter(&mut self, shape: &Shape) {
        if shape.data_bytes > 0 {
            self.state = State::Payload { left: shape.data_bytes, place: Place::Unknown };
            self.digest = shape.data_digest.then(Digest::new);
        }
    }

    /// Moves what is held into the target.
    #[inline]
    fn place<M: Memory<Buf = B>>(&mut self, memory: &mut M) -> Option<Event<B>> {
        let State::Payload { left, place: Place::Target(target) } = &mut self.state else {
            unreachable!("the caller has looked");
        };
        let held = self.end - self.start;
        let n = held.min(target.end - target.at).min(*left as usize);
        let bytes = memory.bytes_mut(&mut target.buf);
        bytes[target.at..][..n].copy_from_slice(&self.bytes[self.start..][..n]);
        self.start += n;
        target.at += n;
        *left -= u32::try_from(n).expect("at most left");
        if let Some(digest) = &mut self.digest {
            digest.update(&bytes[self.digested..target.at]);
            self.digested = target.at;
        }
        let end = match *left {
            0 => Some(self.end_of_payload()?),
            _ if target.at < target.end => return None,
            _ => None,
        };
        self.leave(end)
    }

    /// Hands the target back.
    #[inline]
    fn leave(&mut self, end: Option<bool>) -> Option<Event<B>> {
        let State::Payload { place, .. } = &mut self.state else {
            unreachable!("only payload ends");
        };
        let Place::Target(target) = std::mem::replace(place, Place::Unknown) else {
            unreachable!("only what was placed ends");
        };
        if end.is_some() {
            self.state = State::Header;
        }
        Some(Event::Filled { target, end })
    }

    /// Takes the digest behind a payload; `None` while it has not come, else whether it fits.
    #[inline]
    fn end_of_payload(&mut self) -> Option<bool> {
        let Some(digest) = &self.digest else { return Some(true) };
        let held = &self.bytes[self.start..self.end];
        let received = held.first_chunk::<DIGEST_BYTES>()?;
        let intact = u32::from_le_bytes(*received) == digest.value();
        self.start += DIGEST_BYTES;
        Some(intact)
    }

    fn pass_over(&mut self) -> Option<Event<B>> {
        let State::Payload { left, .. } = &mut self.state else {
            unreachable!("the caller has looked");
        };
        let n = (self.end - self.start).min(*left as usize);
        self.start += n;
        *left -= u32::try_from(n).expect("at most left");
        if *left > 0 {
            return None;
        }
        // Whether it fits does not matter any more.
        self.end_of_payload()?;
        self.state = State::Header;
        Some(Event::Skipped)
    }
}
