//! Queue entries: 64 bytes in, 16 bytes out.
//!
//! ```text
//! submission (Base 3.3.3.1)                completion (Base 3.3.3.2)
//!  0  opcode                                0  DW0: command specific result
//!  1  fused (1:0), PSDT (7:6)               4  DW1
//!  2  command identifier                    8  submission queue head
//!  4  namespace identifier                 10  submission queue identifier
//!  8  CDW2, CDW3                           12  command identifier
//! 16  metadata pointer                     14  phase tag (0), status (15:1)
//! 24  data pointer: PRP1, PRP2 or SGL1
//! 40  CDW10 … CDW15
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian};

use crate::code::Status;
use crate::sgl::SglDescriptor;

/// Force Unit Access (NVM 3.2: CDW12 bit 30).
pub const FUA: u32 = 1 << 30;
/// Deallocate, of a Write Zeroes (NVM 3.2.8: CDW12 bit 25).
pub const DEAC: u32 = 1 << 25;

/// A command on a submission queue (Base 3.3.3.1, figure "Common Command Format").
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SubmissionEntry {
    /// Opcode; see [`crate::code`].
    pub opcode: u8,
    /// Bits 1:0 fused operation, 7:6 PSDT: how the data pointer is to be read.
    pub flags: u8,
    /// Command identifier, unique among those outstanding on the queue.
    pub cid: little_endian::U16,
    /// Namespace identifier.
    pub nsid: little_endian::U32,
    /// CDW2 and CDW3, command specific.
    pub cdw2: [little_endian::U32; 2],
    /// Metadata pointer.
    pub mptr: little_endian::U64,
    /// PRP entries 1 and 2, or one SGL descriptor.
    pub dptr: [little_endian::U64; 2],
    /// CDW10 to CDW15, command specific.
    pub cdw10: [little_endian::U32; 6],
}

/// Place of a command in a fused operation: bits 1:0 of [`SubmissionEntry::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fuse {
    /// A command of its own.
    Normal,
    /// First of two.
    First,
    /// Second of two.
    Second,
    /// The reserved value.
    Reserved,
}

/// A range of a Dataset Management command (NVM 3.2.3, figure "Range Definition").
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DsmRange {
    /// Context attributes: hints.
    pub attributes: little_endian::U32,
    /// Length in blocks; not counted from zero.
    pub blocks: little_endian::U32,
    /// First block.
    pub start_lba: little_endian::U64,
}

/// Most ranges of a Dataset Management command: the field has eight bits, counted from zero.
pub const MAX_DSM_RANGES: usize = 256;

/// A completion (Base 3.3.3.2, figure "Common Completion Queue Entry Layout").
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CompletionEntry {
    /// Command specific result.
    pub result: little_endian::U64,
    /// How far the controller has read the submission queue.
    pub sq_head: little_endian::U16,
    /// The submission queue; reserved over fabrics.
    pub sq_id: little_endian::U16,
    /// The command that is complete.
    pub cid: little_endian::U16,
    /// Bit 0 the phase tag (reserved over fabrics), bits 15:1 the [`Status`].
    pub status_and_phase: little_endian::U16,
}

const _: () = assert!(size_of::<SubmissionEntry>() == 64);
const _: () = assert!(size_of::<CompletionEntry>() == 16);
const _: () = assert!(size_of::<DsmRange>() == 16);

impl SubmissionEntry {
    /// First block of a read, write, compare, … (NVM 3.2: CDW10 and CDW11).
    pub fn start_lba(&self) -> u64 {
        u64::from(self.cdw10[1].get()) << 32 | u64::from(self.cdw10[0].get())
    }

    /// Blocks of a read, write, …: the field counts from zero (NVM 3.2: CDW12 bits 15:0).
    pub fn block_count(&self) -> u32 {
        (self.cdw10[2].get() & 0xffff) + 1
    }

    /// [`FUA`] of a read or write.
    pub fn fua(&self) -> bool {
        self.cdw10[2].get() & FUA != 0
    }

    /// [`DEAC`] of a Write Zeroes: the range need not keep space.
    pub fn deac(&self) -> bool {
        self.cdw10[2].get() & DEAC != 0
    }

    /// Ranges of a Dataset Management; the field counts from zero (NVM 3.2.3: CDW10 bits 7:0).
    pub fn dsm_ranges(&self) -> usize {
        usize::from(self.cdw10[0].get().to_le_bytes()[0]) + 1
    }

    /// Deallocate, of a Dataset Management (NVM 3.2.3: CDW11 bit 2).
    pub fn dsm_deallocate(&self) -> bool {
        self.cdw10[1].get() >> 2 & 1 == 1
    }

    /// Its place in a fused operation.
    pub fn fuse(&self) -> Fuse {
        match self.flags & 0b11 {
            0 => Fuse::Normal,
            1 => Fuse::First,
            2 => Fuse::Second,
            _ => Fuse::Reserved,
        }
    }

    /// PSDT says that an SGL transfers the data, and that metadata is contiguous: the only
    /// value that fabrics use (Base 3.3.3.1).
    pub fn uses_sgl(&self) -> bool {
        self.flags >> 6 == 0b01
    }

    /// The data pointer as an SGL descriptor.
    pub fn sgl(&self) -> SglDescriptor {
        zerocopy::transmute!(self.dptr)
    }

    /// Sets the data pointer and PSDT.
    pub fn set_sgl(&mut self, sgl: SglDescriptor) {
        self.dptr = zerocopy::transmute!(sgl);
        self.flags = self.flags & 0b11 | 0b01 << 6;
    }
}

impl CompletionEntry {
    /// A completion of `cid` without a phase, as fabrics send it.
    pub fn new(cid: u16, sq_head: u16, status: Status) -> Self {
        Self {
            sq_head: sq_head.into(),
            cid: cid.into(),
            status_and_phase: (status.to_bits() << 1).into(),
            ..Self::default()
        }
    }

    /// The status.
    pub fn status(&self) -> Status {
        Status::from_bits(self.status_and_phase.get() >> 1)
    }

    /// The phase tag: it flips with every pass through the queue.
    pub fn phase(&self) -> bool {
        self.status_and_phase.get() & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_command_decodes_from_its_bytes() {
        let mut bytes = [0; 64];
        bytes[0] = 0x02;
        bytes[1] = 0x40;
        bytes[2..4].copy_from_slice(&[0x34, 0x12]);
        bytes[40..48].copy_from_slice(&0x0102_0304_0506_0708_u64.to_le_bytes());
        bytes[48..52].copy_from_slice(&0x4000_0007_u32.to_le_bytes());
        let entry = SubmissionEntry::read_from_bytes(&bytes).unwrap();
        assert_eq!((entry.opcode, entry.cid.get()), (crate::code::nvm::READ, 0x1234));
        assert_eq!(entry.start_lba(), 0x0102_0304_0506_0708);
        assert_eq!((entry.block_count(), entry.fua()), (8, true));
        assert_eq!(entry.as_bytes(), bytes);
    }

    #[test]
    fn flags_and_fields_of_other_commands_decode() {
        let mut entry = SubmissionEntry::default();
        entry.set_sgl(SglDescriptor::in_capsule(4096));
        assert_eq!((entry.flags, entry.fuse(), entry.uses_sgl()), (0x40, Fuse::Normal, true));
        assert_eq!(entry.as_bytes()[24..40], *SglDescriptor::in_capsule(4096).as_bytes());
        for (flags, fuse) in [(1, Fuse::First), (0x42, Fuse::Second), (3, Fuse::Reserved)] {
            entry.flags = flags;
            assert_eq!(entry.fuse(), fuse);
            assert_eq!(entry.uses_sgl(), flags == 0x42);
        }
        entry.cdw10[0] = 0xffff_ff07.into();
        entry.cdw10[1] = 0b100.into();
        entry.cdw10[2] = (DEAC | 1).into();
        assert_eq!((entry.dsm_ranges(), entry.dsm_deallocate()), (8, true));
        assert_eq!((entry.deac(), entry.fua(), entry.block_count()), (true, false, 2));
    }

    #[test]
    fn completions_carry_status_and_phase_apart() {
        let mut entry = CompletionEntry::new(7, 9, Status::INVALID_FIELD.with_dnr());
        assert_eq!(entry.as_bytes()[12..], [7, 0, 0x04, 0x80]);
        assert!(!entry.phase());
        entry.status_and_phase = (entry.status_and_phase.get() | 1).into();
        assert!(entry.phase());
        assert_eq!(entry.status(), Status::INVALID_FIELD.with_dnr());
    }
}
