//! Properties of a controller: the registers of a PCIe device, and what Property
//! Get and Set reach over fabrics (Base 3.1.3).

/// Where a property stands.
pub mod offset {
    /// Controller Capabilities, 8 bytes.
    pub const CAP: u32 = 0x00;
    /// Version.
    pub const VS: u32 = 0x08;
    /// Controller Configuration.
    pub const CC: u32 = 0x14;
    /// Controller Status.
    pub const CSTS: u32 = 0x1c;
    /// NVM Subsystem Reset.
    pub const NSSR: u32 = 0x20;
    /// Controller Ready Timeouts.
    pub const CRTO: u32 = 0x68;
}

/// Version 2.0.0 as VS and Identify Controller have it (Base 3.1.3.2).
pub const VERSION_2_0: u32 = 0x0002_0000;

/// CAP (Base 3.1.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// A fabrics controller for the NVM command set and 4 KiB pages: queues of at most
    /// `queue_entries`, ready with its media after at most `ready_500ms` units.
    ///
    /// # Panics
    /// If queues would have fewer than two entries.
    pub const fn fabrics(queue_entries: u16, ready_500ms: u8) -> Self {
        assert!(queue_entries >= 2, "the least size of a queue");
        const CQR: u64 = 1 << 16;
        const CSS_NVM: u64 = 1 << 37;
        const CRWMS: u64 = 1 << 59;
        let mqes = (queue_entries - 1) as u64;
        Self(mqes | CQR | (ready_500ms as u64) << 24 | CSS_NVM | CRWMS)
    }

    /// From the property's value.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The property's value.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Maximum Queue Entries Supported, counted from zero.
    pub const fn mqes(self) -> u16 {
        let [low, high, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// Longest time until ready, in units of 500 ms.
    pub const fn timeout_500ms(self) -> u8 {
        self.0.to_le_bytes()[3]
    }

    /// The NVM command set is supported.
    pub const fn nvm_command_set(self) -> bool {
        self.0 >> 37 & 1 == 1
    }

    /// log2 of the smallest page, less 12.
    pub const fn mps_min(self) -> u8 {
        self.0.to_le_bytes()[6] & 0xf
    }

    /// log2 of the largest page, less 12.
    pub const fn mps_max(self) -> u8 {
        self.0.to_le_bytes()[6] >> 4
    }

    /// CRTO says how long readiness with media takes.
    pub const fn ready_with_media(self) -> bool {
        self.0 >> 59 & 1 == 1
    }
}

/// What a host wants of a shutdown (CC.SHN, Base 3.1.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Nothing.
    None,
    /// In order.
    Normal,
    /// Power goes at once.
    Abrupt,
}

/// CC (Base 3.1.3.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Configuration(u32);

impl Configuration {
    /// Enabled with 64-byte and 16-byte entries, 4 KiB pages, round robin, the NVM command set.
    pub const ENABLED: Configuration = Configuration(1 | 6 << 16 | 4 << 20);
    /// Controller Ready Independent of Media Enable: reserved where CAP does not offer it.
    pub const CRIME: u32 = 1 << 24;

    /// From the property's value.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The property's value.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The same, enabled or not.
    #[must_use]
    pub const fn with_enable(self, enable: bool) -> Self {
        Self(self.0 & !1 | enable as u32)
    }

    /// The same, with a shutdown asked for.
    #[must_use]
    pub const fn with_shutdown(self, shutdown: Shutdown) -> Self {
        let shn = match shutdown {
            Shutdown::None => 0,
            Shutdown::Normal => 1,
            Shutdown::Abrupt => 2,
        };
        Self(self.0 & !(0b11 << 14) | shn << 14)
    }

    /// EN.
    pub const fn enabled(self) -> bool {
        self.0 & 1 == 1
    }

    /// CSS: the command sets chosen, 0 for NVM.
    pub const fn css(self) -> u32 {
        self.0 >> 4 & 0b111
    }

    /// MPS: log2 of the page size, less 12.
    pub const fn mps(self) -> u32 {
        self.0 >> 7 & 0xf
    }

    /// AMS: how queues are arbitrated, 0 for round robin.
    pub const fn ams(self) -> u32 {
        self.0 >> 11 & 0b111
    }

    /// SHN; the reserved value asks for nothing.
    pub const fn shutdown(self) -> Shutdown {
        match self.0 >> 14 & 0b11 {
            1 => Shutdown::Normal,
            2 => Shutdown::Abrupt,
            _ => Shutdown::None,
        }
    }

    /// IOSQES: log2 of a submission entry's bytes.
    pub const fn iosqes(self) -> u32 {
        self.0 >> 16 & 0xf
    }

    /// IOCQES: log2 of a completion entry's bytes.
    pub const fn iocqes(self) -> u32 {
        self.0 >> 20 & 0xf
    }
}

/// CSTS (Base 3.1.3.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControllerStatus(u32);

impl ControllerStatus {
    /// RDY: it takes commands.
    pub const RDY: u32 = 1;
    /// CFS: fatal; only a reset helps.
    pub const CFS: u32 = 1 << 1;
    /// SHST: a shutdown has ended.
    pub const SHST_COMPLETE: u32 = 0b10 << 2;
    /// SHST as a whole.
    pub const SHST: u32 = 0b11 << 2;

    /// From the property's value.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The property's value.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// RDY.
    pub const fn ready(self) -> bool {
        self.0 & Self::RDY != 0
    }

    /// CFS.
    pub const fn fatal(self) -> bool {
        self.0 & Self::CFS != 0
    }

    /// A shutdown has ended.
    pub const fn is_shut_down(self) -> bool {
        self.0 & Self::SHST == Self::SHST_COMPLETE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_stand_where_the_figure_has_them() {
        let cap = Capabilities::fabrics(128, 30);
        assert_eq!(cap.bits(), 0x0800_0020_1e01_007f);
        assert_eq!((cap.mqes(), cap.timeout_500ms()), (127, 30));
        assert!(cap.nvm_command_set() && cap.ready_with_media());
        let other = Capabilities::from_bits(0x42 << 48);
        assert_eq!((other.mps_min(), other.mps_max()), (2, 4));
    }

    #[test]
    fn the_configuration_that_hosts_write() {
        // What Linux enables a fabrics controller with.
        let cc = Configuration::from_bits(0x0046_0001);
        assert_eq!(cc, Configuration::ENABLED);
        assert!(cc.enabled());
        assert_eq!((cc.iosqes(), cc.iocqes(), cc.mps(), cc.ams(), cc.css()), (6, 4, 0, 0, 0));
        let odd = Configuration::from_bits(0b101 << 11 | 0b110 << 4 | 3 << 7);
        assert_eq!((odd.ams(), odd.css(), odd.mps()), (5, 6, 3));
    }

    #[test]
    fn shutdowns_are_named() {
        for (shn, wanted) in
            [(0, Shutdown::None), (1, Shutdown::Normal), (2, Shutdown::Abrupt), (3, Shutdown::None)]
        {
            assert_eq!(Configuration::from_bits(shn << 14).shutdown(), wanted);
        }
        let cc = Configuration::ENABLED.with_shutdown(Shutdown::Normal);
        assert_eq!(cc.bits(), 0x0046_4001);
        assert_eq!(cc.with_shutdown(Shutdown::None).with_enable(false).bits(), 0x0046_0000);
    }

    #[test]
    fn status_bits() {
        let status = ControllerStatus::from_bits(0b1011);
        assert!(status.ready() && status.fatal() && status.is_shut_down());
        assert!(!ControllerStatus::from_bits(0b0100).is_shut_down());
    }
}
