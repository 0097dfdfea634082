//! Replies, simple and structured, taken out of a stream of bytes.

use std::collections::HashMap;

use super::handshake::be32;
use crate::block::{BlockError, Extent, Payload};

const SIMPLE: u32 = 0x6744_6698;
const STRUCTURED: u32 = 0x668e_33ef;
const FLAG_DONE: u16 = 1;
const NONE: u16 = 0;
const OFFSET_DATA: u16 = 1;
const OFFSET_HOLE: u16 = 2;
const BLOCK_STATUS: u16 = 5;
const STATE_ZERO: u32 = 2;
/// Payload of a chunk beyond the data asked for: errors with their text, extents.
const MAX_EXTRA_BYTES: usize = 1 << 20;

enum Want {
    Nothing,
    Data { offset: u64, bytes: Vec<u8> },
    Extents(Vec<Extent>),
}

/// A request whose reply is not complete.
pub(super) struct Pending {
    want: Want,
    errno: Option<i32>,
}

impl Pending {
    pub(super) fn plain() -> Self {
        Self { want: Want::Nothing, errno: None }
    }

    pub(super) fn read(offset: u64, length: u32) -> Self {
        Self { want: Want::Data { offset, bytes: vec![0; length as usize] }, errno: None }
    }

    pub(super) fn status() -> Self {
        Self { want: Want::Extents(Vec::new()), errno: None }
    }

    pub(super) fn finish(self) -> Result<Payload, BlockError> {
        match (self.errno, self.want) {
            (Some(errno), _) => Err(BlockError::Refused { errno }),
            (None, Want::Nothing) => Ok(Payload::None),
            (None, Want::Data { bytes, .. }) => Ok(Payload::Data(bytes)),
            (None, Want::Extents(extents)) => Ok(Payload::Extents(extents)),
        }
    }

    fn data_bytes(&self) -> usize {
        match &self.want {
            Want::Data { bytes, .. } => bytes.len(),
            _ => 0,
        }
    }

    /// The part of the read buffer at a volume offset.
    fn part(&mut self, at: u64, length: usize) -> Result<&mut [u8], BlockError> {
        let Want::Data { offset, bytes } = &mut self.want else {
            return Err(BlockError::Protocol("data that was not asked for"));
        };
        let from = at.checked_sub(*offset).and_then(|from| usize::try_from(from).ok());
        let range = from.and_then(|from| Some(from..from.checked_add(length)?));
        range
            .and_then(|range| bytes.get_mut(range))
            .ok_or(BlockError::Protocol("data outside the request"))
    }

    /// Takes one structured chunk in.
    fn chunk(&mut self, kind: u16, data: &[u8], context: Option<u32>) -> Result<(), BlockError> {
        match kind {
            NONE => {}
            OFFSET_DATA => {
                let at = be64(data, 0)?;
                self.part(at, data.len() - 8)?.copy_from_slice(&data[8..]);
            }
            OFFSET_HOLE => {
                let (at, length) = (be64(data, 0)?, be32(data, 8)?);
                self.part(at, length as usize)?.fill(0);
            }
            BLOCK_STATUS => {
                let Want::Extents(extents) = &mut self.want else {
                    return Err(BlockError::Protocol("a status that was not asked for"));
                };
                if Some(be32(data, 0)?) == context {
                    for pair in data[4..].chunks(8) {
                        let (length, state) = (be32(pair, 0)?, be32(pair, 4)?);
                        extents
                            .push(Extent { length: length.into(), zero: state & STATE_ZERO != 0 });
                    }
                }
            }
            _ if kind >> 15 == 1 => self.errno = Some(errno(be32(data, 0)?)),
            _ => return Err(BlockError::Protocol("an unknown kind of reply")),
        }
        Ok(())
    }
}

/// What [`parse`] took.
pub(super) struct Taken {
    pub bytes: usize,
    /// The request that is complete now.
    pub finished: Option<u64>,
}

/// Takes one reply or chunk off the front of `input`; `None` if it is not whole yet.
pub(super) fn parse(
    input: &[u8],
    context: Option<u32>,
    pending: &mut HashMap<u64, Pending>,
) -> Result<Option<Taken>, BlockError> {
    if input.len() < 16 {
        return Ok(None);
    }
    let id = be64(input, 8)?;
    let request = pending.get_mut(&id).ok_or(BlockError::Protocol("a reply to no request"))?;
    match be32(input, 0)? {
        SIMPLE => {
            let code = be32(input, 4)?;
            request.errno = (code != 0).then(|| errno(code));
            let length = if code == 0 { request.data_bytes() } else { 0 };
            let Some(data) = input.get(16..16 + length) else { return Ok(None) };
            if let Want::Data { bytes, .. } = &mut request.want
                && code == 0
            {
                bytes.copy_from_slice(data);
            }
            Ok(Some(Taken { bytes: 16 + length, finished: Some(id) }))
        }
        STRUCTURED => {
            let Ok(length) = be32(input, 16) else { return Ok(None) };
            let length = length as usize;
            if length > request.data_bytes() + MAX_EXTRA_BYTES {
                return Err(BlockError::Protocol("a reply longer than its request allows"));
            }
            let Some(data) = input.get(20..20 + length) else { return Ok(None) };
            let flags = u16::from_be_bytes([input[4], input[5]]);
            request.chunk(u16::from_be_bytes([input[6], input[7]]), data, context)?;
            let finished = (flags & FLAG_DONE != 0).then_some(id);
            Ok(Some(Taken { bytes: 20 + length, finished }))
        }
        _ => Err(BlockError::Protocol("garbage instead of a reply")),
    }
}

/// NBD's error values are Linux's.
fn errno(code: u32) -> i32 {
    i32::try_from(code).unwrap_or(5)
}

fn be64(bytes: &[u8], at: usize) -> Result<u64, BlockError> {
    Ok(u64::from(be32(bytes, at)?) << 32 | u64::from(be32(bytes, at + 4)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(flags: u16, kind: u16, id: u64, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap();
        let mut bytes = STRUCTURED.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(id.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(data);
        bytes
    }

    fn take(bytes: &[u8], pending: &mut HashMap<u64, Pending>) -> Result<Option<u64>, BlockError> {
        for cut in 0..bytes.len() {
            assert!(parse(&bytes[..cut], Some(1), pending)?.is_none(), "cut at {cut}");
        }
        let taken = parse(bytes, Some(1), pending)?.expect("whole");
        assert_eq!(taken.bytes, bytes.len());
        Ok(taken.finished)
    }

    #[test]
    fn a_read_comes_in_pieces() {
        let mut pending = HashMap::from([(7, Pending::read(4096, 8))]);
        let data = [&4100_u64.to_be_bytes()[..], b"data"].concat();
        assert_eq!(take(&chunk(0, OFFSET_DATA, 7, &data), &mut pending).unwrap(), None);
        let hole = [&4096_u64.to_be_bytes()[..], &4_u32.to_be_bytes()].concat();
        assert_eq!(take(&chunk(1, OFFSET_HOLE, 7, &hole), &mut pending).unwrap(), Some(7));
        let got = pending.remove(&7).unwrap().finish().unwrap();
        assert_eq!(got, Payload::Data(b"\0\0\0\0data".to_vec()));
    }

    #[test]
    fn extents_and_errors() {
        let mut pending = HashMap::from([(1, Pending::status()), (2, Pending::plain())]);
        let data: Vec<u8> = [1, 4096, 0, 8192, 3].into_iter().flat_map(u32::to_be_bytes).collect();
        assert_eq!(take(&chunk(1, BLOCK_STATUS, 1, &data), &mut pending).unwrap(), Some(1));
        let want = [Extent { length: 4096, zero: false }, Extent { length: 8192, zero: true }];
        let got = pending.remove(&1).unwrap().finish().unwrap();
        assert_eq!(got, Payload::Extents(want.to_vec()));
        let error = [0, 0, 0, 28, 0, 2, b'n', b'o'];
        assert_eq!(take(&chunk(1, (1 << 15) + 1, 2, &error), &mut pending).unwrap(), Some(2));
        let got = pending.remove(&2).unwrap().finish().unwrap_err();
        assert!(got.to_string().contains("No space"), "{got}");
    }

    #[test]
    fn a_broken_server_is_an_error() {
        let outside = [&4090_u64.to_be_bytes()[..], b"data"].concat();
        let huge = chunk(1, OFFSET_DATA, 7, &vec![0; MAX_EXTRA_BYTES + 100]);
        for bytes in [
            chunk(1, OFFSET_DATA, 7, &outside),
            chunk(1, OFFSET_DATA, 7, b"short"),
            chunk(1, OFFSET_DATA, 8, &outside),
            chunk(1, BLOCK_STATUS, 7, &[0; 12]),
            chunk(1, 77, 7, &[]),
            vec![0xff; 20],
            huge,
        ] {
            let mut pending = HashMap::from([(7, Pending::read(4096, 8))]);
            assert!(parse(&bytes, Some(1), &mut pending).is_err());
        }
    }
}
