//! Sizes of the network and the places of its inputs in the tables.
//!
//! | context group | values | what |
//! |---|---|---|
//! | 0 | 112 | fragments from the client's crossing before |
//! | 1 | 48 | the stream's step, 0 for a new one |
//! | 2 | 9 | equal steps in a row |
//! | 3 | 2 x 4 x 8 | write, how the request arrived, where it entered |
//! | 4 | 26 | log2 of its bytes |
//! | 5 | 34 | log2 of the microseconds since the client's crossing before |
//! | 6, 7 | 16, 8 | bytes and requests in the fragment left |
//! | 8, 9 | 34, 13 | recency and visits of the fragment come to |
//! | 10, 11 | 14, 32 | how it was ranked at the crossing before, and its log-odds there |
//!
//! | candidate group | values | what |
//! |---|---|---|
//! | 0 | 256 hashed | who proposed |
//! | 1 | 112 | fragments from the trigger |
//! | 2 | 16 x 10 | place on the walk, its equal steps |
//! | 3 | 12 x 12 | shares of what came next, of what followed the last two |
//! | 4 | 12 x 12 | share of what came near, votes |
//! | 5 | 34 x 13 | recency and visits |
//! | 6-10 | 76 each | success rates |
//! | 11 | 72 | replay |
//! | 12 | 256 hashed | arrival, bytes in the fragment left, small distance |
//! | 13 | 16 x 8 | neighbours resident, small distance |
//! | 14 | 2 x 8 x 4 | write, entry, arrival |
//! | 15 | 22 x 4 | recency of the neighbour below, small distance |
//! | 16 | 8 x 4 | requests in the fragment left, arrival |
//! | 17 | 8 x 32 | small distance, the walk's pace |
//! | 18 | 12 x 4 | share of what came next, with the weight of all that did |
//! | 19 | 2 x 34 | last touch a write, recency |
//!
//! A *small distance* is one of eight: +1, +2, -1, +3 or +4, -2, within 63, farther, elsewhere.
#![forbid(unsafe_code)]

use crate::bins::offsets;

/// Units of the LSTM.
pub const HIDDEN: usize = 24;
/// Its gates, in candle's order: input, forget, cell, output.
pub(super) const GATES: usize = 4 * HIDDEN;
/// Numbers that meet within the rectifier, and as many that meet in a product.
pub(super) const HALF: usize = 16;
/// Width of a candidate's rows and of a view.
pub(super) const WIDTH: usize = 2 * HALF;
/// Most candidates of a crossing.
pub const CANDIDATES: usize = 12;

/// Inputs of the encoder at a crossing.
pub(super) const CONTEXT_GROUPS: usize = 12;
pub(super) const CONTEXT_SIZES: [usize; CONTEXT_GROUPS] =
    [112, 48, 9, 64, 26, 34, 16, 8, 34, 13, 14, 32];
pub(super) const CONTEXT_OFFSETS: [usize; CONTEXT_GROUPS] = offsets(&CONTEXT_SIZES);
/// Rows of the encoder's table.
pub(super) const CONTEXT_ROWS: usize = total(&CONTEXT_SIZES);

/// Inputs of the tower for a candidate.
pub(super) const CANDIDATE_GROUPS: usize = 20;
pub(super) const CANDIDATE_SIZES: [usize; CANDIDATE_GROUPS] =
    [256, 112, 160, 144, 144, 442, 76, 76, 76, 76, 76, 72, 256, 128, 64, 88, 32, 256, 48, 68];
pub(super) const CANDIDATE_OFFSETS: [usize; CANDIDATE_GROUPS] = offsets(&CANDIDATE_SIZES);
/// Rows of the candidates' table.
pub(super) const CANDIDATE_ROWS: usize = total(&CANDIDATE_SIZES);

/// Weights of a model.
pub(super) const WEIGHTS: usize = CONTEXT_ROWS * GATES
    + HIDDEN * GATES
    + GATES
    + HIDDEN * WIDTH
    + WIDTH
    + HALF
    + CANDIDATE_ROWS * WIDTH;
/// Half a MiB, so that it stays in a core's second cache.
const _: () = assert!(size_of::<f32>() * WEIGHTS <= 512 << 10);

const fn total<const N: usize>(sizes: &[usize; N]) -> usize {
    offsets(sizes)[N - 1] + sizes[N - 1]
}
