//! Replies, simple and structured, out of received bytes: sans-IO.
//!
//! Data of a read is handed on as it comes, everything else when it is whole,
//! so that the bytes to keep are bounded by [`MESSAGE_BYTES`].

use std::collections::HashMap;
use std::mem::size_of;

use zerocopy::FromBytes;

use super::pipeline::{Done, Part};
use super::{Error, RequestError};
use crate::target::nbd::wire::{
    self, ChunkHeader, Descriptor, Errno, ErrorHead, SimpleReply, chunk,
};

/// Extents that a server may send at once: all blocks of 4 GiB.
const EXTENTS: usize = 1 << 20;
/// Longest chunk that is kept whole: extents with their context.
pub(super) const MESSAGE_BYTES: usize = 4 + EXTENTS * Descriptor::BYTES;
/// Longest chunk of an error.
const ERROR_BYTES: usize = 64 << 10;

/// What [`Decoder::take`] found.
pub(super) enum Taken {
    /// So many bytes were used, and the request that they end.
    Bytes(usize, Option<Done>),
    /// Nothing can be done before so many bytes are there.
    Needs(usize),
}

/// What came for a request that is not done.
#[derive(Default)]
struct Partial {
    bytes: u64,
    failed: Option<RequestError>,
}

/// The rest of a data chunk.
struct Data {
    cookie: u64,
    offset: u64,
    left: usize,
    ends: bool,
}

/// Takes replies apart.
#[derive(Default)]
pub(super) struct Decoder {
    data: Option<Data>,
    partial: HashMap<u64, Partial>,
    extents: Vec<(u32, u32)>,
}

impl Decoder {
    /// Takes one step at the front of `input`.
    pub(super) fn take(
        &mut self,
        input: &[u8],
        part: &mut impl FnMut(Part<'_>),
    ) -> Result<Taken, Error> {
        if self.data.is_some() {
            return Ok(self.data(input, part));
        }
        let Some(magic) = input.first_chunk() else { return Ok(Taken::Needs(4)) };
        match u32::from_be_bytes(*magic) {
            wire::SIMPLE_REPLY_MAGIC => Ok(self.simple(input)),
            wire::CHUNK_MAGIC => self.chunk(input, part),
            _ => Err(Error::Malformed("not a reply")),
        }
    }

    fn done(&mut self, cookie: u64) -> Done {
        let Partial { bytes, failed } = self.partial.remove(&cookie).unwrap_or_default();
        Done { cookie, bytes, result: failed.map_or(Ok(()), Err) }
    }

    fn simple(&mut self, input: &[u8]) -> Taken {
        let Ok((reply, _)) = SimpleReply::read_from_prefix(input) else {
            return Taken::Needs(size_of::<SimpleReply>());
        };
        let (cookie, error) = (reply.cookie.get(), reply.error.get());
        if error != 0 {
            let errno = Errno::from_wire(error);
            let failed = RequestError { errno, offset: None, message: String::new() };
            self.partial.entry(cookie).or_default().failed = Some(failed);
        }
        Taken::Bytes(size_of::<SimpleReply>(), Some(self.done(cookie)))
    }

    fn chunk(&mut self, input: &[u8], part: &mut impl FnMut(Part<'_>)) -> Result<Taken, Error> {
        const HEADER: usize = size_of::<ChunkHeader>();
        let Ok((header, rest)) = ChunkHeader::read_from_prefix(input) else {
            return Ok(Taken::Needs(HEADER));
        };
        let (cookie, length) = (header.cookie.get(), header.length.get() as usize);
        let ends = header.flags.get() & wire::CHUNK_DONE != 0;
        let kind = header.kind.get();
        if kind == chunk::OFFSET_DATA && length > 8 {
            let Some(offset) = rest.first_chunk() else { return Ok(Taken::Needs(HEADER + 8)) };
            let offset = u64::from_be_bytes(*offset);
            self.data = Some(Data { cookie, offset, left: length - 8, ends });
            return Ok(Taken::Bytes(HEADER + 8, None));
        }
        let error = kind & chunk::ERROR_BIT != 0;
        let possible = match kind {
            chunk::NONE => length == 0,
            chunk::OFFSET_HOLE => length == 12,
            chunk::BLOCK_STATUS => length > 4 && length % 8 == 4 && length <= MESSAGE_BYTES,
            _ => error && length <= ERROR_BYTES,
        };
        if !possible {
            return Err(Error::Malformed("unknown chunk, or of impossible length"));
        }
        let Some(payload) = rest.get(..length) else { return Ok(Taken::Needs(HEADER + length)) };
        match kind {
            chunk::OFFSET_HOLE => self.hole(cookie, payload, part)?,
            chunk::BLOCK_STATUS => self.status(cookie, payload, part),
            _ if error => self.error(cookie, kind, payload)?,
            _ => {}
        }
        Ok(Taken::Bytes(HEADER + length, ends.then(|| self.done(cookie))))
    }

    /// Hands on what there is of a data chunk.
    fn data(&mut self, input: &[u8], part: &mut impl FnMut(Part<'_>)) -> Taken {
        if input.is_empty() {
            return Taken::Needs(1);
        }
        let data = self.data.as_mut().expect("the caller has looked");
        let n = input.len().min(data.left);
        let cookie = data.cookie;
        part(Part::Data { cookie, offset: data.offset, bytes: &input[..n] });
        self.partial.entry(cookie).or_default().bytes += n as u64;
        data.offset = data.offset.wrapping_add(n as u64);
        data.left -= n;
        if data.left > 0 {
            return Taken::Bytes(n, None);
        }
        let ends = data.ends;
        self.data = None;
        Taken::Bytes(n, ends.then(|| self.done(cookie)))
    }

    fn hole(
        &mut self,
        cookie: u64,
        payload: &[u8],
        part: &mut impl FnMut(Part<'_>),
    ) -> Result<(), Error> {
        let (offset, length) =
            payload.split_first_chunk().ok_or(Error::Malformed("a hole is too short"))?;
        let length = length.first_chunk().ok_or(Error::Malformed("a hole is too short"))?;
        let (offset, length) = (u64::from_be_bytes(*offset), u32::from_be_bytes(*length).into());
        self.partial.entry(cookie).or_default().bytes += length;
        part(Part::Zeros { cookie, offset, length });
        Ok(())
    }

    /// `payload` is a context and whole descriptors.
    fn status(&mut self, cookie: u64, payload: &[u8], part: &mut impl FnMut(Part<'_>)) {
        self.extents.clear();
        for bytes in payload[4..].chunks_exact(Descriptor::BYTES) {
            let descriptor = Descriptor::read_from_bytes(bytes).expect("as long");
            self.extents.push((descriptor.length.get(), descriptor.state.get()));
        }
        part(Part::Extents { cookie, extents: &self.extents });
    }

    fn error(&mut self, cookie: u64, kind: u16, payload: &[u8]) -> Result<(), Error> {
        const SHORT: Error = Error::Malformed("an error chunk is too short");
        let (head, rest) = ErrorHead::read_from_prefix(payload).map_err(|_| SHORT)?;
        let (message, rest) =
            rest.split_at_checked(head.message_length.get().into()).ok_or(SHORT)?;
        let offset = match rest.first_chunk() {
            Some(offset) if kind == chunk::ERROR_OFFSET => Some(u64::from_be_bytes(*offset)),
            None if kind == chunk::ERROR_OFFSET => return Err(SHORT),
            _ => None,
        };
        let errno = Errno::from_wire(head.error.get());
        let message = String::from_utf8_lossy(message).into_owned();
        let failed = &mut self.partial.entry(cookie).or_default().failed;
        failed.get_or_insert(RequestError { errno, offset, message });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(flags: u16, kind: u16, cookie: u64, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap();
        let mut bytes = wire::CHUNK_MAGIC.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(data);
        bytes
    }

    /// Everything that `bytes` say when they come `step` at a time.
    fn decode(bytes: &[u8], step: usize) -> Result<(Vec<String>, Vec<Done>), Error> {
        let (mut decoder, mut parts, mut done) = (Decoder::default(), Vec::new(), Vec::new());
        let (mut parsed, mut filled) = (0, 0);
        loop {
            let input = &bytes[parsed..filled];
            let mut part = |part: Part<'_>| match part {
                // One line for each byte, so that the step makes no difference.
                Part::Data { cookie, offset, bytes } => {
                    for (at, byte) in (offset..).zip(bytes) {
                        parts.push(format!("{cookie} {at} {byte}"));
                    }
                }
                other => parts.push(format!("{other:?}")),
            };
            match decoder.take(input, &mut part)? {
                Taken::Bytes(n, end) => {
                    parsed += n;
                    done.extend(end);
                }
                Taken::Needs(n) => {
                    assert!(n > input.len(), "else it would wait for ever");
                    if filled == bytes.len() {
                        return Ok((parts, done));
                    }
                    filled = (filled + step).min(bytes.len());
                }
            }
        }
    }

    #[test]
    fn replies_may_be_cut_anywhere() {
        let hole = [&4096_u64.to_be_bytes()[..], &4_u32.to_be_bytes()].concat();
        let data = [&4100_u64.to_be_bytes()[..], b"data"].concat();
        let extents: Vec<u8> =
            [1, 4096, 0, 8192, 3].into_iter().flat_map(u32::to_be_bytes).collect();
        let error = [0, 0, 0, 28, 0, 2, b'n', b'o'];
        let bytes = [
            chunk(0, chunk::OFFSET_DATA, 7, &data),
            chunk(1, chunk::BLOCK_STATUS, 8, &extents),
            chunk(1, chunk::OFFSET_HOLE, 7, &hole),
            chunk(1, chunk::ERROR, 9, &error),
        ]
        .concat();
        let (parts, done) = decode(&bytes, bytes.len()).unwrap();
        let want = [
            "7 4100 100",
            "7 4101 97",
            "7 4102 116",
            "7 4103 97",
            "Extents { cookie: 8, extents: [(4096, 0), (8192, 3)] }",
            "Zeros { cookie: 7, offset: 4096, length: 4 }",
        ];
        assert_eq!(parts, want);
        assert_eq!(
            done.iter().map(|d| (d.cookie, d.bytes)).collect::<Vec<_>>(),
            [(8, 0), (7, 8), (9, 0)]
        );
        let failed = done[2].result.as_ref().unwrap_err();
        assert_eq!((failed.errno, failed.message.as_str()), (Errno::NoSpace, "no"));
        for step in 1..bytes.len() {
            let (again, ends) = decode(&bytes, step).unwrap();
            assert_eq!((again, ends.len()), (parts.clone(), 3), "{step} bytes at a time");
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for bytes in [
            vec![0xff; 20],
            chunk(1, chunk::OFFSET_DATA, 7, b"short"),
            chunk(1, chunk::OFFSET_HOLE, 7, b"short"),
            chunk(1, chunk::BLOCK_STATUS, 7, &[0; 8]),
            chunk(1, chunk::NONE, 7, &[0]),
            chunk(1, chunk::ERROR, 7, &[0; 3]),
            chunk(1, chunk::ERROR, 7, &vec![0; ERROR_BYTES + 1]),
            chunk(1, 77, 7, &[]),
        ] {
            assert!(decode(&bytes, 7).is_err(), "{bytes:?}");
        }
    }
}
