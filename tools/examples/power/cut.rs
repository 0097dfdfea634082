//! One power cut: what of the writes begun until then is on the medium.
//!
//! A device honours flush and FUA: a write is kept if it ended before a flush
//! began that ended before the cut, or had FUA and ended before the cut. Of any
//! other write begun before the cut, any subset of its 512-byte sectors may be
//! kept, in flight or not.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::content::SECTOR;
use crate::mark::Mark;
use crate::random::Random;
use crate::trace::{Device, Moment, Trace, Write};
use crate::write_log::WriteLog;
use crate::{PowerError, system};

/// What became of the writes that were not durable.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// Durable, hence kept.
    pub durable: u64,
    /// Kept whole although nothing demands it.
    pub kept: u64,
    /// Kept in part.
    pub torn: u64,
    /// Gone.
    pub lost: u64,
}

/// How a device treats writes that are not durable.
#[derive(Clone, Copy, Debug)]
struct Temper {
    /// Percent of them that reach the medium.
    keep: u64,
    /// Percent of those that are torn.
    tear: u64,
}

impl Temper {
    fn draw(random: &mut Random) -> Temper {
        let keep = [0, 10, 50, 90, 100][usize::try_from(random.below(5)).expect("below 5")];
        let tear = [0, 30, 100][usize::try_from(random.below(3)).expect("below 3")];
        Temper { keep, tear }
    }
}

/// When to cut: at any moment of the load, or right after an acknowledgement, right before
/// a flush ends, or right after a write with FUA.
pub fn moment(trace: &Trace, random: &mut Random) -> Option<Moment> {
    let ready = trace.marks.iter().find(|(_, mark)| *mark == Mark::Ready)?.0;
    let acknowledged = |mark: &Mark| matches!(mark, Mark::Flushed { .. } | Mark::Fua { .. });
    let mut moments: Vec<Moment> = match random.below(4) {
        0 => trace.marks.iter().filter(|(_, m)| acknowledged(m)).map(|(at, _)| at + 1).collect(),
        1 => trace.devices.iter().flat_map(|d| d.flushes.iter().map(|f| f.ended)).collect(),
        2 => trace.devices.iter().flat_map(Device::fua_ends).map(|at| at + 1).collect(),
        _ => (ready + 1..=trace.end).collect(),
    };
    moments.retain(|at| *at > ready);
    let index = random.below(moments.len() as u64);
    moments.get(usize::try_from(index).expect("an index")).copied()
}

/// Writes the image of a device, cut at a moment: events before it have happened.
pub fn image(
    device: &Device,
    log: &WriteLog,
    at: Moment,
    random: &mut Random,
    (path, bytes): (&Path, u64),
) -> Result<Fate, PowerError> {
    let name = || path.display().to_string();
    let file = File::create(path).map_err(system(name()))?;
    file.set_len(bytes).map_err(system(name()))?;
    let temper = Temper::draw(random);
    let mut fate = Fate::default();
    let mut buffer = Vec::new();
    for write in device.writes.iter().take_while(|write| write.begun < at) {
        // Still in flight at the run's end: its bytes never reached the device.
        let Some(place) = write.bytes else { continue };
        let durable = device.durable(write, at);
        if !durable && !random.chance(temper.keep) {
            fate.lost += 1;
            continue;
        }
        buffer.resize(usize::try_from(write.sectors).expect("a write fits memory") * SECTOR, 0);
        log.read(place, &mut buffer)?;
        let start = write.sector * SECTOR as u64;
        if durable || !random.chance(temper.tear) {
            let counter = if durable { &mut fate.durable } else { &mut fate.kept };
            *counter += 1;
            file.write_all_at(&buffer, start).map_err(system(name()))?;
            continue;
        }
        fate.torn += 1;
        for (sector, offset) in buffer.chunks(SECTOR).zip((start..).step_by(SECTOR)) {
            if random.chance(50) {
                file.write_all_at(sector, offset).map_err(system(name()))?;
            }
        }
    }
    Ok(fate)
}

impl Device {
    /// True if nothing that the device may do loses the write.
    fn durable(&self, write: &Write, at: Moment) -> bool {
        let Some(ended) = write.ended.filter(|ended| *ended < at) else { return false };
        // Flushes of one device do not overlap: the last that has ended began last.
        let flushed = self.flushes.partition_point(|flush| flush.ended < at);
        let covered = flushed.checked_sub(1).is_some_and(|last| ended < self.flushes[last].begun);
        write.fua || covered
    }

    fn fua_ends(&self) -> impl Iterator<Item = Moment> {
        self.writes.iter().filter(|write| write.fua).filter_map(|write| write.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Flush;

    #[test]
    fn only_what_ended_before_a_completed_flush_began_is_durable() {
        let write = |begun, ended, fua| Write {
            sector: 0,
            sectors: 1,
            fua,
            begun,
            ended: Some(ended),
            bytes: None,
        };
        let device = Device { writes: vec![], flushes: vec![Flush { begun: 10, ended: 20 }] };
        assert!(device.durable(&write(1, 9, false), 21));
        assert!(!device.durable(&write(1, 9, false), 20), "the flush has not ended");
        assert!(!device.durable(&write(1, 11, false), 30), "it ended while the flush ran");
        assert!(device.durable(&write(12, 13, true), 14));
        assert!(!device.durable(&write(12, 13, true), 13));
    }
}
