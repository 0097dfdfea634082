//! Commands as the caller gives them: without identifier and data pointer, which are the
//! queue's to fill in.

use zerocopy::little_endian::U32;

use super::memory::Data;
use crate::SubmissionEntry;
use crate::code::{admin, nvm};
use crate::entry::FUA;

/// A command and its data.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Everything but CID, PSDT and data pointer.
    pub entry: SubmissionEntry,
    /// What is transferred.
    pub data: Data,
}

/// CDW11 of Dataset Management: deallocate.
const DEALLOCATE: u32 = 1 << 2;

fn halves(lba: u64) -> [U32; 2] {
    let [a, b, c, d, e, f, g, h] = lba.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]).into(), u32::from_le_bytes([e, f, g, h]).into()]
}

impl Command {
    /// Of this opcode to a namespace, without data.
    pub fn plain(opcode: u8, nsid: u32) -> Command {
        let entry = SubmissionEntry { opcode, nsid: nsid.into(), ..SubmissionEntry::default() };
        Command { entry, data: Data::None }
    }

    /// On a range of blocks (NVM 3.2: CDW10 to CDW12).
    fn ranged(opcode: u8, nsid: u32, lba: u64, blocks: u32, bits: u32, data: Data) -> Command {
        assert!((1..=1 << 16).contains(&blocks), "the field counts blocks from zero in 16 bits");
        let mut command = Command { data, ..Command::plain(opcode, nsid) };
        let [low, high] = halves(lba);
        command.entry.cdw10[0] = low;
        command.entry.cdw10[1] = high;
        command.entry.cdw10[2] = (bits | (blocks - 1)).into();
        command
    }

    /// Reads `blocks` from `lba` on, `bytes` in all.
    ///
    /// # Panics
    /// If there is no block, or more than 65,536; so do all that have a range.
    pub fn read(nsid: u32, lba: u64, blocks: u32, bytes: u32) -> Command {
        Self::ranged(nvm::READ, nsid, lba, blocks, 0, Data::In(bytes))
    }

    /// Writes `blocks` from `lba` on, `bytes` in all; durable before the completion if `fua`.
    pub fn write(nsid: u32, lba: u64, blocks: u32, bytes: u32, fua: bool) -> Command {
        let bits = if fua { FUA } else { 0 };
        Self::ranged(nvm::WRITE, nsid, lba, blocks, bits, Data::Out(bytes))
    }

    /// Compares `blocks` from `lba` on with `bytes` sent.
    pub fn compare(nsid: u32, lba: u64, blocks: u32, bytes: u32) -> Command {
        Self::ranged(nvm::COMPARE, nsid, lba, blocks, 0, Data::Out(bytes))
    }

    /// Makes `blocks` from `lba` on read as zeros.
    pub fn write_zeroes(nsid: u32, lba: u64, blocks: u32) -> Command {
        Self::ranged(nvm::WRITE_ZEROES, nsid, lba, blocks, 0, Data::None)
    }

    /// Makes durable what was written.
    pub fn flush(nsid: u32) -> Command {
        Self::plain(nvm::FLUSH, nsid)
    }

    /// Deallocates `ranges` ranges, sent as [`crate::entry::DsmRange`]s.
    ///
    /// # Panics
    /// If there is no range, or more than 256.
    pub fn deallocate(nsid: u32, ranges: u32) -> Command {
        assert!((1..=256).contains(&ranges), "the field counts ranges from zero in 8 bits");
        let data = Data::Out(16 * ranges);
        let mut command = Command { data, ..Self::plain(nvm::DATASET_MANAGEMENT, nsid) };
        command.entry.cdw10[0] = (ranges - 1).into();
        command.entry.cdw10[1] = DEALLOCATE.into();
        command
    }

    /// Identify (Base 5.17): CNS and NSID.
    pub(super) fn identify(cns: u8, nsid: u32) -> Command {
        let mut command = Self::plain(admin::IDENTIFY, nsid);
        command.entry.cdw10[0] = u32::from(cns).into();
        command.data = Data::In(4096);
        command
    }

    /// Set Features (Base 5.27): FID and CDW11.
    pub(super) fn set_feature(fid: u8, value: u32) -> Command {
        let mut command = Self::plain(admin::SET_FEATURES, 0);
        command.entry.cdw10[0] = u32::from(fid).into();
        command.entry.cdw10[1] = value.into();
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_say_what_the_target_reads() {
        let read = Command::read(7, 0x1_0000_0002, 8, 4096).entry;
        assert_eq!((read.opcode, read.nsid.get()), (nvm::READ, 7));
        assert_eq!((read.start_lba(), read.block_count(), read.fua()), (0x1_0000_0002, 8, false));
        let write = Command::write(1, 0, 1 << 16, 0, true).entry;
        assert_eq!((write.block_count(), write.fua()), (1 << 16, true));
        let trim = Command::deallocate(1, 256);
        assert_eq!(trim.data, Data::Out(4096));
        assert_eq!((trim.entry.dsm_ranges(), trim.entry.dsm_deallocate()), (256, true));
    }
}
