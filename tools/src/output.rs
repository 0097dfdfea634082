//! Where reports go, and how quantities are written.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

/// The form of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Tables.
    Human,
    /// One JSON value.
    Json,
}

impl Form {
    /// Writes a report to stdout. A reader that has gone away is no failure.
    pub fn print<T: Serialize, D: Display>(self, report: &T, human: impl FnOnce(&T) -> D) {
        let text = match self {
            Form::Human => human(report).to_string(),
            Form::Json => serde_json::to_string_pretty(report).expect("reports have string keys"),
        };
        let _ = writeln!(io::stdout(), "{}", text.trim_end());
    }
}

/// Bytes with a binary unit and three digits: `1.50 GiB`.
#[expect(clippy::cast_precision_loss, reason = "rounded for people")]
pub fn bytes_text(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    for unit in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1023.5 {
            let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
            return format!("{value:.digits$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.0} PiB")
}

/// Microseconds with a fitting unit.
#[expect(clippy::cast_precision_loss, reason = "rounded for people")]
pub fn micros_text(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{micros} µs"),
        10_000..10_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

/// A share as a percentage; a dash if unknown.
pub fn percent_text(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.50 KiB"),
            (10 << 20, "10.0 MiB"),
            ((1 << 30) - 1, "1.00 GiB"),
            (300 << 30, "300 GiB"),
            (5 << 50, "5 PiB"),
        ] {
            assert_eq!(bytes_text(bytes), text);
        }
        assert_eq!(micros_text(950), "950 µs");
        assert_eq!(micros_text(12_340), "12.3 ms");
        assert_eq!(percent_text(Some(0.5)), "50.0 %");
        assert_eq!(percent_text(None), "-");
    }
}
