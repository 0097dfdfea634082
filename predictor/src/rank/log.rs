//! The crossings of all clients in one ring, each linked to those of its client.
#![forbid(unsafe_code)]

use super::key::Key;

/// log2 of the crossings kept.
const LOG_BITS: u32 = 17;

/// A crossing, by how many were logged before it.
pub(super) type Place = u64;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: Key,
    /// Crossings of all clients since the one before of the same client, and until the next;
    /// 0 for none.
    before: u32,
    after: u32,
}

/// A bounded ring of crossings.
pub(super) struct Log {
    ring: Vec<Entry>,
    next: Place,
}

impl Log {
    pub fn new() -> Log {
        Log { ring: vec![Entry::default(); 1 << LOG_BITS], next: 0 }
    }

    pub const fn bytes() -> usize {
        size_of::<Entry>() << LOG_BITS
    }

    /// Crossings ever logged.
    pub fn now(&self) -> Place {
        self.next
    }

    /// Logs a crossing of the client whose crossing before was at `previous`.
    pub fn push(&mut self, key: Key, previous: Option<Place>) -> Place {
        let place = self.next;
        let distance = previous
            .filter(|previous| self.entry(*previous).is_some())
            .and_then(|previous| u32::try_from(place - previous).ok());
        if let (Some(previous), Some(distance)) = (previous, distance) {
            self.ring[slot(previous)].after = distance;
        }
        self.ring[slot(place)] = Entry { key, before: distance.unwrap_or(0), after: 0 };
        self.next += 1;
        place
    }

    fn entry(&self, place: Place) -> Option<&Entry> {
        let kept = place < self.next && self.next - place <= 1 << LOG_BITS;
        kept.then(|| &self.ring[slot(place)])
    }

    /// The fragment come to, if the ring still has it.
    pub fn key(&self, place: Place) -> Option<Key> {
        self.entry(place).map(|entry| entry.key)
    }

    /// The client's crossing before.
    pub fn before(&self, place: Place) -> Option<Place> {
        let distance = self.entry(place)?.before;
        (distance > 0).then(|| place - u64::from(distance))
    }

    /// The client's next crossing.
    pub fn after(&self, place: Place) -> Option<Place> {
        let distance = self.entry(place)?.after;
        (distance > 0).then(|| place + u64::from(distance))
    }
}

fn slot(place: Place) -> usize {
    usize::try_from(place).expect("64 bits") & ((1 << LOG_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fragment: u64) -> Key {
        Key::new(0, fragment).unwrap()
    }

    #[test]
    fn crossings_are_linked_by_client() {
        let mut log = Log::new();
        let (mut one, mut other) = (None, None);
        for n in 0..4 {
            one = Some(log.push(key(n), one));
            other = Some(log.push(key(100 + n), other));
        }
        let back = |mut place: Option<Place>| {
            let mut keys = Vec::new();
            while let Some(at) = place {
                keys.push(log.key(at).unwrap().fragment());
                place = log.before(at);
            }
            keys
        };
        assert_eq!(back(one), [3, 2, 1, 0]);
        assert_eq!(back(other), [103, 102, 101, 100]);
        assert_eq!((log.after(0), log.after(6), log.after(8)), (Some(2), None, None));
    }

    #[test]
    fn what_is_overwritten_is_forgotten() {
        let mut log = Log::new();
        let first = log.push(key(7), None);
        for n in 0..1 << LOG_BITS {
            log.push(key(n), None);
        }
        assert_eq!((log.key(first), log.before(1)), (None, None));
        let late = log.push(key(8), Some(first));
        assert_eq!(log.before(late), None);
    }
}
