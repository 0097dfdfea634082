//! Heat in a terminal of 80 columns: the whole volume in one line for what was and one for what
//! is expected, and the hottest segments by name.

use super::curve::{level, rate_text, span_text};
use crate::admin::heat::{HeatReport, SegmentReport};
use crate::output::bytes_text;

/// Columns of a strip.
const STRIP: u64 = 64;
/// Segments that are named.
const NAMED: usize = 16;
/// Characters of a bar.
const BAR: usize = 20;
const SHADES: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// The whole view.
pub(super) fn text(report: &HeatReport) -> String {
    let mut text = head(report);
    if report.segments.is_empty() {
        return text + "\nNo request was counted yet.\n";
    }
    text += &strips(report);
    text += &hottest(report);
    if report.lost > 0 {
        text += &format!("\n{} requests found no room to be counted\n", report.lost);
    }
    text
}

fn head(report: &HeatReport) -> String {
    let segments = report.size_bytes.div_ceil(report.segment_bytes.max(1));
    let forecast = match (report.chosen, report.forecast_age_s) {
        (Some(chosen), Some(age)) => {
            let asked = if chosen == report.forecaster {
                chosen.to_string()
            } else {
                format!("{chosen}, chosen by {}", report.forecaster)
            };
            format!("next {} by {asked}, made {} ago", ahead(report), span_text(age))
        }
        _ => format!("none yet: {} looks ahead when a bin has closed", report.forecaster),
    };
    let spill = if report.tiering { "the forecast" } else { "last use" };
    format!(
        "volume    {}, {} in {segments} segments of {}\n\
         forecast  {forecast}\n\
         counts    {} bins of {}; spilled by {spill}\n",
        report.volume,
        bytes_text(report.size_bytes),
        bytes_text(report.segment_bytes),
        report.bins,
        span_text(report.bin_s),
    )
}

fn ahead(report: &HeatReport) -> String {
    span_text(report.horizon.seconds().into())
}

/// The rate of each of the strip's columns: of the segments in it, or of the one that it is in.
fn columns(report: &HeatReport, rate: impl Fn(&SegmentReport) -> f64) -> Vec<f64> {
    let segments = report.size_bytes.div_ceil(report.segment_bytes.max(1)).max(1);
    let mut sums = vec![0.0; usize::try_from(STRIP).expect("few")];
    for segment in &report.segments {
        let number = (segment.offset_bytes / report.segment_bytes.max(1)).min(segments - 1);
        // 128 bits: a number times 64 need not fit 64.
        let column = |number: u64| {
            let column = u128::from(number) * u128::from(STRIP) / u128::from(segments);
            usize::try_from(column).expect("at most 64")
        };
        let first = column(number);
        let end = column(number + 1).max(first + 1);
        sums[first..end].iter_mut().for_each(|sum| *sum += rate(segment));
    }
    sums
}

fn strips(report: &HeatReport) -> String {
    let now = columns(report, |segment| segment.per_s);
    let next = columns(report, |segment| segment.expected_per_s);
    let most = now.iter().chain(&next).fold(0.0, |most, rate| f64::max(most, *rate));
    let shade = |rate: &f64| {
        let steps = (SHADES.len() - 1) as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the number of shades"
        )]
        let step = (level(*rate, most) * steps).ceil() as usize;
        SHADES[step]
    };
    let strip = |rates: &[f64]| rates.iter().map(shade).collect::<String>();
    let width = usize::try_from(STRIP).expect("few");
    let label = |what: &str, time: &str| format!("{what} {time}");
    let mut text = format!(
        "\n{:14}0{:>right$}\n{:<14}{}\n",
        "",
        bytes_text(report.size_bytes),
        label("last", &span_text(report.recent_s)),
        strip(&now).trim_end(),
        right = width - 1
    );
    if report.chosen.is_some() {
        let next_label = label("next", &ahead(report));
        text += &format!("{next_label:<14}{}\n", strip(&next).trim_end());
    }
    text
}

fn hottest(report: &HeatReport) -> String {
    let forecast = report.chosen.is_some();
    let rate = |s: &SegmentReport| if forecast { s.expected_per_s } else { s.per_s };
    let mut order: Vec<&SegmentReport> = report.segments.iter().collect();
    order.sort_by(|a, b| rate(b).total_cmp(&rate(a)).then(a.offset_bytes.cmp(&b.offset_bytes)));
    let most = order.first().map_or(0.0, |segment| rate(segment));
    let mut text = format!(
        "\n{:>10}  {:>7}  {:>7}  {:>15}  {:>8}\n",
        "segment at", "last /s", "next /s", "10 to 90 %", "share"
    );
    let cells = |segment: &SegmentReport, at: &str| {
        let [low, _, high] = segment.quantiles_per_s.map(rate_text);
        let (next, range, share) = if forecast {
            let share = format!("{:.1} %", segment.probability * 100.0);
            (rate_text(segment.expected_per_s), format!("{low} to {high}"), share)
        } else {
            ("-".to_owned(), "-".to_owned(), "-".to_owned())
        };
        format!("{at:>10}  {:>7}  {next:>7}  {range:>15}  {share:>8}", rate_text(segment.per_s))
    };
    for segment in order.iter().take(NAMED) {
        let line = cells(segment, &bytes_text(segment.offset_bytes));
        text += format!("{line}  {}", bar(rate(segment), most)).trim_end();
        text.push('\n');
    }
    let rest = order.get(NAMED..).unwrap_or(&[]);
    let others = rest.len();
    let others_sum = rest.iter().copied().chain([&report.other]).fold((0.0, 0.0, 0.0), |sum, s| {
        (sum.0 + s.per_s, sum.1 + s.expected_per_s, sum.2 + s.probability)
    });
    if others > 0 || others_sum.0 + others_sum.1 > 0.0 {
        let (last, next, share) = others_sum;
        let next = if forecast { rate_text(next) } else { "-".to_owned() };
        let share = if forecast { format!("{:.1} %", share * 100.0) } else { "-".to_owned() };
        text += &format!(
            "{:>10}  {:>7}  {next:>7}  {:>15}  {share:>8}\n",
            "others",
            rate_text(last),
            ""
        );
    }
    text
}

/// A bar in eighths of a character.
fn bar(rate: f64, most: f64) -> String {
    if most <= 0.0 {
        return String::new();
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the length of a bar"
    )]
    let eighths = ((rate / most).clamp(0.0, 1.0) * (BAR * 8) as f64).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8]);
    }
    bar
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::admin::heat::{ForecasterKind, HeatMapReport};

    /// 64 segments, of which the first and the last are hot.
    pub fn report() -> HeatReport {
        let segment = |at: u64, per_s: f64, probability: f64| SegmentReport {
            offset_bytes: at << 24,
            per_s,
            expected_per_s: 2.0 * per_s,
            quantiles_per_s: [per_s, 2.0 * per_s, 3.0 * per_s],
            probability,
            ..SegmentReport::default()
        };
        HeatReport {
            volume: "v<1>".to_owned(),
            size_bytes: 64 << 24,
            segment_bytes: 1 << 24,
            chosen: Some(ForecasterKind::Lstm),
            bin_s: 30,
            bins: 3,
            forecast_age_s: Some(7),
            tiering: true,
            recent_s: 90,
            segments: vec![segment(0, 50.0, 0.8), segment(9, 0.1, 0.01), segment(63, 10.0, 0.19)],
            map: Some(HeatMapReport {
                start_unix_s: 1_800_000_000,
                column_s: 30,
                offset_bytes: 0,
                row_bytes: 1 << 24,
                rows: (0..64).map(|row| vec![row * 3, 0, 5, 5]).collect(),
            }),
            ..HeatReport::default()
        }
    }

    #[test]
    fn the_hottest_are_named_first_and_lines_are_short() {
        let text = text(&report());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let names: Vec<&str> = text.lines().filter(|l| l.contains(" to ")).collect();
        let starts = |line: usize, at: &str| names[line].trim_start().starts_with(at);
        assert!(starts(1, "0 B") && starts(2, "1008 MiB") && starts(3, "144 MiB"), "{text}");
        assert!(names[1].ends_with(&"█".repeat(BAR)) && names[2].contains("████"), "{text}");
        let strip = text.lines().find(|line| line.starts_with("next 5 min")).unwrap();
        assert_eq!((strip.chars().nth(14), strip.chars().nth(77)), (Some('█'), Some('▇')));
        assert!(text.contains("by lstm, chosen by auto, made 7 s ago"), "{text}");
    }

    #[test]
    fn before_the_first_forecast_it_says_so() {
        let mut early = HeatReport { chosen: None, forecast_age_s: None, ..report() };
        assert!(text(&early).contains("none yet"));
        assert!(text(&early).contains("50.0        -"), "{}", text(&early));
        early.segments.clear();
        assert!(text(&early).contains("No request was counted yet."));
    }

    #[test]
    fn bars_are_proportional() {
        assert_eq!(bar(1.0, 1.0), "█".repeat(BAR));
        assert_eq!(bar(0.5, 1.0), "█".repeat(BAR / 2));
        assert_eq!(bar(1.0 / 160.0, 1.0), "▏");
        assert_eq!((bar(0.0, 1.0), bar(1.0, 0.0)), (String::new(), String::new()));
    }
}
