//! The walks that a client's accesses belong to: who steps where, and how it dwells.
#![forbid(unsafe_code)]

use super::key::Key;

/// Walks followed at once.
const WALKS: usize = 32;
/// Time that a fetch from the cold tier takes: a seek.
const LEAD_NS: u64 = 8_000_000;
/// Most steps that a walk is looked ahead of.
const MOST_AHEAD: u64 = 60;
/// Farthest step that still continues a walk.
const REACH: u64 = 64;

/// A request, as far as it touches one fragment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Part {
    pub key: Key,
    pub time_ns: u64,
    /// First byte of the request, counted from the volume's start.
    pub offset_bytes: u64,
    /// Its length.
    pub size_bytes: u32,
}

/// One walk, as it stands in its newest fragment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walk {
    used: u64,
    at: Key,
    /// Last step; 0 for none yet.
    pub delta: i64,
    /// Equal steps in a row.
    pub run: u64,
    came_ns: u64,
    /// Smoothed time between steps; 0 while unknown.
    pub interval_ns: u64,
    end_bytes: u64,
    dwell_bytes: u64,
    requests: u64,
}

#[cfg(test)]
impl Walk {
    /// One that has stepped by `delta` once.
    pub fn stepped(delta: i64) -> Walk {
        Walk { delta, run: 1, ..Walk::default() }
    }
}

impl Walk {
    /// The first step that a fetch begun now is in time for.
    pub fn steps_ahead(&self) -> i64 {
        let steps = LEAD_NS.checked_div(self.interval_ns).unwrap_or(0);
        1 + i64::try_from(steps.min(MOST_AHEAD)).expect("few")
    }
}

/// What a walk left behind when it came to its newest fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// The request begins where the walk's last one ended.
    pub contiguous: bool,
    /// Bytes asked for in the fragment left.
    pub dwell_bytes: u64,
    /// Requests there.
    pub requests: u64,
}

/// The walks of one client.
pub(super) struct Walks {
    walks: [Walk; WALKS],
    newest: usize,
}

impl Walks {
    pub fn new() -> Walks {
        Walks { walks: [Walk::default(); WALKS], newest: 0 }
    }

    /// Another request in the fragment of the newest walk.
    pub fn dwell(&mut self, part: &Part) {
        let walk = &mut self.walks[self.newest];
        walk.dwell_bytes += u64::from(part.size_bytes);
        walk.requests += 1;
        walk.end_bytes = part.offset_bytes.saturating_add(part.size_bytes.into());
    }

    /// A crossing: the walk that expected it comes along, else the nearest, else a new one
    /// takes the place of the one unused for longest. `now` counts crossings from 1.
    pub fn cross(&mut self, part: &Part, now: u64) -> (Walk, Left) {
        let found = (0..WALKS)
            .filter_map(|i| Some((self.distance(i, part.key)?, i)))
            .min_by_key(|(distance, _)| *distance);
        let place = found.map_or_else(
            || (0..WALKS).min_by_key(|i| self.walks[*i].used).expect("not empty"),
            |(_, place)| place,
        );
        let walk = &mut self.walks[place];
        self.newest = place;
        let mut left = Left {
            contiguous: walk.end_bytes == part.offset_bytes,
            dwell_bytes: walk.dwell_bytes,
            requests: walk.requests,
        };
        if found.is_none() {
            *walk = Walk { came_ns: part.time_ns, ..Walk::default() };
            left = Left::default();
        } else if let Some(delta) = part.key.delta(walk.at).filter(|delta| *delta != 0) {
            walk.run = if delta == walk.delta { walk.run + 1 } else { 1 };
            walk.delta = delta;
            let interval = part.time_ns.saturating_sub(walk.came_ns);
            let before = if walk.interval_ns == 0 { interval } else { walk.interval_ns };
            walk.interval_ns = before / 2 + interval / 2;
            walk.came_ns = part.time_ns;
        }
        walk.at = part.key;
        walk.used = now;
        walk.dwell_bytes = part.size_bytes.into();
        walk.requests = 1;
        walk.end_bytes = part.offset_bytes.saturating_add(part.size_bytes.into());
        (*walk, left)
    }

    /// How far a fragment is from a walk: 0 where it was expected; `None` if too far.
    fn distance(&self, place: usize, key: Key) -> Option<u64> {
        let walk = &self.walks[place];
        if walk.used == 0 {
            return None;
        }
        let delta = key.delta(walk.at)?;
        if walk.run > 0 && delta == walk.delta {
            return Some(0);
        }
        Some(1 + delta.unsigned_abs()).filter(|distance| *distance <= REACH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(fragment: u64) -> Part {
        let key = Key::new(0, fragment).unwrap();
        Part { key, time_ns: fragment, offset_bytes: fragment << 20, size_bytes: 1 << 20 }
    }

    #[test]
    fn two_walks_are_told_apart() {
        let mut walks = Walks::new();
        for (now, fragment) in (1..).zip([10, 1000, 11, 1002, 12, 1004]) {
            walks.cross(&part(fragment), now);
        }
        let (walk, left) = walks.cross(&part(13), 7);
        assert_eq!((walk.delta, walk.run), (1, 3));
        assert_eq!(left, Left { contiguous: true, dwell_bytes: 1 << 20, requests: 1 });
        let (walk, left) = walks.cross(&part(1006), 8);
        assert_eq!((walk.delta, walk.run, left.contiguous), (2, 3, false));
    }

    #[test]
    fn fast_walks_are_looked_further_ahead_of() {
        let ahead = |interval_ns| Walk { interval_ns, ..Walk::default() }.steps_ahead();
        assert_eq!([0, 1_000_000_000, 8_000_000, 1_000_000, 1].map(ahead), [1, 1, 2, 9, 61]);
    }

    #[test]
    fn the_oldest_walk_makes_room() {
        let mut walks = Walks::new();
        for n in 0..=WALKS as u64 {
            walks.cross(&part(n << 16), n + 1);
        }
        let (walk, left) = walks.cross(&part(1), 100);
        assert_eq!((walk.run, left), (0, Left::default()), "the first one was forgotten");
        let (walk, _) = walks.cross(&part((5 << 16) + 1), 101);
        assert_eq!(walk.run, 1, "the others were not");
    }

    #[test]
    fn a_walk_counts_what_is_asked_for_where_it_dwells() {
        let mut walks = Walks::new();
        walks.cross(&Part { size_bytes: 4096, ..part(5) }, 1);
        walks.dwell(&Part { size_bytes: 8192, ..part(5) });
        let (_, left) = walks.cross(&part(6), 2);
        assert_eq!((left.dwell_bytes, left.requests), (12288, 2));
    }
}
