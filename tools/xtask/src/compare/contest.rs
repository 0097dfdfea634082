//! Two contenders, round after round, until enough rounds were undisturbed.

use serde_json::{Value, json};

use super::machine::median;

/// A round in which either side waited so much longer for a CPU than in its quietest round
/// tells nothing. What a side waits in every round is its own doing: that of the kernel's
/// threads which end its writes, say.
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
    /// 99 of 100 requests took at most this, where the client says so.
    pub p99_us: Option<f64>,
}

/// One round.
#[derive(Clone, Copy, Debug)]
struct Round {
    ours: Run,
    peer: Run,
    cache_line_ns: f64,
}

/// How much longer than in its quietest round a side waited in each round; the worse side.
fn excess(all: &[Round]) -> Vec<f64> {
    let least = |pick: fn(&Round) -> f64| all.iter().map(pick).fold(f64::INFINITY, f64::min);
    let ours = least(|round| round.ours.waited_percent);
    let peer = least(|round| round.peer.waited_percent);
    let of = |r: &Round| (r.ours.waited_percent - ours).max(r.peer.waited_percent - peer);
    all.iter().map(of).collect()
}

/// Rounds that nothing disturbed.
fn clean(all: &[Round]) -> usize {
    excess(all).into_iter().filter(|more| *more <= WAIT_LIMIT_PERCENT).count()
}

/// How a contest ended.
#[derive(Debug)]
pub struct Verdict {
    /// Median requests per second.
    pub ours: f64,
    /// Median requests per second.
    pub peer: f64,
    /// Median of 99 of 100 requests, ours and the peer's, where the client says so.
    pub p99_us: Option<(f64, f64)>,
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
    let mut order: Vec<(f64, &Round)> = excess(all).into_iter().zip(all).collect();
    let rows: Vec<Value> = order.iter().map(|(more, round)| row(*more, round)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let clean = clean(all);
    let counted = &order[..clean.max(rounds).min(order.len())];
    let of = |pick: fn(&Round) -> f64| {
        let mut numbers: Vec<f64> = counted.iter().map(|(_, round)| pick(round)).collect();
        median(&mut numbers).unwrap_or(f64::NAN)
    };
    let p99 = |pick: fn(&Round) -> Option<f64>| {
        median(&mut counted.iter().filter_map(|(_, round)| pick(round)).collect::<Vec<_>>())
    };
    Verdict {
        p99_us: p99(|round| round.ours.p99_us).zip(p99(|round| round.peer.p99_us)),
        ours: of(|round| round.ours.iops),
        peer: of(|round| round.peer.iops),
        rounds: clean,
        discarded: all.len() - clean,
        record: rows.into(),
    }
}

fn row(excess: f64, round: &Round) -> Value {
    json!({
        "ours": round.ours.iops,
        "ours_waited_percent": round.ours.waited_percent,
        "ours_p99_us": round.ours.p99_us,
        "peer": round.peer.iops,
        "peer_waited_percent": round.peer.waited_percent,
        "peer_p99_us": round.peer.p99_us,
        "cache_line_round_trip_ns": round.cache_line_ns,
        "disturbed": excess > WAIT_LIMIT_PERCENT,
    })
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
                Ok(Run {
                    iops: if ours { 2.0 * iops } else { iops },
                    waited_percent,
                    p99_us: (number != 1).then_some(if ours { 7.0 } else { 9.0 }),
                })
            },
        );
        let verdict = verdict.unwrap();
        assert_eq!((verdict.ours, verdict.peer), (2000.0, 1000.0));
        assert_eq!(verdict.p99_us, Some((7.0, 9.0)));
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
                let waited_percent = 4.0 * number as f64;
                let iops = if number == 1 { 7.0 } else { 5.0 };
                Ok(Run { iops, waited_percent, p99_us: None })
            },
        );
        let verdict = verdict.unwrap();
        assert_eq!((runs, verdict.rounds, verdict.discarded), (12, 1, 5));
        assert_eq!(verdict.ours, 6.0, "the two least disturbed rounds");
    }

    #[test]
    fn what_a_side_always_waits_disturbs_nothing() {
        let side = |ours: bool, _| {
            let waited_percent = if ours { 30.0 } else { 1.0 };
            Ok(Run { iops: 1.0, waited_percent, p99_us: None })
        };
        let verdict = hold(3, || 100.0, side).unwrap();
        assert_eq!((verdict.rounds, verdict.discarded), (3, 0));
    }

    #[test]
    fn a_contender_that_fails_ends_it() {
        assert_eq!(hold(1, || 0.0, |_, _| Err("gone".to_owned())).unwrap_err(), "gone");
    }
}
