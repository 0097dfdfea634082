//! Features and asynchronous events (Base 5.2, 5.15, 5.27).

use crate::entry::SubmissionEntry;

/// FID: which feature (Base figure "Feature Identifiers").
pub mod fid {
    /// Arbitration.
    pub const ARBITRATION: u8 = 0x01;
    /// Power management.
    pub const POWER: u8 = 0x02;
    /// Temperature threshold.
    pub const TEMPERATURE: u8 = 0x04;
    /// Error recovery.
    pub const ERROR_RECOVERY: u8 = 0x05;
    /// Volatile write cache.
    pub const WRITE_CACHE: u8 = 0x06;
    /// Number of queues.
    pub const QUEUES: u8 = 0x07;
    /// Interrupt coalescing.
    pub const COALESCING: u8 = 0x08;
    /// Interrupt vector configuration.
    pub const INTERRUPT: u8 = 0x09;
    /// Write atomicity normal.
    pub const WRITE_ATOMICITY: u8 = 0x0a;
    /// Asynchronous event configuration.
    pub const EVENTS: u8 = 0x0b;
    /// Timestamp.
    pub const TIMESTAMP: u8 = 0x0e;
    /// Keep alive timer.
    pub const KEEP_ALIVE: u8 = 0x0f;
    /// Host behavior support.
    pub const HOST_BEHAVIOR: u8 = 0x16;
    /// Host identifier.
    pub const HOST_ID: u8 = 0x81;
    /// Reservation notification mask.
    pub const RESERVATION_MASK: u8 = 0x82;
    /// Reservation persistence.
    pub const RESERVATION_PERSISTENCE: u8 = 0x83;
}

/// SEL: which value Get Features wants (Base 5.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// In force.
    Current,
    /// From the maker.
    Default,
    /// Kept across power cycles.
    Saved,
    /// What the feature supports.
    Capabilities,
}

/// What Get and Set Features name (CDW10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureRequest {
    /// See [`fid`].
    pub fid: u8,
    /// Get: which value; `None` if reserved.
    pub select: Option<Select>,
    /// Set: keep it across power cycles.
    pub save: bool,
}

impl FeatureRequest {
    /// From the command.
    pub fn from_entry(entry: &SubmissionEntry) -> Self {
        let dw10 = entry.cdw10[0].get();
        let [fid, sel, ..] = dw10.to_le_bytes();
        let select = match sel & 0b111 {
            0 => Some(Select::Current),
            1 => Some(Select::Default),
            2 => Some(Select::Saved),
            3 => Some(Select::Capabilities),
            _ => None,
        };
        Self { fid, select, save: dw10 >> 31 == 1 }
    }
}

/// What a feature supports: DW0 of Get Features with [`Select::Capabilities`].
pub mod capability {
    /// Can be saved.
    pub const SAVEABLE: u32 = 1;
    /// Each namespace has its own.
    pub const NAMESPACE: u32 = 1 << 1;
    /// Can be changed.
    pub const CHANGEABLE: u32 = 1 << 2;
}

/// Events that a controller sends unasked (Base 5.2): what to enable with feature 0Bh, and
/// in OAES, has the same bits.
pub mod event_bits {
    /// SMART critical warnings.
    pub const SMART: u32 = 0xff;
    /// A namespace was added, removed or changed.
    pub const NAMESPACE: u32 = 1 << 8;
    /// Firmware activation.
    pub const FIRMWARE: u32 = 1 << 9;
    /// An ANA group changed.
    pub const ANA: u32 = 1 << 11;
    /// The discovery log changed.
    pub const DISCOVERY: u32 = 1 << 31;
}

/// An asynchronous event: type 2:0, information 15:8, log page 23:16 of DW0 (Base 5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Namespace attribute changed; read log 04h.
    NamespaceChanged,
    /// ANA change; read log 0Ch.
    AnaChanged,
    /// Discovery log changed; read log 70h.
    DiscoveryChanged,
}

impl Event {
    /// All that there are.
    pub const ALL: [Event; 3] = [Self::NamespaceChanged, Self::AnaChanged, Self::DiscoveryChanged];

    /// The bit of feature 0Bh that enables it.
    pub const fn bit(self) -> u32 {
        match self {
            Self::NamespaceChanged => event_bits::NAMESPACE,
            Self::AnaChanged => event_bits::ANA,
            Self::DiscoveryChanged => event_bits::DISCOVERY,
        }
    }

    /// The log page that says more, and whose reading arms it again.
    pub const fn log(self) -> u8 {
        match self {
            Self::NamespaceChanged => crate::log::lid::CHANGED_NAMESPACES,
            Self::AnaChanged => crate::log::lid::ANA,
            Self::DiscoveryChanged => crate::log::lid::DISCOVERY,
        }
    }

    /// DW0 of the Asynchronous Event Request's completion.
    pub const fn result(self) -> u32 {
        const NOTICE: u32 = 2;
        let information = match self {
            Self::NamespaceChanged => 0x00,
            Self::AnaChanged => 0x03,
            Self::DiscoveryChanged => 0xf0,
        };
        NOTICE | information << 8 | (self.log() as u32) << 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_named_in_the_first_double_word() {
        let entry = |dw10: u32| SubmissionEntry {
            cdw10: [dw10.into(), 0.into(), 0.into(), 0.into(), 0.into(), 0.into()],
            ..Default::default()
        };
        let get = FeatureRequest::from_entry(&entry(0x0000_030b));
        assert_eq!((get.fid, get.select, get.save), (0x0b, Some(Select::Capabilities), false));
        let set = FeatureRequest::from_entry(&entry(0x8000_0007));
        assert_eq!((set.fid, set.save), (fid::QUEUES, true));
        assert_eq!(FeatureRequest::from_entry(&entry(0x0000_0401)).select, None);
    }

    #[test]
    fn events_are_what_hosts_know() {
        assert_eq!(Event::NamespaceChanged.result(), 0x0004_0002);
        assert_eq!(Event::AnaChanged.result(), 0x000c_0302);
        assert_eq!(Event::DiscoveryChanged.result(), 0x0070_f002);
    }
}
