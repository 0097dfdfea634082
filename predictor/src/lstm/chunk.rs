//! Sequences cut to the length that is learned at once.
#![forbid(unsafe_code)]

use super::model::Batch;
use super::window::Item;
use super::{Inference, State, Weights};

/// Most chunks in a batch.
pub(super) const ROWS: usize = 32;

/// Consecutive items of one stream, with the state that the network has before
/// them: truncated learning with the state that inference will really be in.
pub(super) struct Chunk {
    pub classes: Vec<u8>,
    pub targets: Vec<u8>,
    pub state: State,
}

/// All chunks of at most `length` items whose crossings stand before `cut`.
pub(super) fn chunks(
    weights: &Weights,
    sequences: &[Vec<Item>],
    cut: usize,
    length: usize,
) -> Vec<Chunk> {
    let mut inference = Inference::new();
    let mut out = Vec::new();
    for sequence in sequences {
        let mut state = State::zero();
        for items in sequence.chunks(length) {
            let mut chunk = Chunk { classes: Vec::new(), targets: Vec::new(), state };
            for item in items.iter().filter(|item| item.order < cut) {
                let class = weights.vocabulary.class(item.delta);
                inference.step(weights, &mut state, class);
                if let Some(target) = item.next.class(&weights.vocabulary) {
                    chunk.classes.push(class);
                    chunk.targets.push(target);
                }
            }
            if !chunk.classes.is_empty() {
                out.push(chunk);
            }
        }
    }
    out
}

/// Pads up to [`ROWS`] chunks to one length.
pub(super) fn batch(chunks: &[Chunk]) -> Batch {
    let (rows, steps) = (chunks.len(), chunks.iter().map(|c| c.classes.len()).max().unwrap_or(0));
    let items = rows * steps;
    let (mut inputs, mut targets, mut mask) = (vec![0; items], vec![0; items], vec![0.0; items]);
    for (row, chunk) in chunks.iter().enumerate() {
        for (step, (class, target)) in chunk.classes.iter().zip(&chunk.targets).enumerate() {
            let at = row * steps + step;
            inputs[at] = *class;
            targets[at] = u32::from(*target);
            mask[at] = 1.0;
        }
    }
    let states = chunks.iter().map(|chunk| chunk.state).collect();
    Batch { rows, steps, inputs, targets, mask, states }
}
