//! NVMe Qualified Names (Base 4.5).

use std::fmt;
use std::str::FromStr;

/// Most bytes of a name.
pub const MAX_NQN_BYTES: usize = 223;
/// The well-known name of every discovery service.
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// The name of a subsystem or a host: `nqn.yyyy-mm.reverse.domain:anything`, at most 223 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nqn(Box<str>);

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NqnError {
    /// Nothing there.
    #[error("an NQN is not empty")]
    Empty,
    /// Too long.
    #[error("an NQN has at most {MAX_NQN_BYTES} bytes")]
    TooLong,
    /// The field has no zero at its end.
    #[error("an NQN ends with a zero byte")]
    Unterminated,
    /// Not UTF-8.
    #[error("an NQN is UTF-8")]
    Encoding,
    /// The start is another.
    #[error("an NQN starts with nqn.yyyy-mm.")]
    Date,
    /// No reverse domain.
    #[error("an NQN has a reverse domain name behind its date: letters, digits, '-' and '.'")]
    Domain,
    /// Nothing behind the domain.
    #[error("an NQN has a ':' and a name behind its domain")]
    Name,
    /// Control characters or spaces at places that logs and command lines trip over.
    #[error("an NQN has no control characters and no white space")]
    Character,
}

impl Nqn {
    /// Checks a name.
    ///
    /// # Errors
    /// If it is none.
    pub fn new(text: &str) -> Result<Self, NqnError> {
        if text.is_empty() {
            return Err(NqnError::Empty);
        }
        if text.len() > MAX_NQN_BYTES {
            return Err(NqnError::TooLong);
        }
        if text != DISCOVERY_NQN {
            check(text)?;
        }
        Ok(Self(text.into()))
    }

    /// The discovery service's.
    pub fn discovery() -> Self {
        Self(DISCOVERY_NQN.into())
    }

    /// From a field of 256 bytes, padded with zeros.
    ///
    /// # Errors
    /// If the field holds no name.
    pub fn from_field(field: &[u8; 256]) -> Result<Self, NqnError> {
        let end = field.iter().position(|byte| *byte == 0).ok_or(NqnError::Unterminated)?;
        Self::new(std::str::from_utf8(&field[..end]).map_err(|_| NqnError::Encoding)?)
    }

    /// The name that a host has by its identifier, in the form for UUIDs (Base 4.5).
    pub fn of_host_id(host_id: [u8; 16]) -> Self {
        let digits = format!("{:032x}", u128::from_be_bytes(host_id));
        let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        Self(format!("nqn.2014-08.org.nvmexpress:uuid:{}", parts.join("-")).into())
    }

    /// The field of 256 bytes.
    pub fn to_field(&self) -> [u8; 256] {
        let mut field = [0; 256];
        field[..self.0.len()].copy_from_slice(self.0.as_bytes());
        field
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The well-known name of discovery.
    pub fn is_discovery(&self) -> bool {
        &*self.0 == DISCOVERY_NQN
    }
}

fn check(text: &str) -> Result<(), NqnError> {
    let rest = text.strip_prefix("nqn.").ok_or(NqnError::Date)?;
    let bytes = rest.as_bytes();
    let digits = |range: std::ops::Range<usize>| {
        bytes.get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    let month = bytes.get(5..7).unwrap_or_default();
    let dated = digits(0..4)
        && bytes.get(4) == Some(&b'-')
        && digits(5..7)
        && (b"01".as_slice()..=b"12").contains(&month)
        && bytes.get(7) == Some(&b'.');
    if !dated {
        return Err(NqnError::Date);
    }
    let (domain, name) = rest[8..].split_once(':').ok_or(NqnError::Name)?;
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if !domain.split('.').all(label) {
        return Err(NqnError::Domain);
    }
    if name.is_empty() {
        return Err(NqnError::Name);
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(NqnError::Character);
    }
    Ok(())
}

impl fmt::Display for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Nqn {
    type Err = NqnError;
    fn from_str(text: &str) -> Result<Self, NqnError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_hosts_and_targets_use() {
        for name in [
            "nqn.2026-11.example:v1",
            "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555",
            "nqn.2016-06.io.spdk:cnode1",
            "nqn.2014-08.com.example:nvme:nvm-subsystem-sn-d78432",
            "nqn.2019-12.a-b.c9:ä",
            DISCOVERY_NQN,
        ] {
            assert_eq!(Nqn::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_reason() {
        for (text, error) in [
            ("", NqnError::Empty),
            ("iqn.2026-11.example:v1", NqnError::Date),
            ("nqn.", NqnError::Date),
            ("nqn.2026-1.example:v1", NqnError::Date),
            ("nqn.2026-13.example:v1", NqnError::Date),
            ("nqn.2026-00.example:v1", NqnError::Date),
            ("nqn.2026-11example:v1", NqnError::Date),
            ("nqn.2026-11.example", NqnError::Name),
            ("nqn.2026-11.example:", NqnError::Name),
            ("nqn.2026-11.:v1", NqnError::Domain),
            ("nqn.2026-11.a..b:v1", NqnError::Domain),
            ("nqn.2026-11.a_b:v1", NqnError::Domain),
            ("nqn.2026-11.a:b\n", NqnError::Character),
            ("nqn.2026-11.a:b c", NqnError::Character),
        ] {
            assert_eq!(Nqn::new(text), Err(error), "{text:?}");
        }
        let long = format!("nqn.2026-11.example:{}", "x".repeat(203));
        assert_eq!(long.len(), MAX_NQN_BYTES);
        assert!(Nqn::new(&long).is_ok());
        assert_eq!(Nqn::new(&format!("{long}x")), Err(NqnError::TooLong));
    }

    #[test]
    fn an_identifier_makes_a_name() {
        let id = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes();
        let name = Nqn::of_host_id(id);
        let text = "nqn.2014-08.org.nvmexpress:uuid:00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!((name.as_str(), Nqn::new(text)), (text, Ok(name.clone())));
    }

    #[test]
    fn fields_are_terminated_utf8() {
        let name = Nqn::new("nqn.2026-11.example:v1").unwrap();
        assert_eq!(Nqn::from_field(&name.to_field()), Ok(name));
        assert_eq!(Nqn::from_field(&[b'n'; 256]), Err(NqnError::Unterminated));
        let mut field = [0; 256];
        field[0] = 0xff;
        assert_eq!(Nqn::from_field(&field), Err(NqnError::Encoding));
    }
}
