//! The picture of the laboratory: misses over time, a panel for each trace, as SVG.
//!
//! Lines are drawn in the order of the report, the learned prefetcher last and bold; the
//! legend lists them as they end, from the most misses to the least.

use std::fmt::Write;

use predictor::lab::{Contender, Run};

use super::{Runs, Trace};

const WIDTH: f64 = 1000.0;
/// Of one panel with its title and axis.
const HEIGHT: f64 = 440.0;
const HEAD: f64 = 64.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 250.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 56.0;
const PLOT_WIDTH: f64 = WIDTH - LEFT - RIGHT;
const PLOT_HEIGHT: f64 = HEIGHT - TOP - BOTTOM;
/// Ticks of an axis, about.
const TICKS: f64 = 8.0;

/// Colours that are told apart in print, too; with the dashes a pair for each line.
const COLOURS: [&str; 7] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8c564b", "#7a7a00"];
const DASHES: [&str; 3] = ["", "7 3", "2 3"];

/// One trace.
#[derive(Clone, Debug)]
pub struct Panel {
    title: String,
    x_label: String,
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
struct Line {
    name: String,
    style: Style,
    points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug)]
struct Style {
    colour: &'static str,
    dash: &'static str,
    width: f64,
}

impl Panel {
    /// The misses of the runs on a trace.
    pub fn new(trace: &Trace, runs: &Runs) -> Panel {
        let end = runs.none.curve.last().map_or(0, |point| point.at) as f64;
        let (unit, x_label) = match end {
            _ if !trace.has_clock => (1.0, "requests"),
            end if end < 300e9 => (1e9, "seconds"),
            end if end < 3.0 * 3600e9 => (60e9, "minutes"),
            _ => (3600e9, "hours"),
        };
        let line = |number: usize, contender: Contender, run: &Run| Line {
            name: contender.to_string(),
            style: style(number, contender),
            points: run.curve.iter().map(|p| (p.at as f64 / unit, p.misses as f64)).collect(),
        };
        let numbered = runs.runs.iter().enumerate();
        let mut lines: Vec<Line> =
            numbered.map(|(number, (contender, run))| line(number, *contender, run)).collect();
        lines.sort_by_key(|line| line.name == Contender::Learned.to_string());
        Panel { title: trace.name.clone(), x_label: x_label.to_owned(), lines }
    }
}

fn style(number: usize, contender: Contender) -> Style {
    match contender {
        Contender::None => Style { colour: "#222222", dash: "", width: 2.2 },
        Contender::Learned => Style { colour: "#d40000", dash: "", width: 3.2 },
        Contender::Oracle => Style { colour: "#888888", dash: "2 3", width: 2.0 },
        Contender::OracleCandidates => Style { colour: "#888888", dash: "8 4", width: 2.0 },
        _ => Style {
            colour: COLOURS[number % COLOURS.len()],
            dash: DASHES[number / COLOURS.len() % DASHES.len()],
            width: 1.6,
        },
    }
}

/// The whole picture; `conditions` stand below its title.
pub fn draw(conditions: &str, panels: &[Panel]) -> String {
    let mut out = String::new();
    let height = HEAD + HEIGHT * panels.len() as f64;
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\">\n\
         <title>Demand misses over time, by prefetcher</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    text(&mut out, (LEFT, 28.0), "Demand misses over time, by prefetcher", "font-size=\"20\"");
    text(&mut out, (LEFT, 50.0), conditions, "fill=\"#555555\"");
    for (number, panel) in panels.iter().enumerate() {
        let y = HEAD + HEIGHT * number as f64;
        let _ = writeln!(out, "<g transform=\"translate({LEFT} {})\">", y + TOP);
        panel.draw(&mut out);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

impl Panel {
    fn draw(&self, out: &mut String) {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x_end = points().map(|point| point.0).fold(f64::MIN_POSITIVE, f64::max);
        let y_end = points().map(|point| point.1).fold(1.0, f64::max);
        let y_step = tick(y_end);
        let y_top = (y_end / y_step).ceil() * y_step;
        let at = |x: f64, y: f64| (x / x_end * PLOT_WIDTH, PLOT_HEIGHT - y / y_top * PLOT_HEIGHT);
        text(out, (0.0, -14.0), &self.title, "font-size=\"16\" font-weight=\"bold\"");
        for y in steps(y_step, y_top) {
            let (_, y_at) = at(0.0, y);
            rule(out, (0.0, y_at), (PLOT_WIDTH, y_at), "#e4e4e4");
            text(out, (-8.0, y_at + 4.5), &number(y, y_step), "text-anchor=\"end\"");
        }
        let x_step = tick(x_end);
        for x in steps(x_step, x_end) {
            let (x_at, _) = at(x, 0.0);
            rule(out, (x_at, PLOT_HEIGHT), (x_at, PLOT_HEIGHT + 5.0), "#555555");
            let place = (x_at, PLOT_HEIGHT + 20.0);
            text(out, place, &number(x, x_step), "text-anchor=\"middle\"");
        }
        rule(out, (0.0, PLOT_HEIGHT), (PLOT_WIDTH, PLOT_HEIGHT), "#555555");
        rule(out, (0.0, 0.0), (0.0, PLOT_HEIGHT), "#555555");
        let middle = (PLOT_WIDTH / 2.0, PLOT_HEIGHT + 42.0);
        text(out, middle, &self.x_label, "text-anchor=\"middle\"");
        let turned = format!(
            "text-anchor=\"middle\" transform=\"translate(-66 {}) rotate(-90)\"",
            PLOT_HEIGHT / 2.0
        );
        text(out, (0.0, 0.0), "demand misses so far", &turned);
        for line in &self.lines {
            let points: Vec<(f64, f64)> = line.points.iter().map(|(x, y)| at(*x, *y)).collect();
            line.style.stroke(out, &points);
        }
        self.legend(out);
    }

    fn legend(&self, out: &mut String) {
        let last = |line: &Line| line.points.last().map_or(0.0, |point| point.1);
        let mut lines: Vec<&Line> = self.lines.iter().collect();
        lines.sort_by(|a, b| last(b).total_cmp(&last(a)));
        let pitch = (PLOT_HEIGHT / lines.len().max(1) as f64).min(19.0);
        for (number, line) in lines.into_iter().enumerate() {
            let y = 6.0 + pitch * number as f64;
            let left = PLOT_WIDTH + 18.0;
            line.style.stroke(out, &[(left, y), (left + 30.0, y)]);
            let weight = if line.style.width > 3.0 { "font-weight=\"bold\"" } else { "" };
            text(out, (left + 38.0, y + 4.5), &line.name, weight);
            let misses = format!("{:.0}", last(line));
            text(out, (PLOT_WIDTH + RIGHT - 14.0, y + 4.5), &misses, "text-anchor=\"end\"");
        }
    }
}

impl Style {
    fn stroke(&self, out: &mut String, points: &[(f64, f64)]) {
        let Style { colour, dash, width } = self;
        let _ = write!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" \
             stroke-linejoin=\"round\""
        );
        if !dash.is_empty() {
            let _ = write!(out, " stroke-dasharray=\"{dash}\"");
        }
        out.push_str(" points=\"");
        for (x, y) in points {
            let _ = write!(out, "{x:.1},{y:.1} ");
        }
        out.truncate(out.trim_end().len());
        out.push_str("\"/>\n");
    }
}

/// A distance of ticks: 1, 2 or 5 times a power of ten.
fn tick(end: f64) -> f64 {
    let rough = end / TICKS;
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= rough).unwrap_or(10.0 * power)
}

fn steps(step: f64, end: f64) -> impl Iterator<Item = f64> {
    (0..100).map(move |n| f64::from(n) * step).take_while(move |at| *at <= end * 1.000_001)
}

/// A tick's label, with as many digits as its step needs.
fn number(value: f64, step: f64) -> String {
    let digits = if step < 1.0 { usize::from(step < 0.1) + 1 } else { 0 };
    format!("{value:.digits$}")
}

fn rule(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(out: &mut String, at: (f64, f64), content: &str, attributes: &str) {
    let _ = write!(out, "<text x=\"{:.1}\" y=\"{:.1}\" {attributes}>", at.0, at.1);
    for c in content.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // No other control character may stand in XML.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out.push_str("</text>\n");
}
