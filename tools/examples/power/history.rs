//! The values that each block had, and those that may be read after a power cut.

use std::collections::HashMap;

use crate::content::{BLOCK, BLOCK_SECTORS, Place, SECTOR, generation};
use crate::workload::{Action, Op, Region, batch, region};

/// Generations of a block's sectors; 0 is zeros.
pub type Value = [u32; BLOCK / SECTOR];

/// Everything that one connection wrote.
pub struct History {
    seed: u64,
    region: Region,
    /// By block: the batches that changed it, and what it was after each.
    blocks: HashMap<u64, Vec<(u32, Value)>>,
}

impl History {
    /// Nothing written yet.
    pub fn new(seed: u64, connection: u32) -> History {
        History { seed, region: region(connection), blocks: HashMap::new() }
    }

    /// After batches 1 to `last`.
    pub fn after(seed: u64, connection: u32, last: u32) -> History {
        let mut history = History::new(seed, connection);
        for number in 1..=last {
            history.add(number, &batch(seed, connection, number));
        }
        history
    }

    /// Adds the next batch.
    pub fn add(&mut self, number: u32, ops: &[Op]) {
        for op in ops.iter().filter(|op| op.action != Action::Flush) {
            let generation = if matches!(op.action, Action::Write { .. }) { number } else { 0 };
            for block in op.blocks() {
                let mut value = self.newest(block);
                for (sector, place) in (block * BLOCK_SECTORS..).zip(&mut value) {
                    if (op.sector..op.sector + op.sectors).contains(&sector) {
                        *place = generation;
                    }
                }
                self.blocks.entry(block).or_default().push((number, value));
            }
        }
    }

    /// The connection's part of its volume.
    pub fn region(&self) -> Region {
        self.region
    }

    /// What a block holds after the last batch.
    pub fn newest(&self, block: u64) -> Value {
        self.blocks.get(&block).and_then(|values| values.last()).map_or([0; 8], |(_, value)| *value)
    }

    /// Compares a block with its last value up to batch `floor` and all later ones.
    ///
    /// # Errors
    /// Says what was found, if it is none of them.
    pub fn allows(&self, block: u64, floor: u32, found: &[u8]) -> Result<(), String> {
        let found = self.value(block, found)?;
        let all = self.blocks.get(&block).map_or(&[][..], Vec::as_slice);
        let durable = all.partition_point(|(number, _)| *number <= floor);
        let last = durable.checked_sub(1).map_or([0; 8], |at| all[at].1);
        if found == last || all[durable..].iter().any(|(_, value)| *value == found) {
            return Ok(());
        }
        let earlier = all[..durable].iter().rev().find(|(_, value)| *value == found);
        Err(match earlier {
            Some((number, _)) => format!("is of batch {number}, durable is {last:?} by {floor}"),
            None if found == [0; 8] => format!("is zero, durable is {last:?} by {floor}"),
            None => format!("{found:?} never was there; durable is {last:?} by {floor}"),
        })
    }

    /// Which value a block's bytes are.
    ///
    /// # Errors
    /// Says so, if they never were written there.
    pub fn value(&self, block: u64, found: &[u8]) -> Result<Value, String> {
        let mut value = [0; BLOCK / SECTOR];
        let sectors = (block * BLOCK_SECTORS..).zip(found.chunks_exact(SECTOR));
        for (out, (sector, bytes)) in value.iter_mut().zip(sectors) {
            let place = Place { seed: self.seed, volume: self.region.volume, sector };
            *out = generation(place, bytes)?;
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::fill;

    fn bytes(value: Value) -> Vec<u8> {
        let mut all = vec![0; SECTOR * 8];
        for ((sector, generation), out) in (0..).zip(value).zip(all.chunks_exact_mut(SECTOR)) {
            fill(Place { seed: 1, volume: 0, sector }, generation, out);
        }
        all
    }

    #[test]
    fn the_last_durable_value_and_later_ones_are_allowed() {
        let mut history = History::new(1, 0);
        let write = |sector, sectors| Op { action: Action::Write { fua: false }, sector, sectors };
        history.add(1, &[write(0, 8)]);
        history.add(2, &[write(2, 1)]);
        history.add(3, &[Op { action: Action::Trim, sector: 0, sectors: 4 }]);
        let (one, two, three) = ([1; 8], [1, 1, 2, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1]);
        let allowed = |floor, value| history.allows(0, floor, &bytes(value)).is_ok();
        assert!(allowed(0, [0; 8]) && allowed(0, one) && allowed(0, two) && allowed(0, three));
        assert!(!allowed(1, [0; 8]) && allowed(1, one));
        assert!(!allowed(2, one) && allowed(2, two) && allowed(2, three));
        assert!(!allowed(9, two) && allowed(9, three));
        assert!(!allowed(0, [1, 1, 1, 1, 0, 0, 0, 0]), "a torn block");
    }
}
