//! What of the machine decides a measurement beside the contenders.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// CPUs that this process may use, ascending.
pub fn cpus() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    parse(list.unwrap_or_default().trim())
}

/// A list such as `0-2,5`.
fn parse(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Nanoseconds for a cache line to go from the first CPU to the second and back; not a
/// number where there is one.
pub fn cache_line_ns(tessera: &Path) -> f64 {
    let output = Command::new(tessera).args(["--json", "bench", "cpus"]).output();
    let report: Option<Value> =
        output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok());
    let figure = report.and_then(|report| report["cache_line_round_trip_ns"].as_f64());
    figure.unwrap_or(f64::NAN)
}

/// The middle of some numbers; `None` without any.
pub fn median(numbers: &mut [f64]) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(numbers[middle]),
        _ => Some(f64::midpoint(numbers[middle - 1], numbers[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn lists_of_cpus() {
        assert_eq!(parse("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(parse(""), [0usize; 0]);
        assert!(!cpus().is_empty());
    }
}
