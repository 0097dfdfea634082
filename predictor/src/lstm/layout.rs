//! Weights as bytes, to be kept with a pool or sent to another node.
//!
//! All numbers are little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `TSRALSTM` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 2 | classes V, 2 to 128 |
//! | 14 | 2 | hidden units H, a multiple of 4 up to 64 |
//! | 16 | 8 | serial |
//! | 24 | 8 (V − 2) | deltas, signed, in the order of their classes |
//! | then | 4 · 4HV | gate table |
//! | then | 4 · 4HH | recurrent matrix, transposed |
//! | then | 4 · HV | head, transposed |
//! | then | 4 V | bias of the head |
//! | last | 4 | CRC-32C of everything before |
#![forbid(unsafe_code)]

use super::weights::is_hidden;
use super::{MAX_CLASSES, Vocabulary, Weights};

const MAGIC: &[u8; 8] = b"TSRALSTM";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;

/// Why bytes are not weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Shorter or longer than its header says.
    #[error("weights have {got} bytes instead of {want}")]
    Length {
        /// Bytes that the header asks for.
        want: usize,
        /// Bytes given.
        got: usize,
    },
    /// The magic is missing.
    #[error("not weights of a predictor")]
    Magic,
    /// Written by another version.
    #[error("weights have format version {0}, this program knows {VERSION}")]
    Version(u32),
    /// Classes, hidden units or deltas out of range.
    #[error("weights have an impossible shape or vocabulary")]
    Shape,
    /// Damaged.
    #[error("weights fail their checksum")]
    Checksum,
    /// An infinity or NaN.
    #[error("weights contain a number that is not finite")]
    NotFinite,
}

impl Weights {
    /// The bytes of the table above.
    pub fn to_bytes(&self) -> Vec<u8> {
        assert!(self.is_sound());
        let classes = u16::try_from(self.vocabulary.classes()).expect("at most MAX_CLASSES");
        let hidden = u16::try_from(self.hidden).expect("at most MAX_HIDDEN");
        let mut out = Vec::with_capacity(total_bytes(classes.into(), hidden.into()));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&classes.to_le_bytes());
        out.extend_from_slice(&hidden.to_le_bytes());
        out.extend_from_slice(&self.serial.to_le_bytes());
        out.extend(self.vocabulary.deltas().iter().flat_map(|delta| delta.to_le_bytes()));
        for values in [&self.gates, &self.recurrent, &self.head, &self.bias] {
            out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        out.extend_from_slice(&crc(&out).to_le_bytes());
        assert_eq!(out.len(), total_bytes(classes.into(), hidden.into()));
        out
    }

    /// Weights from bytes.
    ///
    /// # Errors
    /// If the bytes are not exactly what [`Weights::to_bytes`] writes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LayoutError> {
        let mut rest = bytes;
        let short = LayoutError::Length { want: HEADER_BYTES, got: bytes.len() };
        if take::<8>(&mut rest).ok_or(short)? != *MAGIC {
            return Err(LayoutError::Magic);
        }
        let version = u32::from_le_bytes(take(&mut rest).ok_or(short)?);
        if version != VERSION {
            return Err(LayoutError::Version(version));
        }
        let classes = usize::from(u16::from_le_bytes(take(&mut rest).ok_or(short)?));
        let hidden = usize::from(u16::from_le_bytes(take(&mut rest).ok_or(short)?));
        let serial = u64::from_le_bytes(take(&mut rest).ok_or(short)?);
        if !(2..=MAX_CLASSES).contains(&classes) || !is_hidden(hidden) {
            return Err(LayoutError::Shape);
        }
        let want = total_bytes(classes, hidden);
        if bytes.len() != want {
            return Err(LayoutError::Length { want, got: bytes.len() });
        }
        let stored = bytes[want - 4..].try_into().expect("four bytes");
        if crc(&bytes[..want - 4]) != u32::from_le_bytes(stored) {
            return Err(LayoutError::Checksum);
        }
        let (deltas, rest) = rest.split_at(8 * (classes - 2));
        let deltas = deltas.as_chunks().0.iter().map(|d| i64::from_le_bytes(*d)).collect();
        let vocabulary = Vocabulary::from_deltas(deltas).ok_or(LayoutError::Shape)?;
        let mut numbers = rest.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value));
        let mut floats = |count: usize| -> Vec<f32> { numbers.by_ref().take(count).collect() };
        let gates = floats(classes * 4 * hidden);
        let recurrent = floats(hidden * 4 * hidden);
        let head = floats(hidden * classes);
        let bias = floats(classes);
        let weights = Self { serial, hidden, vocabulary, gates, recurrent, head, bias };
        if weights.is_sound() { Ok(weights) } else { Err(LayoutError::NotFinite) }
    }
}

fn total_bytes(classes: usize, hidden: usize) -> usize {
    let floats = classes * 4 * hidden + hidden * 4 * hidden + hidden * classes + classes;
    HEADER_BYTES + 8 * (classes - 2) + 4 * floats + 4
}

fn crc(bytes: &[u8]) -> u32 {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(crc).expect("a 32-bit CRC")
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    fn sample() -> Weights {
        let vocabulary = Vocabulary::from_deltas(vec![1, -1, 64]).unwrap();
        let mut weights = Weights::untrained(vocabulary, 4, &mut Random::new(3));
        weights.serial = 77;
        weights
    }

    #[test]
    fn bytes_come_back() {
        let weights = sample();
        let bytes = weights.to_bytes();
        assert_eq!(&bytes[..16], b"TSRALSTM\x01\0\0\0\x05\0\x04\0");
        assert_eq!(Weights::from_bytes(&bytes), Ok(weights));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = sample().to_bytes();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(Weights::from_bytes(&damaged).is_err(), "flip at {at}");
            assert!(Weights::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(Weights::from_bytes(&longer), Err(LayoutError::Length { .. })));
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_good_checksum() {
        let reseal = |mut bytes: Vec<u8>| {
            let body = bytes.len() - 4;
            let crc = crc(&bytes[..body]).to_le_bytes();
            bytes[body..].copy_from_slice(&crc);
            Weights::from_bytes(&bytes)
        };
        let mut newer = sample().to_bytes();
        newer[8] = 2;
        assert_eq!(reseal(newer), Err(LayoutError::Version(2)));
        let mut twice = sample().to_bytes();
        twice.copy_within(24..32, 32);
        assert_eq!(reseal(twice), Err(LayoutError::Shape));
        let mut nan = sample().to_bytes();
        nan[48..52].copy_from_slice(&f32::NAN.to_le_bytes());
        assert_eq!(reseal(nan), Err(LayoutError::NotFinite));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), real: bool) {
            if real && bytes.len() >= 12 {
                bytes[..8].copy_from_slice(MAGIC);
                bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
            }
            prop_assert!(Weights::from_bytes(&bytes).is_err());
        }
    }
}
