//! How much a fragment is worth keeping near, from the heat of its segment.
//!
//! A forecast speaks of segments, tiering moves fragments. How a segment's
//! requests will spread over its fragments is not foreseen; what is known of a
//! fragment is when it was last used. Of the requests that its segment got since
//! then none was for it: by Laplace's rule of succession the next one is for it
//! with a probability of 1 in (fragments + those requests). So a fragment of a
//! segment that was idle with it, over night say, keeps its full share of what
//! the morning is expected to bring, and one that lies idle in a busy segment
//! loses it.
//!
//! No forecast sees all: a fragment that was used some time ago is worth a part of
//! a use in as long a time, whatever is expected of its segment. Without this,
//! what is newly wanted goes at once where the fast tier is small.
//!
//! It knows no sizes: the worth is per byte, as if the segment had one fragment.
#![forbid(unsafe_code)]

/// What a use says of the same time after it.
const AGAIN: f32 = 0.1;
/// Least part of a horizon for which a fragment counts as idle.
const MOMENT: f32 = 1e-6;

/// What is known of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SegmentHeat {
    /// Requests that are expected within the horizon.
    pub expected: f32,
    /// Requests that it got within the last horizon.
    pub recent: f32,
}

impl SegmentHeat {
    /// The same after `requests` more within `part` of a horizon: what comes
    /// after a forecast shows what it missed.
    #[must_use]
    pub fn seen(self, requests: f32, part: f32) -> Self {
        let rate = requests / part.max(0.1);
        Self { expected: self.expected.max(rate), recent: self.recent + requests }
    }

    /// Requests expected of a fragment that has been idle for `idle` of a horizon
    /// in a segment of so many; times their number, to compare fragments of any
    /// size.
    pub fn of_fragment(self, fragments: u16, idle: f32) -> f32 {
        let fragments = f32::from(fragments.max(1));
        let missed = self.recent * idle.clamp(0.0, 1.0);
        self.expected * fragments / (fragments + missed)
    }

    /// The same, and at least what its last use makes likely: by this fragments are compared.
    pub fn worth(self, fragments: u16, idle: f32) -> f32 {
        let again = AGAIN * f32::from(fragments.max(1)) / idle.max(MOMENT);
        self.of_fragment(fragments, idle).max(again)
    }
}

/// Steps of worth that are told apart, one to each doubling: within one the
/// forecast does not know better than who was used last. 0 is less than half a
/// request.
pub fn step(requests: f32) -> u8 {
    if requests.is_nan() || requests < 0.5 {
        return 0;
    }
    let step = 1.0 + (2.0 * requests).log2();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 255: both ends are clamped"
    )]
    let step = step.clamp(1.0, 255.0) as u8;
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: SegmentHeat = SegmentHeat { expected: 100.0, recent: 100.0 };

    #[test]
    fn the_idle_lose_their_share_in_a_busy_segment_only() {
        assert_eq!(BUSY.of_fragment(16, 0.0), 100.0);
        assert_eq!(BUSY.of_fragment(16, 0.5), 100.0 * 16.0 / 66.0);
        assert_eq!(BUSY.of_fragment(16, 9.0), BUSY.of_fragment(16, 1.0));
        let morning = SegmentHeat { expected: 100.0, recent: 0.0 };
        assert_eq!(morning.of_fragment(16, 1.0), 100.0);
        assert_eq!(BUSY.of_fragment(0, 0.0), 100.0);
    }

    #[test]
    fn a_use_of_late_is_worth_something_whatever_is_expected() {
        let cold = SegmentHeat::default();
        assert_eq!(cold.worth(16, 0.016), 100.0);
        assert!(cold.worth(16, 0.0) > cold.worth(16, 0.1) && cold.worth(16, 0.0).is_finite());
        assert_eq!(BUSY.worth(16, 0.1), BUSY.of_fragment(16, 0.1), "more is expected");
    }

    #[test]
    fn what_comes_after_the_forecast_counts() {
        let unknown = SegmentHeat::default();
        assert_eq!(unknown.seen(0.0, 0.0), unknown);
        assert_eq!(unknown.seen(10.0, 0.5).expected, 20.0);
        assert_eq!(unknown.seen(10.0, 0.001).expected, 100.0, "a moment is no horizon");
        assert_eq!(BUSY.seen(1.0, 1.0), SegmentHeat { expected: 100.0, recent: 101.0 });
    }

    #[test]
    fn steps_ascend_and_are_bounded() {
        let steps = [0.0, 0.49, 0.5, 0.9, 1.0, 4.0, 1e3, 1e30, f32::INFINITY].map(step);
        assert_eq!(steps[..6], [0, 0, 1, 1, 2, 4]);
        assert!(steps.is_sorted() && steps[8] == 255);
        assert_eq!((step(f32::NAN), step(-1.0)), (0, 0));
    }
}
