//! What the encoder sees at a crossing, and what the tower sees of a candidate, as rows.
//!
//! Values beyond their group's bins fall into its last one.
#![forbid(unsafe_code)]

use super::layout::{
    CANDIDATE_GROUPS, CANDIDATE_OFFSETS, CANDIDATE_SIZES, CONTEXT_GROUPS, CONTEXT_OFFSETS,
    CONTEXT_SIZES,
};
use crate::bins::log2;

/// The encoder's row for each group of a crossing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextRows([u16; CONTEXT_GROUPS]);

/// The tower's row for each group of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CandidateRows([u16; CANDIDATE_GROUPS]);

/// Bin of a distance that does not exist: another volume.
const ELSEWHERE: usize = 34;
/// Logarithms of distances that are exact below: 17 has five bits.
const EXACT_BITS: usize = 5;

/// A crossing of a client, in bins where no unit is named.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    /// Fragments from the client's crossing before; `None` between volumes.
    pub jump: Option<i64>,
    /// The stream's step in fragments; 0 for a new stream.
    pub step: i64,
    /// Equal steps in a row.
    pub run: u32,
    /// The request writes.
    pub write: bool,
    /// How the request arrived, below 4.
    pub arrival: usize,
    /// The eighth of the fragment in which it begins.
    pub entry: usize,
    /// Its length in bytes.
    pub size_bytes: u32,
    /// Time since the client's crossing before.
    pub gap_ns: u64,
    /// Eighths of the fragment left that were asked for, below 16.
    pub dwelt: usize,
    /// Logarithm of the requests there, below 8.
    pub requests: usize,
    /// Recency of the fragment come to, below 34.
    pub recency: usize,
    /// Logarithm of its visits, below 13.
    pub visits: usize,
    /// Its place among the candidates of the crossing before, from 0, and its log-odds there.
    pub foreseen: Option<(usize, f32)>,
    /// Logarithm of the microseconds between the walk's steps.
    pub pace: usize,
    /// Logarithm of the weight of all that came next, below 8.
    pub next_total: usize,
}

/// A candidate, in bins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidate {
    /// Who proposed it, as bits.
    pub sources: u16,
    /// Fragments from the trigger; `None` between volumes.
    pub distance: Option<i64>,
    /// Which step of the walk it is, below 16.
    pub steps: usize,
    /// Share among what came next, below 12.
    pub next: usize,
    /// Share among what followed the last two, below 12.
    pub pair: usize,
    /// Share among what came near, below 12.
    pub near: usize,
    /// Votes, below 12.
    pub votes: usize,
    /// Recency, below 34.
    pub recency: usize,
    /// Logarithm of its visits, below 13.
    pub visits: usize,
    /// Success rates, each below 76.
    pub rates: [usize; 5],
    /// Replay, below 72.
    pub replay: usize,
    /// Which of four neighbours are resident, as bits.
    pub around: usize,
    /// Recency of the fragment below, below 22.
    pub below: usize,
    /// The last touch was a write.
    pub written: bool,
}

impl Context {
    /// Its rows.
    pub fn rows(&self) -> ContextRows {
        let (rank, odds) =
            self.foreseen.map_or((0, 0), |(place, odds)| (1 + place, odds_bin(odds)));
        let request = (usize::from(self.write) * 4 + self.arrival) * 8 + self.entry;
        ContextRows(place(
            [
                distance_bin(self.jump),
                distance_bin(Some(self.step)),
                usize::try_from(self.run).expect("64 bits"),
                request,
                log2(self.size_bytes.into()),
                log2(self.gap_ns / 1000),
                self.dwelt,
                self.requests,
                self.recency,
                self.visits,
                rank,
                odds,
            ],
            &CONTEXT_SIZES,
            &CONTEXT_OFFSETS,
        ))
    }
}

impl Candidate {
    /// Its rows at a crossing.
    pub fn rows(&self, context: &Context) -> CandidateRows {
        let small = small_distance(self.distance);
        let run = usize::try_from(context.run.min(9)).expect("few");
        let dwelt = (context.arrival * 16 + context.dwelt) * 8 + small;
        let [r0, r1, r2, r3, r4] = self.rates;
        CandidateRows(place(
            [
                hash(self.sources.into()),
                distance_bin(self.distance),
                self.steps * 10 + run,
                self.next * 12 + self.pair,
                self.near * 12 + self.votes,
                self.recency * 13 + self.visits,
                r0,
                r1,
                r2,
                r3,
                r4,
                self.replay,
                hash(dwelt),
                self.around * 8 + small,
                (usize::from(context.write) * 8 + context.entry) * 4 + context.arrival,
                self.below * 4 + small.min(3),
                context.requests * 4 + context.arrival,
                small * 32 + context.pace.min(31),
                self.next * 4 + context.next_total.min(3),
                usize::from(self.written) * 34 + self.recency,
            ],
            &CANDIDATE_SIZES,
            &CANDIDATE_OFFSETS,
        ))
    }
}

impl ContextRows {
    pub(super) fn get(&self) -> &[u16; CONTEXT_GROUPS] {
        &self.0
    }
}

impl CandidateRows {
    pub(super) fn get(&self) -> &[u16; CANDIDATE_GROUPS] {
        &self.0
    }
}

/// Any row of each group.
#[cfg(test)]
pub(super) mod random {
    use super::*;
    use crate::random::Random;

    fn below<const N: usize>(random: &mut Random, sizes: &[usize; N]) -> [usize; N] {
        sizes.map(|size| usize::try_from(random.below(size as u64)).unwrap())
    }

    pub fn context(random: &mut Random) -> ContextRows {
        ContextRows(place(below(random, &CONTEXT_SIZES), &CONTEXT_SIZES, &CONTEXT_OFFSETS))
    }

    pub fn candidate(random: &mut Random) -> CandidateRows {
        let values = below(random, &CANDIDATE_SIZES);
        CandidateRows(place(values, &CANDIDATE_SIZES, &CANDIDATE_OFFSETS))
    }
}

fn place<const N: usize>(values: [usize; N], sizes: &[usize; N], offsets: &[usize; N]) -> [u16; N] {
    std::array::from_fn(|group| {
        let row = offsets[group] + values[group].min(sizes[group] - 1);
        u16::try_from(row).expect("tables have fewer than 2^16 rows")
    })
}

/// Distances up to 16 exactly, farther ones by logarithm and sign.
fn distance_bin(distance: Option<i64>) -> usize {
    let Some(distance) = distance else { return ELSEWHERE };
    if let Ok(exact @ 0..=32) = usize::try_from(distance.saturating_add(16)) {
        return 1 + exact;
    }
    let far = log2(distance.unsigned_abs()) - EXACT_BITS;
    1 + ELSEWHERE + 2 * far + usize::from(distance < 0)
}

/// See the layout.
fn small_distance(distance: Option<i64>) -> usize {
    match distance {
        Some(1) => 0,
        Some(2) => 1,
        Some(-1) => 2,
        Some(3 | 4) => 3,
        Some(-2) => 4,
        Some(-63..=63) => 5,
        Some(_) => 6,
        None => 7,
    }
}

/// Log-odds from -6 to 4.3 in 32 bins.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn odds_bin(odds: f32) -> usize {
    ((odds + 6.0) * 3.0).clamp(0.0, 31.0) as usize
}

/// Eight bits of a small number.
fn hash(value: usize) -> usize {
    let mixed = (value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> 56).expect("eight bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_their_groups<const N: usize>(rows: &[u16; N], sizes: &[usize; N], offsets: &[usize; N]) {
        for (group, row) in rows.iter().enumerate() {
            let group_rows = offsets[group]..offsets[group] + sizes[group];
            assert!(group_rows.contains(&usize::from(*row)), "group {group}: {row}");
        }
    }

    #[test]
    fn every_group_has_its_own_row_whatever_the_values() {
        let extremes = [i64::MIN, -64, -17, -16, 0, 16, 17, i64::MAX];
        for distance in extremes.map(Some).into_iter().chain([None]) {
            let (any, odds) = (usize::MAX >> 8, f32::NAN);
            let context = Context {
                jump: distance,
                step: distance.unwrap_or(0),
                run: u32::MAX,
                gap_ns: u64::MAX,
                size_bytes: u32::MAX,
                dwelt: any,
                foreseen: Some((any, odds)),
                pace: any,
                ..Context::default()
            };
            in_their_groups(context.rows().get(), &CONTEXT_SIZES, &CONTEXT_OFFSETS);
            let candidate =
                Candidate { distance, sources: 511, steps: any, ..Candidate::default() };
            let rows = candidate.rows(&context);
            in_their_groups(rows.get(), &CANDIDATE_SIZES, &CANDIDATE_OFFSETS);
        }
    }

    #[test]
    fn bins_tell_small_distances_apart() {
        let bins = [-17, -16, 0, 16, 17, 31, 32].map(|distance| distance_bin(Some(distance)));
        assert_eq!(bins, [36, 1, 17, 33, 35, 35, 37]);
        // The farthest that two fragments of a volume can be apart.
        assert!(distance_bin(Some(-(1 << 40))) < CONTEXT_SIZES[0]);
        assert!(distance_bin(Some(-64)) < CONTEXT_SIZES[1]);
        let small = [1, 2, -1, 3, 4, -2, -3, 64].map(|distance| small_distance(Some(distance)));
        assert_eq!(small, [0, 1, 2, 3, 3, 4, 5, 6]);
        assert_eq!([-9.0, -6.0, 0.0, 9.0].map(odds_bin), [0, 0, 18, 31]);
    }
}
