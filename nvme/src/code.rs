//! Numbers: opcodes, and the status of a completion.

macro_rules! codes {
    ($($name:ident = $value:literal, $doc:literal;)*) => {
        $(#[doc = $doc] pub const $name: u8 = $value;)*
    };
}

/// Admin commands (Base 5).
pub mod admin {
    codes! {
        DELETE_SQ = 0x00, "Delete I/O Submission Queue.";
        CREATE_SQ = 0x01, "Create I/O Submission Queue.";
        GET_LOG_PAGE = 0x02, "Get Log Page.";
        DELETE_CQ = 0x04, "Delete I/O Completion Queue.";
        CREATE_CQ = 0x05, "Create I/O Completion Queue.";
        IDENTIFY = 0x06, "Identify.";
        ABORT = 0x08, "Abort.";
        SET_FEATURES = 0x09, "Set Features.";
        GET_FEATURES = 0x0a, "Get Features.";
        ASYNC_EVENT_REQUEST = 0x0c, "Asynchronous Event Request.";
        KEEP_ALIVE = 0x18, "Keep Alive.";
        FABRICS = 0x7f, "Fabrics commands; the fifth byte is FCTYPE, see [`super::fabrics`].";
    }
}

/// I/O commands (Base 7, NVM 3.2).
pub mod nvm {
    codes! {
        FLUSH = 0x00, "Flush.";
        WRITE = 0x01, "Write.";
        READ = 0x02, "Read.";
        COMPARE = 0x05, "Compare.";
        WRITE_ZEROES = 0x08, "Write Zeroes.";
        DATASET_MANAGEMENT = 0x09, "Dataset Management, which deallocates.";
    }
}

/// Types of fabrics commands: FCTYPE (Base 6).
pub mod fabrics {
    codes! {
        PROPERTY_SET = 0x00, "Property Set.";
        CONNECT = 0x01, "Connect.";
        PROPERTY_GET = 0x04, "Property Get.";
        AUTHENTICATION_SEND = 0x05, "Authentication Send.";
        AUTHENTICATION_RECEIVE = 0x06, "Authentication Receive.";
    }
}

/// Status code types (Base 3.3.3.2.1.1): what the code belongs to.
pub mod sct {
    codes! {
        GENERIC = 0, "Generic command status.";
        COMMAND_SPECIFIC = 1, "Command specific status.";
        MEDIA = 2, "Media and data integrity errors.";
        PATH = 3, "Path related status.";
    }
}

/// The status field of a completion without its phase tag (Base 3.3.3.2.1):
/// SC 7:0, SCT 10:8, CRD 12:11, M 13, DNR 14. Bit 15 is always zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(u16);

const DNR: u16 = 1 << 14;

macro_rules! statuses {
    ($($name:ident = $sct:path, $sc:literal, $doc:literal;)*) => {
        impl Status {
            $(#[doc = $doc] pub const $name: Status = Status::new($sct, $sc);)*
        }
    };
}

statuses! {
    SUCCESS = sct::GENERIC, 0x00, "Successful completion.";
    INVALID_OPCODE = sct::GENERIC, 0x01, "Invalid command opcode.";
    INVALID_FIELD = sct::GENERIC, 0x02, "Invalid field in command.";
    CID_CONFLICT = sct::GENERIC, 0x03, "Command ID conflict.";
    DATA_TRANSFER_ERROR = sct::GENERIC, 0x04, "Data transfer error.";
    INTERNAL = sct::GENERIC, 0x06, "Internal error.";
    ABORT_REQUESTED = sct::GENERIC, 0x07, "Command abort requested.";
    ABORTED_SQ_DELETION = sct::GENERIC, 0x08, "Command aborted due to SQ deletion.";
    ABORTED_FAILED_FUSED = sct::GENERIC, 0x09, "Command aborted due to failed fused command.";
    ABORTED_MISSING_FUSED = sct::GENERIC, 0x0a, "Command aborted due to missing fused command.";
    INVALID_NAMESPACE = sct::GENERIC, 0x0b, "Invalid namespace or format.";
    SGL_LENGTH_INVALID = sct::GENERIC, 0x0f, "Data SGL length invalid.";
    SGL_TYPE_INVALID = sct::GENERIC, 0x11, "SGL descriptor type invalid.";
    ATOMIC_WRITE_UNIT_EXCEEDED = sct::GENERIC, 0x14, "Atomic write unit exceeded.";
    SGL_OFFSET_INVALID = sct::GENERIC, 0x16, "SGL offset invalid.";
    WRITE_PROTECTED = sct::GENERIC, 0x20, "Namespace is write protected.";
    TRANSIENT_TRANSPORT_ERROR = sct::GENERIC, 0x22, "Transient transport error: data digests differ.";
    LBA_OUT_OF_RANGE = sct::GENERIC, 0x80, "LBA out of range.";
    CAPACITY_EXCEEDED = sct::GENERIC, 0x81, "Capacity exceeded.";
    WRITE_TO_READ_ONLY = sct::COMMAND_SPECIFIC, 0x82, "Attempted write to read only range.";
    WRITE_FAULT = sct::MEDIA, 0x80, "Write fault.";
    UNRECOVERED_READ = sct::MEDIA, 0x81, "Unrecovered read error.";
    COMPARE_FAILURE = sct::MEDIA, 0x85, "Compare failure.";
    COMMAND_SEQUENCE = sct::GENERIC, 0x0c, "Command sequence error.";
    KEEP_ALIVE_EXPIRED = sct::GENERIC, 0x19, "Keep alive timeout expired.";
    KEEP_ALIVE_INVALID = sct::GENERIC, 0x1a, "Keep alive timeout invalid.";
    INVALID_QUEUE = sct::COMMAND_SPECIFIC, 0x01, "Invalid queue identifier.";
    ABORT_LIMIT = sct::COMMAND_SPECIFIC, 0x03, "Abort command limit exceeded.";
    EVENT_LIMIT = sct::COMMAND_SPECIFIC, 0x05, "Asynchronous event request limit exceeded.";
    INVALID_LOG_PAGE = sct::COMMAND_SPECIFIC, 0x09, "Invalid log page.";
    NOT_SAVEABLE = sct::COMMAND_SPECIFIC, 0x0d, "Feature identifier not saveable.";
    NOT_CHANGEABLE = sct::COMMAND_SPECIFIC, 0x0e, "Feature not changeable.";
    NOT_BY_NAMESPACE = sct::COMMAND_SPECIFIC, 0x0f, "Feature not namespace specific.";
    COMMAND_SIZE_LIMIT_EXCEEDED = sct::COMMAND_SPECIFIC, 0x83, "Command size limit exceeded: Dataset Management (NVM 3.2.3).";
    CONNECT_FORMAT = sct::COMMAND_SPECIFIC, 0x80, "Connect: incompatible format.";
    CONNECT_BUSY = sct::COMMAND_SPECIFIC, 0x81, "Connect: controller busy.";
    CONNECT_PARAMETERS = sct::COMMAND_SPECIFIC, 0x82, "Connect: invalid parameters.";
    CONNECT_HOST = sct::COMMAND_SPECIFIC, 0x84, "Connect: invalid host.";
    AUTHENTICATION_REQUIRED = sct::COMMAND_SPECIFIC, 0x91, "Authentication required.";
    ANA_PERSISTENT_LOSS = sct::PATH, 0x01, "Asymmetric access persistent loss.";
    ANA_INACCESSIBLE = sct::PATH, 0x02, "Asymmetric access inaccessible.";
    ANA_TRANSITION = sct::PATH, 0x03, "Asymmetric access transition.";
}

impl Status {
    /// A code of a type; retries are allowed.
    ///
    /// # Panics
    /// If `sct` exceeds its three bits.
    pub const fn new(sct: u8, sc: u8) -> Self {
        assert!(sct < 8, "a status code type has three bits");
        Self((sct as u16) << 8 | sc as u16)
    }

    /// From the 15 bits of the field; the caller has shifted the phase tag out.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & 0x7fff)
    }

    /// The 15 bits of the field.
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// The same with Do Not Retry: repeating the command cannot succeed.
    #[must_use]
    pub const fn with_dnr(self) -> Self {
        Self(self.0 | DNR)
    }

    /// Do Not Retry.
    pub const fn dnr(self) -> bool {
        self.0 & DNR != 0
    }

    /// Status code.
    pub const fn sc(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    /// Status code type; see [`sct`].
    pub const fn sct(self) -> u8 {
        self.0.to_le_bytes()[1] & 0b111
    }

    /// Type and code alone are those of success.
    pub const fn is_success(self) -> bool {
        self.sct() == sct::GENERIC && self.sc() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_where_the_figure_has_them() {
        for (bits, sct, sc, dnr) in [
            (0x0000, 0, 0x00, false),
            (0x4002, 0, 0x02, true),
            (0x0281, 2, 0x81, false),
            (0x7fff, 7, 0xff, true),
            (0x2302, 3, 0x02, false),
        ] {
            let status = Status::from_bits(bits);
            assert_eq!((status.sct(), status.sc(), status.dnr()), (sct, sc, dnr), "{bits:#06x}");
            assert_eq!(status.to_bits(), bits);
        }
        assert!(Status::SUCCESS.is_success() && !Status::UNRECOVERED_READ.is_success());
        assert_eq!(Status::from_bits(0xffff).to_bits(), 0x7fff);
    }
}
