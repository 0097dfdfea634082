//! The report over several seeds: what of a difference is chance.

use std::fmt::Display;

use super::Conditions;
use super::report::Row;
use crate::table::{Align, Table};

/// One prefetcher on one trace, over all seeds. Reductions in % of the misses without.
#[derive(Clone, Debug, PartialEq)]
struct Spread {
    trace: String,
    prefetch: String,
    /// Of the misses removed: mean, least and most.
    removed: (f64, f64, f64),
    /// Means of those in time, and of the extra traffic.
    timely: f64,
    extra: f64,
    /// What it removes beyond the learned one at the same seed: mean, least and most.
    beyond: Option<(f64, f64, f64)>,
}

/// Mean, least and most.
fn span(values: &[f64]) -> (f64, f64, f64) {
    let sum: f64 = values.iter().sum();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (sum / values.len() as f64, least, most)
}

fn spreads(rows: &[Row]) -> Vec<Spread> {
    let mut spreads: Vec<Spread> = Vec::new();
    for row in rows {
        let same = |other: &&Row| other.trace == row.trace && other.prefetch == row.prefetch;
        if spreads.iter().any(|known| known.trace == row.trace && known.prefetch == row.prefetch) {
            continue;
        }
        let of: Vec<&Row> = rows.iter().filter(same).collect();
        let values = |field: fn(&Row) -> f64| of.iter().map(|row| field(row)).collect::<Vec<_>>();
        let whole = |row: &Row| {
            let same = |other: &&Row| {
                other.trace == row.trace && other.seed == row.seed && other.prefetch == "learned"
            };
            let learned = rows.iter().find(same)?;
            Some(row.miss_reduction_pct - learned.miss_reduction_pct)
        };
        let beyond: Option<Vec<f64>> = of.iter().map(|row| whole(row)).collect();
        spreads.push(Spread {
            trace: row.trace.clone(),
            prefetch: row.prefetch.clone(),
            removed: span(&values(|row| row.miss_reduction_pct)),
            timely: span(&values(|row| row.timely_reduction_pct)).0,
            extra: span(&values(|row| row.extra_pct)).0,
            beyond: beyond.filter(|_| row.prefetch != "learned").map(|beyond| span(&beyond)),
        });
    }
    spreads
}

/// The report for people.
pub fn table(rows: &[Row], conditions: &Conditions, seeds: u64) -> impl Display + use<> {
    let mut table = Table::new(&[
        ("trace", Align::Left),
        ("prefetch", Align::Left),
        ("misses −%", Align::Right),
        ("least", Align::Right),
        ("most", Align::Right),
        ("in time −%", Align::Right),
        ("extra %", Align::Right),
        ("beyond learned", Align::Right),
        ("least", Align::Right),
        ("most", Align::Right),
    ]);
    for spread in spreads(rows) {
        let (mean, least, most) = spread.removed;
        let beyond = |part: fn((f64, f64, f64)) -> f64| {
            spread.beyond.map_or_else(String::new, |beyond| format!("{:+.2}", part(beyond)))
        };
        table.row([
            super::name(spread.trace.as_ref()),
            spread.prefetch,
            format!("{mean:.2}"),
            format!("{least:.2}"),
            format!("{most:.2}"),
            format!("{:.2}", spread.timely),
            format!("{:.2}", spread.extra),
            beyond(|(mean, ..)| mean),
            beyond(|(_, least, _)| least),
            beyond(|(.., most)| most),
        ]);
    }
    format!("{conditions}, {seeds} seeds\n\n{table}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_taken_at_equal_seeds() {
        assert_eq!(span(&[2.0, 4.0, 9.0]), (5.0, 2.0, 9.0));
        let row = |prefetch: &str, seed, miss_reduction_pct| Row {
            trace: "t".into(),
            prefetch: prefetch.into(),
            seed,
            miss_reduction_pct,
            timely_reduction_pct: 1.0,
            ..Row::default()
        };
        let rows = [
            row("learned", 1, 50.0),
            row("no-ids", 1, 47.0),
            row("learned", 2, 40.0),
            row("no-ids", 2, 39.0),
        ];
        let told = spreads(&rows);
        assert_eq!(told.len(), 2);
        assert_eq!((told[0].removed, told[0].beyond), ((45.0, 40.0, 50.0), None));
        assert_eq!((told[1].removed.0, told[1].beyond), (43.0, Some((-2.0, -3.0, -1.0))));
    }
}
