//! Separation of one client's accesses into concurrent streams.
//!
//! A client interleaves several sequential or strided walks. A bounded table
//! keeps the position of each; an access joins the stream that expected it,
//! else the nearest one within [`REACH`], else it replaces the least recently
//! used. Only *crossings* (the stream comes to another fragment) are emitted:
//! everything above is paid for per fragment, not per request.
//!
//! Invariants: no allocation after construction; a slot's crossings belong to
//! one stream until a crossing with `fresh` set starts the next one there.
//! It does not know which fragments exist or are resident.
#![forbid(unsafe_code)]

use crate::Access;

/// Streams followed at once for one client.
pub const STREAMS: usize = 32;
/// Farthest step, in fragments, that still continues a stream.
pub const REACH: u64 = 64;
/// Most fragments of one access that are walked one by one; the rest is skipped.
const MAX_WALK: u64 = 16;

/// A stream has come to another fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The stream's place in the table, below [`STREAMS`].
    pub slot: usize,
    /// A new stream took the slot; what stood there has ended.
    pub fresh: bool,
    /// The volume.
    pub volume: u32,
    /// The fragment come to.
    pub fragment: u64,
    /// Distance from the stream's previous fragment; 0 only if `fresh`.
    pub delta: i64,
    /// Equal deltas in a row, this one included; 0 if `fresh`.
    pub run: u32,
    /// Smoothed time between crossings; `None` while unknown.
    pub interval_ns: Option<u64>,
    /// Caused by a write.
    pub write: bool,
    /// The last crossing of its access.
    pub last: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    used: u64,
    volume: u32,
    run: u32,
    fragment: u64,
    delta: i64,
    crossed_ns: u64,
    interval_ns: u64,
}

/// How a stream moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Its last step; 0 before the first.
    pub delta: i64,
    /// Equal steps in a row.
    pub run: u32,
    /// Smoothed time between steps; `None` while unknown.
    pub interval_ns: Option<u64>,
}

/// The table of one client's streams.
#[derive(Clone, Debug)]
pub struct Streams {
    table: [Stream; STREAMS],
    /// Stream of the previous access: most accesses stay on its fragment.
    recent: usize,
    clock: u64,
}

impl Default for Streams {
    fn default() -> Self {
        Self::new()
    }
}

impl Streams {
    /// An empty table.
    pub fn new() -> Self {
        Self { table: [Stream::default(); STREAMS], recent: 0, clock: 0 }
    }

    /// Follows one access; calls `emit` once for each crossing it causes. Returns the slot of
    /// the stream it belongs to.
    ///
    /// # Panics
    /// If `access.last_fragment` is below `access.fragment`.
    pub fn observe(&mut self, access: &Access, mut emit: impl FnMut(&Crossing)) -> usize {
        assert!(access.fragment <= access.last_fragment, "an access ends where it starts or later");
        self.clock += 1;
        let end = access.last_fragment.min(access.fragment.saturating_add(MAX_WALK - 1));
        let slot = self.find(access.volume, access.fragment);
        for fragment in access.fragment..=end {
            let stream = &mut self.table[slot];
            let fresh = stream.used == 0 || stream.volume != access.volume;
            let fresh = fresh || step(stream.fragment, fragment).is_none();
            if !fresh && stream.fragment == fragment {
                stream.used = self.clock;
                continue;
            }
            let mut crossing = cross(stream, access, fragment, fresh);
            stream.used = self.clock;
            crossing.slot = slot;
            crossing.last = fragment == end;
            emit(&crossing);
        }
        self.recent = slot;
        slot
    }

    /// How the stream in a slot moves.
    pub fn pace(&self, slot: usize) -> Pace {
        let Stream { delta, run, interval_ns, .. } = self.table[slot];
        Pace { delta, run, interval_ns: known(interval_ns) }
    }

    /// The slot that the fragment continues, or the one to give to a new stream.
    fn find(&self, volume: u32, fragment: u64) -> usize {
        let recent = &self.table[self.recent];
        if recent.used > 0 && recent.volume == volume && recent.fragment == fragment {
            return self.recent;
        }
        let mut best = (u64::MAX, 0, 0);
        let mut oldest = 0;
        for (slot, stream) in self.table.iter().enumerate() {
            if stream.used < self.table[oldest].used {
                oldest = slot;
            }
            if stream.used == 0 || stream.volume != volume {
                continue;
            }
            let distance = stream.fragment.abs_diff(fragment);
            let expected = stream.run > 1
                && stream.fragment.checked_add_signed(stream.delta) == Some(fragment);
            // Rank: already there, then expected, then near; among equals the newest.
            let rank = match distance {
                0 => 0,
                _ if expected => 1,
                1..=REACH => 1 + distance,
                _ => continue,
            };
            let candidate = (rank, u64::MAX - stream.used, slot);
            best = best.min(candidate);
        }
        if best.0 == u64::MAX { oldest } else { best.2 }
    }
}

/// An interval, which is 0 while unknown.
fn known(interval_ns: u64) -> Option<u64> {
    (interval_ns > 0).then_some(interval_ns)
}

/// The step between two fragments, if it is within [`REACH`].
fn step(from: u64, to: u64) -> Option<i64> {
    let distance = i64::try_from(from.abs_diff(to)).ok().filter(|d| d.unsigned_abs() <= REACH)?;
    Some(if to < from { -distance } else { distance })
}

fn cross(stream: &mut Stream, access: &Access, fragment: u64, fresh: bool) -> Crossing {
    let now = access.time_ns;
    if fresh {
        *stream = Stream { volume: access.volume, fragment, crossed_ns: now, ..Stream::default() };
    } else {
        let delta = step(stream.fragment, fragment).expect("not fresh, so within reach");
        stream.run = if delta == stream.delta { stream.run.saturating_add(1) } else { 1 };
        stream.delta = delta;
        stream.fragment = fragment;
        if now > 0 && stream.crossed_ns > 0 {
            let gap = now.saturating_sub(stream.crossed_ns).max(1);
            let old = stream.interval_ns;
            // A quarter of the newest gap: follows a change of rate in a few steps.
            stream.interval_ns = if old == 0 { gap } else { (old - old / 4 + gap / 4).max(1) };
        }
        stream.crossed_ns = now;
    }
    Crossing {
        slot: 0,
        fresh,
        volume: stream.volume,
        fragment,
        delta: stream.delta,
        run: stream.run,
        interval_ns: known(stream.interval_ns),
        write: access.write,
        last: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fragment: u64) -> Access {
        Access { fragment, last_fragment: fragment, ..Access::default() }
    }

    fn crossings(streams: &mut Streams, access: &Access) -> Vec<Crossing> {
        let mut out = Vec::new();
        streams.observe(access, |crossing| out.push(*crossing));
        out
    }

    #[test]
    fn interleaved_walks_stay_apart() {
        let mut streams = Streams::new();
        let mut deltas = Vec::new();
        for i in 0..8 {
            deltas.extend(crossings(&mut streams, &read(1000 + i)));
            deltas.extend(crossings(&mut streams, &read(9000 - 3 * i)));
        }
        let of = |slot: usize| -> Vec<i64> {
            deltas.iter().filter(|c| c.slot == slot).map(|c| c.delta).collect()
        };
        let (up, down) = (deltas[0].slot, deltas[1].slot);
        assert_eq!(of(up), [0, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(of(down), [0, -3, -3, -3, -3, -3, -3, -3]);
        assert_eq!(deltas.last().map(|c| c.run), Some(7));
    }

    #[test]
    fn the_same_fragment_is_no_crossing() {
        let mut streams = Streams::new();
        assert_eq!(crossings(&mut streams, &read(5)).len(), 1);
        assert!(crossings(&mut streams, &read(5)).is_empty());
        let other = Access { volume: 1, ..read(5) };
        assert!(crossings(&mut streams, &other)[0].fresh);
    }

    #[test]
    fn an_access_over_several_fragments_walks_them() {
        let mut streams = Streams::new();
        let wide = Access { last_fragment: 3, ..read(0) };
        let walked = crossings(&mut streams, &wide);
        assert_eq!(walked.iter().map(|c| c.delta).collect::<Vec<_>>(), [0, 1, 1, 1]);
        assert_eq!(walked.iter().filter(|c| c.last).count(), 1);
        let endless = Access { last_fragment: u64::MAX, ..read(1 << 40) };
        assert_eq!(crossings(&mut streams, &endless).len(), 16);
    }

    #[test]
    fn the_oldest_stream_makes_room() {
        let mut streams = Streams::new();
        for i in 0..STREAMS as u64 {
            crossings(&mut streams, &read(i * 1000));
        }
        crossings(&mut streams, &read(1)); // stream 0 is the newest again
        let newcomer = crossings(&mut streams, &read(1 << 40))[0];
        assert!(newcomer.fresh);
        assert!(!crossings(&mut streams, &read(2))[0].fresh);
        assert!(crossings(&mut streams, &read(1001))[0].fresh, "stream 1 was the oldest");
    }

    #[test]
    fn the_rate_is_smoothed_and_unknown_without_a_clock() {
        let mut streams = Streams::new();
        assert_eq!(crossings(&mut streams, &read(0))[0].interval_ns, None);
        assert_eq!(crossings(&mut streams, &read(1))[0].interval_ns, None);
        let at = |fragment, time_ns| Access { time_ns, volume: 7, ..read(fragment) };
        crossings(&mut streams, &at(0, 1000));
        assert_eq!(crossings(&mut streams, &at(1, 1400))[0].interval_ns, Some(400));
        assert_eq!(crossings(&mut streams, &at(2, 2600))[0].interval_ns, Some(600));
    }
}
