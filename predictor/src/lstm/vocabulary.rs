//! Classes of deltas.
#![forbid(unsafe_code)]

use super::MAX_CLASSES;
use crate::stream::REACH;

const REACH_SIGNED: i64 = REACH as i64;
/// Every delta of a stream, negative ones and 0 included.
const DELTAS: usize = 129;
const _: () = assert!(DELTAS as u64 == 2 * REACH + 1);

/// Maps the deltas of streams to classes and back.
///
/// Class 0 stands for any delta without its own class and for the end of a
/// stream, class 1 for a stream's first fragment (it is read, never predicted).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// Delta of class `i + FIRST`.
    deltas: Vec<i64>,
    class_of: [u8; DELTAS],
}

impl Vocabulary {
    /// A rare delta, or the stream's end.
    pub const OTHER: u8 = 0;
    /// The start of a stream.
    pub const START: u8 = 1;
    const FIRST: usize = 2;

    /// From distinct deltas, none 0, all within [`REACH`]; `None` otherwise or
    /// if there are more than [`MAX_CLASSES`] classes.
    pub fn from_deltas(deltas: Vec<i64>) -> Option<Self> {
        if deltas.len() + Self::FIRST > MAX_CLASSES {
            return None;
        }
        let mut class_of = [Self::OTHER; DELTAS];
        class_of[index(0)?] = Self::START;
        for (i, delta) in deltas.iter().enumerate() {
            let place = &mut class_of[index(*delta)?];
            if *place != Self::OTHER {
                return None;
            }
            *place = u8::try_from(i + Self::FIRST).ok()?;
        }
        Some(Self { deltas, class_of })
    }

    /// The most frequent of the observed deltas, `classes` at most, the special
    /// two included; +1 is always among them.
    pub fn learn(observed: impl Iterator<Item = i64>, classes: usize) -> Self {
        let mut counts = [0_u32; DELTAS];
        counts[index(1).expect("within reach")] = 1;
        for place in observed.filter_map(index) {
            counts[place] = counts[place].saturating_add(1);
        }
        let mut ranked: Vec<(u32, i64)> = (-REACH_SIGNED..=REACH_SIGNED)
            .zip(counts)
            .filter(|(delta, count)| *delta != 0 && *count > 0)
            .map(|(delta, count)| (count, delta))
            .collect();
        ranked.sort_by_key(|(count, delta)| (std::cmp::Reverse(*count), delta.abs(), *delta));
        ranked.truncate(classes.clamp(Self::FIRST + 1, MAX_CLASSES) - Self::FIRST);
        let deltas = ranked.into_iter().map(|(_, delta)| delta).collect();
        Self::from_deltas(deltas).expect("distinct deltas within reach")
    }

    /// Number of classes, 2 to [`MAX_CLASSES`].
    pub fn classes(&self) -> usize {
        self.deltas.len() + Self::FIRST
    }

    /// The class of a delta; 0 stands for the start.
    pub fn class(&self, delta: i64) -> u8 {
        index(delta).map_or(Self::OTHER, |place| self.class_of[place])
    }

    /// The delta of a class; `None` for the special two and beyond the last.
    pub fn delta(&self, class: usize) -> Option<i64> {
        class.checked_sub(Self::FIRST).and_then(|i| self.deltas.get(i)).copied()
    }

    /// The deltas that have a class, in the order of their classes.
    pub fn deltas(&self) -> &[i64] {
        &self.deltas
    }
}

fn index(delta: i64) -> Option<usize> {
    let place = delta.checked_add(REACH_SIGNED)?;
    usize::try_from(place).ok().filter(|place| *place < DELTAS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_deltas_get_classes() {
        let observed = [5, 5, 5, -2, -2, 9, 1000, 5];
        let vocabulary = Vocabulary::learn(observed.into_iter(), 4);
        assert_eq!(vocabulary.deltas(), [5, -2]);
        assert_eq!(vocabulary.class(5), 2);
        assert_eq!(vocabulary.class(9), Vocabulary::OTHER);
        assert_eq!(vocabulary.class(0), Vocabulary::START);
        assert_eq!(vocabulary.class(i64::MAX), Vocabulary::OTHER);
        assert_eq!(
            (vocabulary.delta(3), vocabulary.delta(1), vocabulary.delta(4)),
            (Some(-2), None, None)
        );
    }

    #[test]
    fn only_sound_lists_become_a_vocabulary() {
        for bad in [vec![0], vec![1, 1], vec![65], vec![i64::MIN]] {
            assert_eq!(Vocabulary::from_deltas(bad), None);
        }
        let all: Vec<i64> = (-64..=64).filter(|d| *d != 0).collect();
        assert_eq!(Vocabulary::from_deltas(all), None, "more than {MAX_CLASSES} classes");
        let learned = Vocabulary::learn((-64..=64).cycle().take(1000), 500);
        assert_eq!(learned.classes(), MAX_CLASSES);
    }
}
