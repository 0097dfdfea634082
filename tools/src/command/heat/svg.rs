//! Heat as a picture: requests over time and address, and what is expected of each address.

use super::curve::{level, rate_at, rate_text, span_text, step};
use crate::admin::heat::{HeatMapReport, HeatReport};
use crate::output::bytes_text;

/// A rectangle of the picture, in pixels.
struct Area {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

const WIDTH: u32 = 1200;
const HEIGHT: u32 = 640;
const MAP: Area = Area { x: 92.0, y: 84.0, width: 620.0, height: 470.0 };
const SCALE: Area = Area { x: 732.0, y: 84.0, width: 14.0, height: 470.0 };
const BARS: Area = Area { x: 880.0, y: 84.0, width: 290.0, height: 470.0 };
/// Colours that are told apart.
const COLOURS: u8 = 64;
/// Viridis at equal distances; what lies between is interpolated.
const VIRIDIS: [[u8; 3]; 9] = [
    [68, 1, 84],
    [71, 45, 123],
    [59, 82, 139],
    [44, 114, 142],
    [33, 144, 141],
    [39, 173, 129],
    [93, 200, 99],
    [170, 220, 50],
    [253, 231, 37],
];
const STYLE: &str = "text{font-family:'DejaVu Sans',Helvetica,Arial,sans-serif;font-size:12px;\
fill:#333}.h{font-size:17px;fill:#111}.s{fill:#666}.e{text-anchor:end}.m{text-anchor:middle}\
.g{stroke:#e4e4e4}.a{stroke:#888}.b{fill:#35608d}.w{stroke:#222}.d{fill:#e8743b}";

/// The picture of a report that has a map.
pub(super) fn draw(report: &HeatReport) -> String {
    let empty = HeatMapReport::default();
    let map = report.map.as_ref().unwrap_or(&empty);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         viewBox=\"0 0 {WIDTH} {HEIGHT}\">\n<style>{STYLE}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    titles(&mut out, report);
    if map.rows.is_empty() {
        text(&mut out, (MAP.x, MAP.y + 20.0), "s", "no request was counted yet");
    } else {
        let most = hottest(map);
        cells(&mut out, map, most);
        addresses(&mut out, map);
        times(&mut out, map);
        colours(&mut out, most);
        expected(&mut out, report, map);
    }
    out += "</svg>\n";
    out
}

fn text(out: &mut String, (x, y): (f64, f64), class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    *out += &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>\n");
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), class: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    *out += &format!(
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>\n"
    );
}

fn titles(out: &mut String, report: &HeatReport) {
    let segments = bytes_text(report.segment_bytes);
    let title = format!("Heat of {}, {}", report.volume, bytes_text(report.size_bytes));
    text(out, (MAP.x, 34.0), "h", &title);
    text(out, (MAP.x, 56.0), "s", &format!("requests per second and row, segments of {segments}"));
    text(
        out,
        (BARS.x, 34.0),
        "h",
        &format!("Expected of the next {}", span_text(report.horizon.seconds().into())),
    );
    let by = match (report.chosen, report.forecast_age_s) {
        (Some(chosen), Some(age)) => {
            format!("by {chosen}, made {} ago; above: share of all", span_text(age))
        }
        _ => "no forecast yet".to_owned(),
    };
    text(out, (BARS.x, 56.0), "s", &by);
}

/// Requests per second of the hottest cell.
fn hottest(map: &HeatMapReport) -> f64 {
    let most = map.rows.iter().flatten().max().copied().unwrap_or(0);
    most as f64 / map.column_s.max(1) as f64
}

/// One of the colours, from cold, 0, to hot, 1.
fn colour(level: f64) -> String {
    let steps = f64::from(COLOURS - 1);
    let place = (level.clamp(0.0, 1.0) * steps).round() / steps * (VIRIDIS.len() - 1) as f64;
    let below = (0..VIRIDIS.len() - 1).rev().find(|at| *at as f64 <= place).unwrap_or(0);
    let part = place - below as f64;
    let [r, g, b] = [0, 1, 2].map(|at| {
        let (from, to) = (f64::from(VIRIDIS[below][at]), f64::from(VIRIDIS[below + 1][at]));
        (from + part * (to - from)).round()
    });
    format!("rgb({r},{g},{b})")
}

/// One rectangle for each run of equal colours in a row, on a ground of the coldest.
fn cells(out: &mut String, map: &HeatMapReport, most: f64) {
    let Area { x, y, width, height } = MAP;
    let ground = colour(0.0);
    *out += &format!(
        "<g shape-rendering=\"crispEdges\">\n<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" \
         height=\"{height}\" fill=\"{ground}\"/>\n"
    );
    let high = height / map.rows.len() as f64;
    for (number, row) in map.rows.iter().enumerate() {
        let wide = width / row.len().max(1) as f64;
        let of =
            |requests: &u64| colour(level(*requests as f64 / map.column_s.max(1) as f64, most));
        let colours: Vec<String> = row.iter().map(of).collect();
        let mut start = 0;
        for run in colours.chunk_by(|a, b| a == b) {
            if run[0] != ground {
                let (left, top) = (x + start as f64 * wide, y + number as f64 * high);
                let wide = run.len() as f64 * wide;
                *out += &format!(
                    "<rect x=\"{left:.2}\" y=\"{top:.2}\" width=\"{wide:.2}\" \
                     height=\"{high:.2}\" fill=\"{}\"/>\n",
                    run[0]
                );
            }
            start += run.len();
        }
    }
    *out += "</g>\n";
}

/// Offsets at the left of both panels.
fn addresses(out: &mut String, map: &HeatMapReport) {
    let rows = map.rows.len();
    let every = rows.div_ceil(8).next_power_of_two();
    let high = MAP.height / rows as f64;
    for row in (0..rows).step_by(every) {
        let y = MAP.y + row as f64 * high;
        let offset = map.offset_bytes.saturating_add(map.row_bytes.saturating_mul(row as u64));
        for area in [&MAP, &BARS] {
            line(out, (area.x - 5.0, y), (area.x, y), "a");
            text(out, (area.x - 9.0, y + 4.0), "e", &bytes_text(offset));
        }
    }
}

/// How long ago, below the map.
fn times(out: &mut String, map: &HeatMapReport) {
    let columns = map.rows[0].len() as u64;
    let all_s = columns * map.column_s;
    let steps =
        [10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 172_800];
    let every = steps.into_iter().find(|every| all_s / every <= 6).unwrap_or(all_s.max(1));
    let bottom = MAP.y + MAP.height;
    for ago in (0..=all_s / every).map(|step| step * every) {
        let x = MAP.x + MAP.width * (1.0 - ago as f64 / all_s.max(1) as f64);
        line(out, (x, bottom), (x, bottom + 5.0), "a");
        let label = if ago == 0 { "now".to_owned() } else { format!("−{}", span_text(ago)) };
        text(out, (x, bottom + 20.0), "m", &label);
    }
    let columns = format!("columns of {}; the last is not over", span_text(map.column_s));
    text(out, (MAP.x + MAP.width / 2.0, bottom + 44.0), "s m", &columns);
}

/// What the colours mean.
fn colours(out: &mut String, most: f64) {
    let Area { x, y, width, height } = SCALE;
    let high = height / f64::from(COLOURS);
    *out += "<g shape-rendering=\"crispEdges\">\n";
    for at in 0..COLOURS {
        let level = f64::from(at) / f64::from(COLOURS - 1);
        let top = y + height - f64::from(at + 1) * high;
        *out += &format!(
            "<rect x=\"{x}\" y=\"{top:.2}\" width=\"{width}\" height=\"{high:.2}\" fill=\"{}\"/>\n",
            colour(level)
        );
    }
    *out += "</g>\n";
    for level in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let at = y + height * (1.0 - level);
        line(out, (x + width, at), (x + width + 4.0, at), "a");
        text(out, (x + width + 8.0, at + 4.0), "", &rate_text(rate_at(level, most)));
    }
    text(out, (x - 2.0, y + height + 44.0), "s", "per second");
}

/// What one row of the map is expected to get, in requests per second.
#[derive(Clone, Copy, Default)]
struct Ahead {
    expected: f64,
    recent: f64,
    low: f64,
    high: f64,
}

fn ahead(report: &HeatReport, map: &HeatMapReport) -> Vec<Ahead> {
    let mut rows = vec![Ahead::default(); map.rows.len()];
    for segment in &report.segments {
        let above = segment.offset_bytes.checked_sub(map.offset_bytes);
        let row = above.map(|bytes| bytes / map.row_bytes.max(1));
        let row = row.and_then(|row| usize::try_from(row).ok());
        if let Some(row) = row.and_then(|row| rows.get_mut(row)) {
            row.expected += segment.expected_per_s;
            row.recent += segment.per_s;
            row.low += segment.quantiles_per_s[0];
            row.high += segment.quantiles_per_s[2];
        }
    }
    rows
}

/// Bars of what is expected at each address, in requests and as a part of the volume's.
fn expected(out: &mut String, report: &HeatReport, map: &HeatMapReport) {
    let Area { x, y, width, height } = BARS;
    let rows = ahead(report, map);
    // The quantiles of several segments together are not the sums of theirs.
    let single = map.row_bytes == report.segment_bytes;
    let largest = |row: &Ahead| {
        let high = if single { row.high } else { 0.0 };
        row.expected.max(row.recent).max(high)
    };
    let most = rows.iter().map(largest).fold(0.0, f64::max).max(1e-9);
    let place = |rate: f64| x + width * rate / most;
    let all = rows.iter().map(|row| row.expected).sum::<f64>() + report.other.expected_per_s;
    let every = step(most, 5.0);
    let ticks = (0..=5_u8).map(|tick| f64::from(tick) * every).filter(|rate| *rate <= most);
    for rate in ticks {
        line(out, (place(rate), y), (place(rate), y + height), "g");
        text(out, (place(rate), y + height + 20.0), "m", &rate_text(rate));
        if all > 0.0 {
            let share = format!("{:.0} %", 100.0 * rate / all);
            text(out, (place(rate), y - 8.0), "s m", &share);
        }
    }
    let high = height / rows.len() as f64;
    let thick = (high * 0.8).max(1.0);
    for (number, row) in rows.iter().enumerate() {
        let middle = y + (number as f64 + 0.5) * high;
        if row.expected > 0.0 {
            *out += &format!(
                "<rect x=\"{x}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{thick:.2}\" class=\"b\"/>\n",
                middle - thick / 2.0,
                place(row.expected) - x
            );
            if single && row.high > row.low {
                line(out, (place(row.low), middle), (place(row.high), middle), "w");
            }
        }
        if row.recent > 0.0 {
            let at = place(row.recent);
            *out += &format!("<circle cx=\"{at:.1}\" cy=\"{middle:.1}\" r=\"2.5\" class=\"d\"/>\n");
        }
    }
    line(out, (x, y), (x, y + height), "a");
    key(out, report, single);
}

/// What the marks of the bars mean.
fn key(out: &mut String, report: &HeatReport, single: bool) {
    let y = BARS.y + BARS.height + 44.0;
    let x = BARS.x;
    *out += &format!("<rect x=\"{x}\" y=\"{}\" width=\"14\" height=\"8\" class=\"b\"/>\n", y - 8.0);
    text(out, (x + 19.0, y), "s", "expected per second");
    *out += &format!("<circle cx=\"{}\" cy=\"{}\" r=\"3\" class=\"d\"/>\n", x + 164.0, y - 4.0);
    text(out, (x + 172.0, y), "s", &format!("last {}", span_text(report.recent_s)));
    if single {
        line(out, (x, y + 16.0), (x + 14.0, y + 16.0), "w");
        text(out, (x + 19.0, y + 20.0), "s", "10 to 90 %");
    }
    if report.other.expected_per_s >= 0.005 {
        let other = rate_text(report.other.expected_per_s);
        text(out, (x + 164.0, y + 20.0), "s", &format!("elsewhere: {other} per second"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::report;
    use super::*;

    #[test]
    fn every_cell_and_row_has_its_place() {
        let picture = draw(&report());
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert!(picture.contains("Heat of v&lt;1&gt;, 1.00 GiB"), "names are escaped");
        for open in ["<g", "<text"] {
            let close = open.replace('<', "</");
            assert_eq!(picture.matches(open).count(), picture.matches(&close).count(), "{open}");
        }
        // The hottest cell of the map is that of the last row: 189 in 30 s.
        assert!(picture.contains(&format!("fill=\"{}\"", colour(1.0))));
        assert_eq!(picture.matches("class=\"b\"").count(), 3 + 1, "a bar for each, and the key");
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
    }

    #[test]
    fn colours_go_from_dark_to_light() {
        assert_eq!((colour(0.0), colour(1.0)), ("rgb(68,1,84)".into(), "rgb(253,231,37)".into()));
        assert_eq!((colour(-1.0), colour(2.0)), (colour(0.0), colour(1.0)));
    }

    #[test]
    fn nothing_to_draw_is_said() {
        let picture = draw(&HeatReport::default());
        assert!(picture.contains("no request was counted yet") && picture.ends_with("</svg>\n"));
    }
}
