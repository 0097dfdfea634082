//! Sizes as people write them.

use serde::{Deserialize, Serialize};

/// Why a text is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a number with a known unit.
    #[error("expected a size such as 4096, \"512MiB\" or \"8GiB\"")]
    Malformed,
    /// Above 2^63.
    #[error("the size is too large")]
    TooLarge,
}

/// Parses a number of bytes: digits, then nothing, `B`, a binary unit (`K`,
/// `KiB`, … `P`, `PiB`: powers of 1024) or a decimal one (`KB` … `PB`: powers
/// of 1000). Case is ignored, and so is space between number and unit.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(SizeError::Malformed);
    }
    let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let (prefix, base) = match unit.strip_suffix("ib") {
        Some(prefix) => (prefix, 1024_u64),
        None => match unit.strip_suffix('b') {
            Some(prefix) => (prefix, 1000),
            None => (unit.as_str(), 1024),
        },
    };
    let power = match prefix {
        "" if base == 1024 && !unit.is_empty() => return Err(SizeError::Malformed),
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(SizeError::Malformed),
    };
    number.checked_mul(base.pow(power)).filter(|&bytes| bytes <= 1 << 63).ok_or(SizeError::TooLarge)
}

/// Writes bytes with the largest binary unit that is exact: 1536 MiB is `1536MiB`.
pub fn exact_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// A number of bytes in a configuration file: an integer or a text such as `"8GiB"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub struct ByteSize(u64);

impl ByteSize {
    /// From bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a size such as 4096, \"512MiB\" or \"8GiB\"")]
enum Written {
    Bytes(u64),
    Text(String),
}

impl TryFrom<Written> for ByteSize {
    type Error = SizeError;

    fn try_from(written: Written) -> Result<Self, SizeError> {
        match written {
            Written::Bytes(bytes) => Ok(Self(bytes)),
            Written::Text(text) => parse_size(&text).map(Self),
        }
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> String {
        exact_size(size.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("512B", 512),
            ("1k", 1 << 10),
            ("64KiB", 64 << 10),
            (" 8 GiB ", 8 << 30),
            ("8gib", 8 << 30),
            ("2T", 2 << 40),
            ("1PiB", 1 << 50),
            ("3MB", 3_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        use SizeError::{Malformed, TooLarge};
        for (text, error) in [
            ("", Malformed),
            ("GiB", Malformed),
            ("-1", Malformed),
            ("1.5GiB", Malformed),
            ("8 bananas", Malformed),
            ("8iB", Malformed),
            ("8GiBGiB", Malformed),
            ("99999999999999999999", TooLarge),
            ("9000PiB", TooLarge),
        ] {
            assert_eq!(parse_size(text), Err(error), "{text}");
        }
    }

    #[test]
    fn exact_sizes_parse_back() {
        for bytes in [0, 1, 1023, 1024, 1536, 1 << 20, 3 << 29, 5 << 40, (1 << 40) + 512] {
            assert_eq!(parse_size(&exact_size(bytes)), Ok(bytes));
        }
        assert_eq!(exact_size(3 << 29), "1536MiB");
    }
}
