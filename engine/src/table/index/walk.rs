//! All fragments, one by one.

use super::address::key_at;
use super::{Fragment, Index, Span};
use crate::format::record::FragmentKey;
use crate::table::seat::Seat;
use crate::units::FragmentSize;

/// A place in the walk over all seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    segment: usize,
    at: u16,
}

impl Index {
    /// The first fragment that is here at or behind position `from`, and its position.
    pub fn next(&self, from: usize) -> Option<(usize, &Fragment)> {
        let rest = self.fragments.get(from..)?;
        let found = rest.iter().enumerate().find_map(|(at, s)| Some((at, s.fragment.as_deref()?)));
        found.map(|(at, fragment)| (from + at, fragment))
    }

    /// All fragments that are here.
    pub fn iter(&self) -> impl Iterator<Item = &Fragment> {
        self.fragments.iter().filter_map(|slot| slot.fragment.as_deref())
    }

    /// The first seat at or behind `from`: its key, its fragment's size, and what comes next.
    ///
    /// A walk sees every fragment that exists throughout, once.
    pub fn walk(&self, from: Cursor) -> Option<(FragmentKey, &Seat, FragmentSize, Cursor)> {
        let mut from = from;
        loop {
            let (position, key, segment) = self.segments.next(from.segment)?;
            let at = if position == from.segment { from.at } else { 0 };
            let first = segment.seats.partition_point(|seat| u16::from(seat.at) < at);
            if let Some(seat) = segment.seats.get(first) {
                let next = Cursor { segment: position, at: u16::from(seat.at) + 1 };
                return Some((key_at(key, seat.at, segment.size), seat, segment.size, next));
            }
            from = Cursor { segment: position + 1, at: 0 };
        }
    }

    /// Where a walk over the segments of now ends; later ones may come before or behind it.
    pub fn end(&self) -> Cursor {
        Cursor { segment: self.segments.positions(), at: 0 }
    }

    /// All fragments: key, seat and size.
    pub fn all(&self) -> impl Iterator<Item = (FragmentKey, &Seat, FragmentSize)> {
        let mut cursor = Cursor::default();
        std::iter::from_fn(move || {
            let (key, seat, size, next) = self.walk(cursor)?;
            cursor = next;
            Some((key, seat, size))
        })
    }

    /// Panics unless the invariants hold.
    pub fn self_check(&self) {
        let (mut here, mut live, mut pages) = (0, 0, 0);
        let mut last = None;
        for (key, seat, size) in self.all() {
            live += 1;
            if last != Some(Span::of(key)) {
                pages += Span::pages(size);
                last = Some(Span::of(key));
            }
            assert_eq!(seat.here().is_some(), self.is_here(Span::of(key)), "half a span is here");
            if let Some(index) = seat.here() {
                here += 1;
                let fragment = self.get(self.reference(index)).expect("seated");
                assert_eq!((fragment.key, fragment.size), (key, size));
                fragment.self_check();
            }
        }
        assert_eq!((live, pages), (self.live, self.map_pages));
        assert_eq!((here, here), (self.iter().count(), self.here), "a fragment without a seat");
        let bytes: u64 = self.iter().map(Fragment::heap_bytes).sum();
        assert_eq!(bytes, self.here_bytes);
    }
}
