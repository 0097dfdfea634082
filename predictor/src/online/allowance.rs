//! The time of a core that prediction may take.
#![forbid(unsafe_code)]

/// Share of the core's time.
const SHARE: f64 = 0.03;
/// What is not taken is kept up to this, and nothing is done while so much is owed. One
/// crossing counts for no more: the system may have given the core to others meanwhile.
const MOST_NS: i64 = 1_000_000;

/// How much work a crossing may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// All of it.
    Whole,
    /// It is followed and learned from; nothing is ranked.
    Follow,
    /// None.
    Nothing,
}

/// An account in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    left_ns: i64,
    /// When the account was last added to.
    at_ns: u64,
}

impl Allowance {
    /// What a crossing now may make: ranking stops when nothing is left, and all stops when
    /// what is owed cannot grow.
    pub fn work(&mut self, now_ns: u64) -> Work {
        let passed_ns = now_ns.saturating_sub(self.at_ns).min(1_000_000_000);
        self.at_ns = now_ns;
        self.left_ns = (self.left_ns + share(passed_ns)).min(MOST_NS);
        match self.left_ns {
            0.. => Work::Whole,
            left if left > -MOST_NS => Work::Follow,
            _ => Work::Nothing,
        }
    }

    /// So much time was taken.
    pub fn took(&mut self, ns: u64) {
        let ns = i64::try_from(ns).unwrap_or(MOST_NS).min(MOST_NS);
        self.left_ns -= ns;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "at most a second, rounded down")]
fn share(ns: u64) -> i64 {
    (ns as f64 * SHARE) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Crossings of each kind in a second, one each `every_ns`, that take `whole_ns` if ranked
    /// and `follow_ns` if followed; and the time they took.
    fn second(every_ns: u64, whole_ns: u64, follow_ns: u64) -> ([u64; 3], u64) {
        let mut allowance = Allowance::default();
        let (mut counts, mut took) = ([0; 3], 0);
        for now in (1..1_000_000_000 / every_ns).map(|n| n * every_ns) {
            let ns = match allowance.work(now) {
                Work::Whole => whole_ns,
                Work::Follow => follow_ns,
                Work::Nothing => 0,
            };
            counts[(ns == follow_ns) as usize + 2 * (ns == 0) as usize] += 1;
            allowance.took(ns);
            took += ns;
        }
        (counts, took)
    }

    #[test]
    fn what_fits_is_ranked() {
        let ([whole, follow, nothing], took) = second(200_000, 4000, 300);
        assert_eq!((whole, follow, nothing, took), (4999, 0, 0, 4999 * 4000));
    }

    #[test]
    fn beyond_the_share_crossings_are_followed_only() {
        let ([whole, follow, nothing], took) = second(20_000, 4000, 300);
        assert!(whole > 2000 && follow > 30_000 && nothing == 0, "{whole} {follow} {nothing}");
        assert!(took <= 31_000_000, "{took} ns");
    }

    #[test]
    fn where_following_is_too_much_nothing_is_done() {
        let ([_, follow, nothing], took) = second(2000, 4000, 300);
        assert!(follow > 50_000 && nothing > 200_000, "{follow} {nothing}");
        assert!(took <= 32_000_000, "{took} ns");
    }
}
