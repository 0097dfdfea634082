//! Two contenders, round after round, until enough rounds were undisturbed.

use serde_json::{Value, json};

use super::machine::median;

/// A round in which either side waited longer than this for a CPU tells nothing.
pub const WAIT_LIMIT_PERCENT: f64 = 3.0;
/// Rounds are repeated until this many times those asked for have run.
const PATIENCE: usize = 3;

/// What one side did in one round.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Requests per second.
    pub iops: f64,
    /// Time that it waited for a CPU, in per cent.
    pub waited_percent: f64,
}

/// One round.
#[derive(Clone, Copy, Debug)]
struct Round {
    ours: Run,
    peer: Run,
    cache_line_ns: f64,
}

impl Round {
    fn waited(&self) -> f64 {
        self.ours.waited_percent.max(self.peer.waited_percent)
    }
}

/// How a contest ended.
#[derive(Debug)]
pub struct Verdict {
    /// Median requests per second.
    pub ours: f64,
    /// Median requests per second.
    pub peer: f64,
    /// Rounds that count.
    pub rounds: usize,
    /// Rounds that were disturbed.
    pub discarded: usize,
    /// Everything, for the record.
    pub record: Value,
}

/// Runs rounds. `side(true)` is ours; who begins changes from round to round.
pub fn hold(
    rounds: usize,
    mut cache_line_ns: impl FnMut() -> f64,
    mut side: impl FnMut(bool, usize) -> Result<Run, String>,
) -> Result<Verdict, String> {
    let mut all: Vec<Round> = Vec::new();
    let clean = |all: &[Round]| all.iter().filter(|r| r.waited() <= WAIT_LIMIT_PERCENT).count();
    while clean(&all) < rounds && all.len() < PATIENCE * rounds {
        let number = all.len();
        let line = cache_line_ns();
        let (ours, peer) = if number.is_multiple_of(2) {
            let ours = side(true, number)?;
            (ours, side(false, number)?)
        } else {
            let peer = side(false, number)?;
            (side(true, number)?, peer)
        };
        all.push(Round { ours, peer, cache_line_ns: line });
    }
    Ok(judge(&all, rounds))
}

/// Medians over the undisturbed rounds; if they are too few, over the least disturbed.
fn judge(all: &[Round], rounds: usize) -> Verdict {
    let mut order: Vec<&Round> = all.iter().collect();
    order.sort_by(|a, b| a.waited().total_cmp(&b.waited()));
    let clean = order.iter().filter(|r| r.waited() <= WAIT_LIMIT_PERCENT).count();
    let counted = &order[..clean.max(rounds).min(order.len())];
    let of = |pick: fn(&Round) -> f64| {
        let mut numbers: Vec<f64> = counted.iter().map(|round| pick(round)).collect();
        median(&mut numbers).unwrap_or(f64::NAN)
    };
    let row = |round: &Round| {
        json!({
            "ours": round.ours.iops,
            "ours_waited_percent": round.ours.waited_percent,
            "peer": round.peer.iops,
            "peer_waited_percent": round.peer.waited_percent,
            "cache_line_round_trip_ns": round.cache_line_ns,
            "disturbed": round.waited() > WAIT_LIMIT_PERCENT,
        })
    };
    Verdict {
        ours: of(|round| round.ours.iops),
        peer: of(|round| round.peer.iops),
        rounds: clean,
        discarded: all.len() - clean,
        record: all.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disturbed_rounds_do_not_count_and_are_repeated() {
        let mut calls = Vec::new();
        let verdict = hold(
            3,
            || 100.0,
            |ours, number| {
                calls.push((number, ours));
                let waited_percent = if number == 1 && ours { 50.0 } else { 0.5 };
                let iops = if number == 1 { 1.0 } else { 1000.0 };
                Ok(Run { iops: if ours { 2.0 * iops } else { iops }, waited_percent })
            },
        );
        let verdict = verdict.unwrap();
        assert_eq!((verdict.ours, verdict.peer), (2000.0, 1000.0));
        assert_eq!((verdict.rounds, verdict.discarded), (3, 1));
        assert_eq!(calls[..4], [(0, true), (0, false), (1, false), (1, true)]);
        assert_eq!(verdict.record.as_array().map(Vec::len), Some(4));
    }

    #[test]
    fn patience_ends() {
        let mut runs = 0;
        let verdict = hold(
            2,
            || 100.0,
            |_, number| {
                runs += 1;
                let waited_percent = if number == 3 { 4.0 } else { 40.0 };
                Ok(Run { iops: if number == 3 { 7.0 } else { 5.0 }, waited_percent })
            },
        );
        let verdict = verdict.unwrap();
        assert_eq!((runs, verdict.rounds, verdict.discarded), (12, 0, 6));
        assert_eq!(verdict.ours, 6.0, "the two least disturbed rounds");
    }

    #[test]
    fn a_contender_that_fails_ends_it() {
        assert_eq!(hold(1, || 0.0, |_, _| Err("gone".to_owned())).unwrap_err(), "gone");
    }
}
