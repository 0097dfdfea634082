//! Digests: CRC-32C over a header, or over the data of a PDU (TCP 3.4.1.1, 3.4.1.2).

use crc_fast::{CrcAlgorithm, checksum};

/// Bytes of a digest on the wire.
pub const DIGEST_BYTES: usize = 4;

/// CRC-32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, bytes)).expect("a 32-bit CRC")
}

/// A digest of data that come in several parts.
#[derive(Clone, Copy, Debug)]
pub struct Digest(crc_fast::Digest);

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

impl Digest {
    /// Of no bytes.
    pub fn new() -> Self {
        Self(crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Continues with `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes so far.
    pub fn value(&self) -> u32 {
        u32::try_from(self.0.finalize()).expect("a 32-bit CRC")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let mut digest = Digest::new();
        for part in [&b""[..], b"1234", b"5", b"6789"] {
            digest.update(part);
        }
        assert_eq!(digest.value(), 0xe306_9283);
        assert_eq!(Digest::new().value(), 0);
    }
}
