//! Scales: where a rate lies between nothing and the most, and how that is written.

/// Rates are told apart down to this part of the most.
const LEAST_PART: f64 = 1e-3;

/// Where a rate lies on a logarithmic scale from nothing, 0, to `most`, 1.
pub(super) fn level(rate: f64, most: f64) -> f64 {
    if rate <= 0.0 || most <= 0.0 {
        return 0.0;
    }
    let least = most * LEAST_PART;
    ((rate / least).ln_1p() / (most / least).ln_1p()).clamp(0.0, 1.0)
}

/// The rate at a level: the inverse of [`level`].
pub(super) fn rate_at(level: f64, most: f64) -> f64 {
    let least = most * LEAST_PART;
    least * (level * (most / least).ln_1p()).exp_m1()
}

/// A step of 1, 2 or 5 times a power of ten, so that about `count` of them make `most`.
pub(super) fn step(most: f64, count: f64) -> f64 {
    let rough = (most / count).max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|by| by * power).into_iter().find(|s| *s >= rough).unwrap_or(rough)
}

/// A rate in at most four characters or so.
pub(super) fn rate_text(rate: f64) -> String {
    match rate {
        r if r < 0.005 => "0".to_owned(),
        r if r < 0.995 => format!("{r:.2}"),
        r if r < 99.5 => format!("{r:.1}"),
        r if r < 99_500.0 => format!("{r:.0}"),
        r => format!("{:.0}k", r / 1e3),
    }
}

/// A span of time in its largest whole units: `1 h 30 min`.
pub(super) fn span_text(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let Some(at) = units.iter().position(|(unit, _)| seconds >= *unit) else {
        return "0 s".to_owned();
    };
    let (unit, name) = units[at];
    let rest = seconds % unit;
    let below = units.get(at + 1).map(|(unit, name)| (rest / unit, name));
    match below.filter(|(count, _)| *count > 0) {
        Some((count, below)) => format!("{} {name} {count} {below}", seconds / unit),
        None => format!("{} {name}", seconds / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_ascend_and_are_inverted() {
        assert_eq!((level(0.0, 10.0), level(10.0, 10.0), level(5.0, 0.0)), (0.0, 1.0, 0.0));
        let levels = [0.001, 0.1, 1.0, 5.0, 9.0].map(|rate| level(rate, 10.0));
        assert!(levels.is_sorted(), "{levels:?}");
        for rate in [0.01, 0.5, 10.0] {
            assert!((rate_at(level(rate, 10.0), 10.0) - rate).abs() < 1e-9);
        }
    }

    #[test]
    fn texts() {
        let texts = [0.0, 0.25, 12.34, 345.6, 250_000.0].map(rate_text);
        assert_eq!(texts, ["0", "0.25", "12.3", "346", "250k"]);
        let spans = [0, 59, 60, 5400, 90_000, 86_400].map(span_text);
        assert_eq!(spans, ["0 s", "59 s", "1 min", "1 h 30 min", "1 d 1 h", "1 d"]);
        assert_eq!([step(10.0, 5.0), step(97.0, 5.0), step(0.4, 4.0)], [2.0, 20.0, 0.1]);
    }
}
