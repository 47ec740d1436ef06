//! The latency plot: latency over percentile, as an SVG file without scripts or fonts of its own.
//!
//! The percentile axis is logarithmic in the share of slower requests (90 %, 99 %, 99.9 %, ... are equally far apart), so
//! that the tail, which is what matters, takes most of the room. The latency axis is logarithmic too.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::report::{Report, Row, grouped, latency};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 936.0;
const TOP: f64 = 112.0;
const BOTTOM: f64 = 452.0;
/// Colours that people with any colour vision tell apart (Okabe and Ito).
const COLOURS: &[&str] = &["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0c800", "#777777"];
/// Height of a line of the legend.
const LEGEND_LINE: f64 = 20.0;
/// Points per line.
const STEPS: u32 = 400;
/// Percentiles that are marked on each line and told in the legend.
const MARKED: &[f64] = &[50.0, 99.0, 99.9];

/// The plot of a run.
pub(super) fn svg(report: &Report) -> String {
    let rows: Vec<Row<'_>> = report.rows().into_iter().filter(|row| !row.latencies.is_empty()).collect();
    let axes = Axes::around(&rows);
    let height = BOTTOM + 96.0 + LEGEND_LINE * rows.len() as f64;
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="13" fill="#222">
<title>{title}</title>
<rect width="{WIDTH}" height="{height}" fill="#fff"/>
<text x="{LEFT}" y="36" font-size="20" font-weight="600">{title}</text>"##,
        title = escaped(&format!("Latency by percentile: {}", report.heading())),
    );
    for (line, text) in wrapped(&report.conditions(), 128).iter().take(3).enumerate() {
        let _ = writeln!(svg, r##"<text x="{LEFT}" y="{}" fill="#555">{}</text>"##, 60 + 18 * line, escaped(text));
    }
    axes.draw(&mut svg);
    for (place, row) in rows.iter().enumerate() {
        draw_row(&mut svg, &axes, row, place);
    }
    draw_legend(&mut svg, &rows, report.took.as_secs_f64());
    svg.push_str("</svg>\n");
    svg
}

/// Where a percentile and a latency lie on the page.
struct Axes {
    /// Powers of ten of the share of slower requests at the right end: 3 is 99.9 %.
    nines: f64,
    /// Powers of ten of the latency in nanoseconds at the bottom and at the top.
    low: f64,
    high: f64,
}

impl Axes {
    fn around(rows: &[Row<'_>]) -> Self {
        let count = rows.iter().map(|row| row.latencies.len()).max().unwrap_or(1);
        let low = rows.iter().map(|row| row.latencies.min()).min().unwrap_or(1).max(1) as f64;
        let high = rows.iter().map(|row| row.latencies.max()).max().unwrap_or(10).max(1) as f64;
        let (low, high) = (step_below(low * 0.95).log10(), step_above(high * 1.05).log10());
        Axes { nines: (count as f64).log10().clamp(2.0, 6.0), low, high: high.max(low + 0.5) }
    }

    fn x(&self, percentile: f64) -> f64 {
        let slower = ((100.0 - percentile) / 100.0).max(1e-9);
        LEFT + (-slower.log10() / self.nines).min(1.0) * (RIGHT - LEFT)
    }

    fn y(&self, nanoseconds: f64) -> f64 {
        let share = (nanoseconds.max(1.0).log10() - self.low) / (self.high - self.low);
        BOTTOM - share.clamp(0.0, 1.0) * (BOTTOM - TOP)
    }

    fn draw(&self, svg: &mut String) {
        let decades = (self.high - self.low).ceil() as i32;
        for exponent in (self.low.floor() as i32)..=(self.high.ceil() as i32) {
            for digit in 1..10 {
                let nanoseconds = f64::from(digit) * 10_f64.powi(exponent);
                let place = nanoseconds.log10();
                if place < self.low - 1e-9 || place > self.high + 1e-9 {
                    continue;
                }
                let labelled = digit == 1 || (decades <= 3 && matches!(digit, 2 | 5));
                let y = self.y(nanoseconds);
                let colour = if labelled { "#d5d5d5" } else { "#f0f0f0" };
                let _ = writeln!(svg, r##"<path d="M{LEFT} {y:.1}H{RIGHT}" stroke="{colour}"/>"##);
                if labelled {
                    let text = tick_text(nanoseconds);
                    let _ = writeln!(
                        svg,
                        r##"<text x="{}" y="{:.1}" text-anchor="end">{text}</text>"##,
                        LEFT - 8.0,
                        y + 4.5
                    );
                }
            }
        }
        for (text, percentile) in [
            ("0 %", 0.0),
            ("50 %", 50.0),
            ("90 %", 90.0),
            ("99 %", 99.0),
            ("99.9 %", 99.9),
            ("99.99 %", 99.99),
            ("99.999 %", 99.999),
            ("99.9999 %", 99.9999),
        ] {
            let x = self.x(percentile);
            if percentile > 0.0 && -((100.0 - percentile) / 100.0).log10() > self.nines + 1e-6 {
                continue;
            }
            let anchor = if x > RIGHT - 20.0 { "end" } else { "middle" };
            let _ = writeln!(svg, r##"<path d="M{x:.1} {TOP}V{BOTTOM}" stroke="#d5d5d5"/>"##);
            let _ = writeln!(svg, r##"<text x="{x:.1}" y="{}" text-anchor="{anchor}">{text}</text>"##, BOTTOM + 20.0);
        }
        let middle = (LEFT + RIGHT) / 2.0;
        let _ = writeln!(svg, r##"<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" fill="none" stroke="#222"/>"##);
        let _ = writeln!(
            svg,
            r##"<text x="{middle}" y="{}" text-anchor="middle">Percentile: share of the requests answered within the latency</text>"##,
            BOTTOM + 42.0
        );
        let middle = (TOP + BOTTOM) / 2.0;
        let _ = writeln!(
            svg,
            r##"<text transform="translate(22 {middle}) rotate(-90)" text-anchor="middle">Latency</text>"##
        );
    }
}

fn draw_row(svg: &mut String, axes: &Axes, row: &Row<'_>, place: usize) {
    let latencies = &row.latencies;
    let last = 100.0 - 100.0 / (latencies.len() as f64).max(1.0);
    let right = axes.x(last.max(50.0));
    let mut path = String::new();
    for step in 0..=STEPS {
        let x = LEFT + (right - LEFT) * f64::from(step) / f64::from(STEPS);
        let slower = 10_f64.powf(-(x - LEFT) / (RIGHT - LEFT) * axes.nines);
        let y = axes.y(latencies.value_at_quantile(1.0 - slower) as f64);
        let _ = write!(path, "{}{x:.1} {y:.1}", if step == 0 { "M" } else { "L" });
    }
    let line = stroke(row, place);
    let _ = writeln!(svg, r##"<path d="{path}" {line}/>"##);
    let marked = MARKED.iter().filter(|percentile| **percentile <= last && row.name != "all");
    for percentile in marked {
        let (x, y) = (axes.x(*percentile), axes.y(latencies.value_at_percentile(*percentile) as f64));
        let _ = writeln!(svg, r##"<circle cx="{x:.1}" cy="{y:.1}" r="4" {}/>"##, line.replace("none", "#fff"));
    }
}

/// The figures of each line, as a table below the plot.
fn draw_legend(svg: &mut String, rows: &[Row<'_>], seconds: f64) {
    let titles = ["ops/s", "p50", "p99", "p99.9", "max"].map(str::to_owned);
    draw_figures(svg, BOTTOM + 74.0, "#555", &titles);
    for (place, row) in rows.iter().enumerate() {
        let y = BOTTOM + 74.0 + LEGEND_LINE * (place + 1) as f64;
        let _ = writeln!(svg, r##"<path d="M{LEFT} {:.1}h28" {}/>"##, y - 4.5, stroke(row, place));
        let _ = writeln!(svg, r##"<text x="{}" y="{y}">{}</text>"##, LEFT + 38.0, escaped(row.name));
        draw_figures(svg, y, "#222", &legend_figures(&row.latencies, seconds));
    }
}

/// One line of the table, each figure ending at the right edge of its column.
fn draw_figures(svg: &mut String, y: f64, colour: &str, figures: &[String; 5]) {
    for (place, figure) in figures.iter().enumerate() {
        let x = LEFT + 230.0 + 130.0 * place as f64;
        let _ = writeln!(svg, r##"<text x="{x}" y="{y}" text-anchor="end" fill="{colour}">{figure}</text>"##);
    }
}

fn legend_figures(latencies: &Histogram<u64>, seconds: f64) -> [String; 5] {
    let at = |percentile: f64| latency(latencies.value_at_percentile(percentile)).replace("us", "µs");
    let per_second = grouped((latencies.len() as f64 / seconds.max(1e-9)) as u64);
    [per_second, at(50.0), at(99.0), at(99.9), at(100.0)]
}

/// How the line of a row looks; the line for all commands is black and dashed.
fn stroke(row: &Row<'_>, place: usize) -> String {
    let (colour, dashes) = match row.name {
        "all" => ("#000", r#" stroke-dasharray="6 4""#),
        _ => (COLOURS[place % COLOURS.len()], ""),
    };
    format!(r#"fill="none" stroke="{colour}" stroke-width="2.2" stroke-linejoin="round"{dashes}"#)
}

/// The next of 1, 2, 5, 10, ... below.
fn step_below(number: f64) -> f64 {
    let power = 10_f64.powf(number.log10().floor());
    [5.0, 2.0].into_iter().map(|digit| digit * power).find(|step| *step <= number).unwrap_or(power)
}

/// The next of 1, 2, 5, 10, ... above.
fn step_above(number: f64) -> f64 {
    let power = 10_f64.powf(number.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|step| *step >= number).unwrap_or(10.0 * power)
}

fn tick_text(nanoseconds: f64) -> String {
    let (number, unit) = if nanoseconds < 999.5 {
        (nanoseconds, "ns")
    } else if nanoseconds < 999_500.0 {
        (nanoseconds / 1e3, "µs")
    } else if nanoseconds < 999_500_000.0 {
        (nanoseconds / 1e6, "ms")
    } else {
        (nanoseconds / 1e9, "s")
    };
    format!("{} {unit}", number.round())
}

/// Breaks a list at its commas into lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in text.split(", ") {
        match lines.last_mut() {
            Some(line) if line.len() + part.len() + 2 <= width => {
                line.push_str(", ");
                line.push_str(part);
            }
            _ => lines.push(part.to_owned()),
        }
    }
    lines
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            control if control.is_control() => safe.push(' '),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::super::load::Measured;
    use super::super::workload::Verb;
    use super::*;
    use crate::arguments::BenchArguments;

    #[test]
    fn ticks_are_the_steps_around_the_latencies() {
        assert_eq!([step_below(1.0), step_below(4.9), step_below(30.0)], [1.0, 2.0, 20.0]);
        assert_eq!([step_above(1.0), step_above(5.1), step_above(30.0)], [1.0, 10.0, 50.0]);
        assert_eq!([200.0, 1e3, 2e6, 1e9].map(tick_text), ["200 ns", "1 µs", "2 ms", "1 s"]);
    }

    #[test]
    fn the_percentile_axis_gives_each_nine_the_same_room() {
        let axes = Axes { nines: 4.0, low: 3.0, high: 6.0 };
        let gap = axes.x(90.0) - axes.x(0.0);
        assert!((axes.x(99.0) - axes.x(90.0) - gap).abs() < 0.01);
        assert!((axes.x(99.99) - RIGHT).abs() < 0.01);
        assert!((axes.y(1e3) - BOTTOM).abs() < 0.01 && (axes.y(1e6) - TOP).abs() < 0.01);
    }

    fn report() -> Report {
        let given = ["bench", "--mix", "get:90,set:10,ping"];
        let mut measured = Measured::new(3);
        for (place, histogram) in measured.latencies.iter_mut().enumerate() {
            (1..2000).for_each(|n| histogram.saturating_record(n * 1000 * (place as u64 + 1)));
        }
        Report {
            server: "bowline 0.1.0".to_owned(),
            title: Some("before & <after>".to_owned()),
            address: "127.0.0.1:6379".to_owned(),
            durability: Some("always".to_owned()),
            load: BenchArguments::parse_from(given).load,
            verbs: vec![Verb::Get, Verb::Set, Verb::Ping],
            measured,
            took: Duration::from_secs(2),
            busy: 0.5,
            seconds: Vec::new(),
        }
    }

    #[test]
    fn the_drawing_is_well_formed_and_names_what_it_shows() {
        let svg = svg(&report());
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1) {
            let (tag, text) = tag.split_once('>').expect("every tag ends");
            assert!(!text.contains('"') && !text.contains('&') || text.contains("&amp;"), "{text}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
                continue;
            }
            // Every second piece between quotes is a value; the others end in the names of attributes.
            let mut names: Vec<&str> = tag.split('"').step_by(2).filter_map(|piece| piece.strip_suffix('=')).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "an attribute stands there twice: {tag}");
            if !tag.ends_with('/') {
                open.push(tag.split(' ').next().expect("a name"));
            }
        }
        assert!(open.is_empty());
        for text in
            ["before &amp; &lt;after&gt;", ">get<", ">set<", ">all<", ">99.9 %<", "Latency<", "durability always"]
        {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn text_cannot_break_out_of_the_drawing() {
        assert_eq!(escaped("<a & \"b\">\n"), "&lt;a &amp; &quot;b&quot;&gt; ");
        assert_eq!(wrapped("one, two, three", 9), ["one, two", "three"]);
    }
}
