//! Every stored block against the checksum in its record.

use super::report::{Place, Report, What};
use crate::format::record::FragmentKey;
use crate::journal::io::PoolIo;
use crate::table::entry::SlotRef;
use crate::table::fragment::Fragment;
use crate::table::read::source;
use crate::units::{BLOCK_BYTES, Crc, crc32c};

/// Blocks read at once.
const RUN_BLOCKS: usize = 256;

/// Consecutive blocks of a fragment that lie consecutively on a device.
struct Run {
    /// First block in the fragment.
    first: usize,
    /// Where it is stored.
    stored: SlotRef,
    crcs: Vec<Crc>,
}

/// Reads all blocks of a fragment whose places have been checked.
pub(super) fn check_blocks(io: &mut dyn PoolIo, fragment: &Fragment, report: &mut Report) {
    let key = fragment.key;
    let mut run: Option<Run> = None;
    for number in 0..fragment.size.blocks() {
        let Some(stored) = source(fragment, number) else { continue };
        let stored = SlotRef { device: stored.device, block: stored.block };
        let (block, crc) = (number as usize, fragment.entry(number).crc);
        match &mut run {
            Some(run)
                if run.first + run.crcs.len() == block
                    && run.stored.device == stored.device
                    && run.stored.block + run.crcs.len() as u64 == stored.block
                    && run.crcs.len() < RUN_BLOCKS =>
            {
                run.crcs.push(crc);
            }
            _ => {
                let next = Run { first: block, stored, crcs: vec![crc] };
                if let Some(done) = run.replace(next) {
                    check_run(io, key, &done, report);
                }
            }
        }
    }
    if let Some(done) = run {
        check_run(io, key, &done, report);
    }
}

fn check_run(io: &mut dyn PoolIo, key: FragmentKey, run: &Run, report: &mut Report) {
    let place = |at: usize| Place::Block {
        volume: key.volume,
        block: u64::from(key.start) * 16 + (run.first + at) as u64,
        device: run.stored.device,
        stored: run.stored.block + at as u64,
    };
    let mut bytes = vec![0; run.crcs.len() * BLOCK_BYTES];
    match io.read(run.stored.device, run.stored.offset(0), &mut bytes) {
        Ok(()) => {}
        Err(error) if run.crcs.len() == 1 => return report.add(place(0), error.into()),
        // Block by block, so that the bad one is named and the others are still compared.
        Err(_) => {
            for (at, crc) in run.crcs.iter().enumerate() {
                let stored = SlotRef { block: run.stored.block + at as u64, ..run.stored };
                let one = Run { first: run.first + at, stored, crcs: vec![*crc] };
                check_run(io, key, &one, report);
            }
            return;
        }
    }
    for (at, (block, crc)) in bytes.chunks_exact(BLOCK_BYTES).zip(&run.crcs).enumerate() {
        report.blocks += 1;
        if crc32c(block) != *crc {
            report.add(place(at), What::Checksum);
        }
    }
}
