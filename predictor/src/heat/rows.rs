//! What a model remembers of each row of a heatmap.
//!
//! Rows change hands: a state is forgotten when its row has another segment.
#![forbid(unsafe_code)]

use super::{Heatmap, Segment};

/// One state per row.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows<T> {
    states: Vec<(Segment, T)>,
}

impl<T: Default> Rows<T> {
    pub fn new() -> Self {
        Self { states: Vec::new() }
    }

    /// The state of a row, new if the row is.
    pub fn state(&mut self, heat: &Heatmap, row: usize) -> &mut T {
        while self.states.len() <= row {
            self.states.push((heat.segment(self.states.len()), T::default()));
        }
        let (segment, state) = &mut self.states[row];
        if *segment != heat.segment(row) {
            *segment = heat.segment(row);
            *state = T::default();
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heat::HeatShape;

    #[test]
    fn a_state_is_forgotten_with_its_segment() {
        let shape = HeatShape::new(1, 4, 1).unwrap();
        let mut heat = Heatmap::new(shape);
        let mut rows = Rows::<u32>::new();
        heat.record(0, Segment::new(1), false, 1);
        *rows.state(&heat, 1) = 5;
        *rows.state(&heat, 0) = 6;
        heat.advance(9 * shape.bin_ns());
        assert_eq!(*rows.state(&heat, 1), 5);
        heat.record(9 * shape.bin_ns(), Segment::new(2), false, 1);
        assert_eq!((*rows.state(&heat, 1), *rows.state(&heat, 0)), (0, 6));
    }
}
