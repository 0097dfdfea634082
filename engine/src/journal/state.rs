//! What a table's records add up to.
//!
//! Records of checkpoint pages, journal and pending log are applied in order.
//! Those about blocks only wait for their span's map page.

use std::collections::BTreeMap;

use crate::format::record::{FragmentKey, Mapped, Placement, Record, Records, VolumeRecord};
use crate::table::index::{Index, Span};
use crate::table::seat::fits;
use crate::units::VolumeId;

/// A volume as recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredVolume {
    /// Identity for life.
    pub uuid: [u8; 16],
    /// Size in bytes.
    pub size_bytes: u64,
    /// Size of new fragments.
    pub fragment: crate::units::FragmentSize,
    /// log2 of the presented block size.
    pub block_shift: u8,
    /// See [`VolumeRecord::flags`].
    pub flags: u8,
    /// Unique name.
    pub name: String,
}

/// What a table's records add up to.
#[derive(Debug, Default)]
pub struct State {
    /// Fragments, in a slice's table; their maps wait for first use.
    pub fragments: Index,
    /// Volumes, in the catalog.
    pub volumes: BTreeMap<VolumeId, RecoveredVolume>,
}

impl State {
    /// Applies encoded records. `fuzzy`: the state may be newer than the records.
    pub fn apply(&mut self, bytes: &[u8], fuzzy: bool) -> Result<(), &'static str> {
        let mut records = Records::new(bytes);
        let mut start = 0;
        while let Some(record) = records.next() {
            let record = record.map_err(|_| "malformed")?;
            if !self.apply_one(&record, &bytes[start..records.position()]) && !fuzzy {
                return Err("a record of a fragment that does not exist");
            }
            start = records.position();
        }
        Ok(())
    }

    /// False if it speaks of something that does not exist.
    fn apply_one(&mut self, record: &Record<'_>, raw: &[u8]) -> bool {
        let none = Mapped { page: None, written: 0, present: 0, cold_blocks: 0 };
        match *record {
            Record::Seat(key, placement, mapped) => self.place(key, &placement, &mapped),
            Record::Fragment(key, placement) => self.place(key, &placement, &none),
            Record::Blocks { key, first, entries } => {
                self.change(key, usize::from(first) + entries.len(), raw)
            }
            Record::Holes { key, first, count } => {
                self.change(key, usize::from(first) + usize::from(count), raw)
            }
            Record::Drop(key) => {
                let exists = self.fragments.seat(key).is_some();
                if exists {
                    self.fragments.remove_away(key);
                    // Another fragment of its page may come before it is made anew.
                    if self.fragments.seats(Span::of(key)).next().is_some() {
                        self.fragments.postpone(Span::of(key), raw);
                    }
                }
                exists
            }
            Record::Volume(volume) => {
                self.volumes.insert(volume.id, recovered_volume(&volume));
                true
            }
            Record::VolumeGone(id) => self.volumes.remove(&id).is_some(),
        }
    }

    /// The fragment lies there; it is made if it does not exist.
    fn place(&mut self, key: FragmentKey, placement: &Placement, mapped: &Mapped) -> bool {
        match self.fragments.seat(key) {
            Some((_, size)) if size == placement.size && fits(placement) => {
                self.fragments.replace_placement(key, placement);
                true
            }
            Some(_) => false,
            None => self.fragments.adopt(key, placement, mapped).is_some(),
        }
    }

    /// Blocks before `end` change: the record waits until the fragment's map is read.
    fn change(&mut self, key: FragmentKey, end: usize, raw: &[u8]) -> bool {
        let known = self.fragments.seat(key);
        let fits = known.is_some_and(|(_, size)| end <= size.blocks() as usize);
        if fits {
            self.fragments.postpone(Span::of(key), raw);
        }
        fits
    }
}

fn recovered_volume(volume: &VolumeRecord<'_>) -> RecoveredVolume {
    RecoveredVolume {
        uuid: volume.uuid,
        size_bytes: volume.size_bytes,
        fragment: volume.fragment,
        block_shift: volume.block_shift,
        flags: volume.flags,
        name: volume.name.to_owned(),
    }
}
