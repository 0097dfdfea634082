//! What waits to be sent: headers of ours, data of the caller's.
//!
//! Headers, digests and padding stand one behind the other in one buffer, so that a batch
//! of reads is one piece; data are named by slot and looked up when they are sent. Both
//! are bounded: [`Outbox::has_room`] is asked before a PDU is put in.

use std::collections::VecDeque;
use std::io::IoSlice;

use smallvec::SmallVec;

use super::memory::{Memory, Tag};

/// Longest header with digest and padding, and the data digest behind.
const MOST_HEAD_BYTES: usize = 72 + 4 + 124 + 4;
/// PDUs beside those of the slots: ICReq, TermReq.
const SPARE: usize = 4;
/// Slices of one vectored write; the kernel takes 1024.
pub const SLICES: usize = 256;

/// A batch for one vectored write.
pub type Batch<'a> = SmallVec<[IoSlice<'a>; SLICES]>;

#[derive(Clone, Copy, Debug)]
enum Piece {
    /// So many bytes of the heads.
    Heads(usize),
    /// Bytes of a slot's data.
    Data { slot: u16, tag: Tag, at: usize, len: usize },
}

/// See the module.
pub(super) struct Outbox {
    heads: Vec<u8>,
    /// Bytes of `heads` that are sent.
    heads_sent: usize,
    most_head_bytes: usize,
    pieces: VecDeque<Piece>,
    most_pieces: usize,
    /// Bytes of the front piece that are sent.
    front_sent: usize,
}

impl Outbox {
    pub fn new(depth: u16) -> Outbox {
        let pdus = usize::from(depth) + SPARE;
        Outbox {
            heads: Vec::with_capacity(2 * pdus * MOST_HEAD_BYTES),
            heads_sent: 0,
            most_head_bytes: pdus * MOST_HEAD_BYTES,
            pieces: VecDeque::with_capacity(3 * pdus),
            most_pieces: 3 * pdus,
            front_sent: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// There is room for one more PDU and a request to terminate.
    pub fn has_room(&self) -> bool {
        let heads = self.heads.len() - self.heads_sent;
        heads + 2 * MOST_HEAD_BYTES <= self.most_head_bytes
            && self.pieces.len() + 6 <= self.most_pieces
    }

    /// Appends bytes of ours.
    pub fn push_head(&mut self, bytes: &[u8]) {
        if self.heads.len() + bytes.len() > self.heads.capacity() {
            self.heads.copy_within(self.heads_sent.., 0);
            self.heads.truncate(self.heads.len() - self.heads_sent);
            self.heads_sent = 0;
        }
        assert!(self.heads.len() + bytes.len() <= self.heads.capacity(), "has_room was asked");
        self.heads.extend_from_slice(bytes);
        match self.pieces.back_mut() {
            Some(Piece::Heads(len)) => *len += bytes.len(),
            _ => self.pieces.push_back(Piece::Heads(bytes.len())),
        }
    }

    /// Appends data of the caller's.
    pub fn push_data(&mut self, slot: u16, tag: Tag, at: usize, len: usize) {
        assert!(len > 0 && self.pieces.len() < self.most_pieces, "has_room was asked");
        self.pieces.push_back(Piece::Data { slot, tag, at, len });
    }

    /// As much as fits into one vectored write.
    pub fn gather<'a>(&'a self, memory: &'a impl Memory, out: &mut Batch<'a>) {
        let mut head = self.heads_sent;
        let mut skip = self.front_sent;
        for piece in &self.pieces {
            match *piece {
                Piece::Heads(len) => {
                    if out.len() == SLICES {
                        return;
                    }
                    out.push(IoSlice::new(&self.heads[head..][..len - skip]));
                    head += len - skip;
                }
                Piece::Data { tag, at, len, .. } => {
                    let (mut at, end) = (at + skip, at + len);
                    while at < end {
                        if out.len() == SLICES {
                            return;
                        }
                        let bytes = memory.source(tag, at, end - at);
                        assert!((1..=end - at).contains(&bytes.len()), "see Memory");
                        out.push(IoSlice::new(bytes));
                        at += bytes.len();
                    }
                }
            }
            skip = 0;
        }
    }

    /// `n` bytes have been sent; `done` hears of each piece of data that is through.
    pub fn sent(&mut self, mut n: usize, mut done: impl FnMut(u16)) {
        while n > 0 {
            let front = *self.pieces.front().expect("no more is sent than there was");
            let (Piece::Heads(len) | Piece::Data { len, .. }) = front;
            let step = n.min(len - self.front_sent);
            n -= step;
            self.front_sent += step;
            if let Piece::Heads(_) = front {
                self.heads_sent += step;
            }
            if self.front_sent < len {
                return;
            }
            self.front_sent = 0;
            self.pieces.pop_front();
            if let Piece::Data { slot, .. } = front {
                done(slot);
            }
        }
        if self.pieces.is_empty() {
            assert_eq!(self.heads_sent, self.heads.len(), "every head belongs to a piece");
            self.heads.clear();
            self.heads_sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands whose bytes lie in pieces of three.
    struct Threes(Vec<u8>);

    impl Memory for Threes {
        fn source(&self, _: Tag, offset: usize, len: usize) -> &[u8] {
            &self.0[offset..][..len.min(3 - offset % 3)]
        }
        fn target(&mut self, _: Tag, _: usize, _: usize) -> &mut [u8] {
            panic!("nothing is received")
        }
    }

    #[test]
    fn any_cut_sends_every_byte_once_and_in_order() {
        let memory = Threes((10..30).collect());
        let want: Vec<u8> =
            [0, 1, 2].into_iter().chain(10..20).chain([3, 4]).chain(25..30).collect();
        for step in 1..=want.len() {
            let mut outbox = Outbox::new(2);
            outbox.push_head(&[0, 1]);
            outbox.push_head(&[2]);
            outbox.push_data(0, Tag(5), 0, 10);
            outbox.push_head(&[3, 4]);
            outbox.push_data(1, Tag(6), 15, 5);
            let (mut got, mut through) = (Vec::new(), Vec::new());
            while !outbox.is_empty() {
                let mut batch = Batch::new();
                outbox.gather(&memory, &mut batch);
                let bytes: Vec<u8> = batch.iter().flat_map(|slice| slice.to_vec()).collect();
                drop(batch);
                let n = step.min(bytes.len());
                got.extend_from_slice(&bytes[..n]);
                outbox.sent(n, |slot| through.push(slot));
            }
            assert_eq!(got, want, "{step} bytes at a time");
            assert_eq!(through, [0, 1]);
            assert!(outbox.has_room());
        }
    }

    #[test]
    fn heads_that_are_sent_make_room() {
        let mut outbox = Outbox::new(1);
        let memory = Threes(vec![0; 9]);
        let capacity = outbox.heads.capacity();
        let waiting = |outbox: &Outbox| {
            let mut batch = Batch::new();
            outbox.gather(&memory, &mut batch);
            batch.iter().map(|slice| slice.len()).sum::<usize>()
        };
        for round in 0..100 {
            assert!(outbox.has_room());
            outbox.push_head(&[round; 76]);
            outbox.push_data(0, Tag(0), 0, 3);
            // A byte stays every other time, so that the buffer is not always empty.
            let n = waiting(&outbox) - usize::from(round % 2 == 0);
            outbox.sent(n, |_| {});
        }
        assert_eq!(outbox.heads.capacity(), capacity, "nothing was allocated");
    }

    #[test]
    fn a_full_outbox_says_so() {
        let mut outbox = Outbox::new(1);
        let mut pdus = 0;
        while outbox.has_room() {
            outbox.push_head(&[0; MOST_HEAD_BYTES]);
            outbox.push_data(0, Tag(0), 0, 1);
            pdus += 1;
        }
        assert!((1..=4).contains(&pdus), "{pdus}");
        outbox.push_head(&[0; MOST_HEAD_BYTES]);
    }
}
