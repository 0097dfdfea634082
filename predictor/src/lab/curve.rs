//! Samples of the misses over time.
#![forbid(unsafe_code)]

use super::Point;
use crate::Access;

/// Points of a curve, at equal distances of time.
const POINTS: u64 = 240;

/// Takes the samples of a run as it goes.
pub(super) struct Curve {
    has_clock: bool,
    first: u64,
    span: u64,
    requests: u64,
    points: Vec<Point>,
}

impl Curve {
    pub fn new(accesses: &[Access], has_clock: bool) -> Curve {
        let times = || accesses.iter().map(|access| access.time_ns);
        let (first, span) = if has_clock {
            let first = times().min().unwrap_or(0);
            (first, times().max().unwrap_or(0) - first)
        } else {
            (0, accesses.len() as u64)
        };
        Curve { has_clock, first, span, requests: 0, points: Vec::new() }
    }

    /// A request is about to be made, after so many misses.
    pub fn sample(&mut self, access: &Access, misses: u64, ghost_misses: u64) {
        let now = if self.has_clock { access.time_ns - self.first } else { self.requests };
        self.requests += 1;
        while now > self.moment() {
            self.points.push(Point { at: self.moment(), misses, ghost_misses });
        }
    }

    /// The time of the next point.
    fn moment(&self) -> u64 {
        let moment = u128::from(self.span) * self.points.len() as u128 / u128::from(POINTS);
        u64::try_from(moment).expect("within the span")
    }

    pub fn end(mut self, misses: u64, ghost_misses: u64) -> Vec<Point> {
        self.points.push(Point { at: self.span, misses, ghost_misses });
        self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_stand_at_equal_distances() {
        let accesses: Vec<Access> =
            (0..1000).map(|n| Access { time_ns: 5000 + n * 240, ..Access::default() }).collect();
        let mut curve = Curve::new(&accesses, true);
        for (n, access) in (0..).zip(&accesses) {
            curve.sample(access, n, 2 * n);
        }
        let points = curve.end(1000, 2000);
        assert_eq!(points.len() as u64, POINTS + 1);
        assert_eq!(points[0], Point { at: 0, misses: 1, ghost_misses: 2 });
        assert_eq!(points[120].at, 120 * 999);
        assert_eq!(points[120].misses, 500, "those before 119,880 ns of 240 ns each");
        assert_eq!(points.last().map(|point| (point.at, point.misses)), Some((999 * 240, 1000)));
    }

    #[test]
    fn without_a_clock_requests_are_time() {
        let accesses = vec![Access::default(); 480];
        let mut curve = Curve::new(&accesses, false);
        for access in &accesses {
            curve.sample(access, 7, 9);
        }
        let points = curve.end(7, 9);
        assert_eq!((points.len() as u64, points[1].at), (POINTS + 1, 2));
    }
}
