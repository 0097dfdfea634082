//! Reads back what a session sent, checking the framing.

use std::collections::BTreeMap;

use zerocopy::FromBytes;

use super::super::wire::{self, ChunkHeader, ErrorHead, SimpleReply, chunk};

/// All that was answered to one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Data by offset; simple replies' under `u64::MAX`.
    pub(super) data: BTreeMap<u64, Vec<u8>>,
    /// Lengths and states of extents.
    pub(super) extents: Vec<(u32, u32)>,
    /// Error numbers, with the offset if there is one.
    pub(super) errors: Vec<(u32, Option<u64>)>,
    /// Replies or last chunks.
    pub(super) ends: u32,
    /// Content chunks.
    pub(super) contents: u32,
}

impl Answer {
    /// The data, which must have no gap.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out: Vec<u8> = Vec::new();
        let first = self.data.keys().next().copied().unwrap_or(0);
        for (&offset, data) in &self.data {
            assert_eq!(offset, first.wrapping_add(out.len() as u64), "no gap, no overlap");
            out.extend_from_slice(data);
        }
        out
    }

    pub(super) fn is_ok(&self) -> bool {
        self.errors.is_empty() && self.ends == 1
    }

    /// The one error of a request that failed as a whole.
    pub(super) fn error(&self) -> u32 {
        assert_eq!((self.errors.len(), self.ends), (1, 1), "{self:?}");
        self.errors[0].0
    }
}

/// Reads all messages; `lengths` are those of reads with simple replies.
pub(super) fn answers(mut bytes: &[u8], lengths: &BTreeMap<u64, usize>) -> BTreeMap<u64, Answer> {
    let mut all: BTreeMap<u64, Answer> = BTreeMap::new();
    while !bytes.is_empty() {
        let magic = u32::from_be_bytes(*bytes.first_chunk().expect("a whole message"));
        if magic == wire::SIMPLE_REPLY_MAGIC {
            let (reply, rest) = SimpleReply::read_from_prefix(bytes).expect("a whole reply");
            let answer = all.entry(reply.cookie.get()).or_default();
            answer.ends += 1;
            let length = match reply.error.get() {
                0 => lengths.get(&reply.cookie.get()).copied().unwrap_or(0),
                error => {
                    answer.errors.push((error, None));
                    0
                }
            };
            if length > 0 {
                answer.data.insert(u64::MAX, rest[..length].to_vec());
            }
            bytes = &rest[length..];
            continue;
        }
        assert_eq!(magic, wire::CHUNK_MAGIC, "messages follow each other");
        let (header, rest) = ChunkHeader::read_from_prefix(bytes).expect("a whole header");
        let (payload, rest) = rest.split_at(header.length.get() as usize);
        bytes = rest;
        let answer = all.entry(header.cookie.get()).or_default();
        assert_eq!(answer.ends, 0, "nothing follows the last chunk");
        answer.ends += u32::from(header.flags == wire::CHUNK_DONE);
        read_chunk(answer, header.kind.get(), payload);
    }
    all
}

fn read_chunk(answer: &mut Answer, kind: u16, payload: &[u8]) {
    match kind {
        chunk::NONE => assert!(payload.is_empty()),
        chunk::OFFSET_DATA => {
            let (offset, data) = payload.split_first_chunk().expect("an offset");
            assert!(!data.is_empty());
            answer.contents += 1;
            let old = answer.data.insert(u64::from_be_bytes(*offset), data.to_vec());
            assert!(old.is_none(), "each byte once");
        }
        chunk::BLOCK_STATUS => {
            assert_eq!(payload[..4], 1u32.to_be_bytes(), "the context that was negotiated");
            assert!(payload.len() > 4);
            for descriptor in payload[4..].chunks(8) {
                let u32_at =
                    |at: usize| u32::from_be_bytes(*descriptor[at..].first_chunk().unwrap());
                answer.extents.push((u32_at(0), u32_at(4)));
            }
        }
        chunk::ERROR | chunk::ERROR_OFFSET => {
            let (head, rest) = ErrorHead::read_from_prefix(payload).expect("an error");
            let (message, rest) = rest.split_at(head.message_length.get().into());
            assert!(std::str::from_utf8(message).is_ok_and(|m| !m.is_empty()));
            let offset = (kind == chunk::ERROR_OFFSET)
                .then(|| u64::from_be_bytes(*rest.first_chunk().expect("an offset")));
            answer.errors.push((head.error.get(), offset));
        }
        _ => panic!("chunk of unknown type {kind}"),
    }
}
