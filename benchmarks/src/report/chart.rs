//! Bars with whiskers, as SVG inside of a page.

use std::fmt::{self, Display};

use super::html::Text;
use super::text::{number, range};
use super::{FigureFacts, Report, WorkReport};
use crate::stats::Spread;

/// Where names end and bars begin, in the units of the drawing.
const NAMES: f64 = 180.0;
const BARS: f64 = 340.0;
const GAP: f64 = 12.0;
const VALUES: f64 = 250.0;
const WIDTH: f64 = NAMES + BARS + GAP + VALUES;
/// Of a bar and what is beside it.
const ROW: f64 = 28.0;
const BAR: f64 = 16.0;
/// Half the height of the end of a whisker.
const CAP: f64 = 4.0;

/// A figure of one work, a bar per system.
#[derive(Debug)]
pub(super) struct Chart<'a> {
    label: &'a str,
    bars: Vec<Bar<'a>>,
    /// What the longest bar or whisker stands for.
    largest: f64,
}

#[derive(Debug)]
struct Bar<'a> {
    name: &'a str,
    spread: Spread,
    ratio: Option<Spread>,
    is_reference: bool,
}

impl<'a> Chart<'a> {
    /// The bars of those that have the figure.
    pub(super) fn new(report: &'a Report, work: &'a WorkReport, figure: &'a FigureFacts) -> Self {
        let bars = work.systems.iter().filter_map(|system| {
            let measured = system.figures.get(&figure.name)?;
            Some(Bar {
                name: &system.name,
                spread: measured.spread,
                ratio: measured.ratio,
                is_reference: system.name == report.reference_of(work),
            })
        });
        let bars: Vec<Bar<'a>> = bars.collect();
        let largest = bars.iter().map(|bar| bar.spread.max).fold(0.0, f64::max);
        Self {
            label: &figure.label,
            bars,
            largest,
        }
    }

    /// Where a value lies from left to right.
    fn x(&self, value: f64) -> f64 {
        let share = if self.largest > 0.0 {
            (value / self.largest).clamp(0.0, 1.0)
        } else {
            0.0
        };
        NAMES + share * BARS
    }
}

impl Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let height = ROW * self.bars.len() as f64;
        writeln!(
            f,
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
            Text(self.label)
        )?;
        for (row, bar) in self.bars.iter().enumerate() {
            let middle = ROW * (row as f64 + 0.5);
            let Spread { min, median, max } = bar.spread;
            let [min, end, max] = [min, median, max].map(|value| self.x(value));
            let class = if bar.is_reference { "reference" } else { "bar" };
            writeln!(
                f,
                "<text class=\"name\" x=\"{:.1}\" y=\"{middle:.1}\">{}</text>\n\
                 <rect class=\"{class}\" x=\"{NAMES:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR:.1}\"/>\n\
                 <path d=\"M{min:.1} {middle:.1}H{max:.1}M{min:.1} {top:.1}v{cap:.1}M{max:.1} {top:.1}v{cap:.1}\"/>\n\
                 <text x=\"{:.1}\" y=\"{middle:.1}\">{}{}</text>",
                NAMES - GAP,
                Text(bar.name),
                middle - BAR / 2.0,
                end - NAMES,
                NAMES + BARS + GAP,
                number(bar.spread.median),
                Ratio(bar.ratio),
                top = middle - CAP,
                cap = CAP * 2.0,
            )?;
        }
        if let Some(reference) = self.bars.iter().find(|bar| bar.is_reference) {
            writeln!(
                f,
                "<path class=\"level\" d=\"M{:.1} 0V{height:.1}\"/>",
                self.x(reference.spread.median)
            )?;
        }
        f.write_str("</svg>")
    }
}

/// Behind a value.
struct Ratio(Option<Spread>);

impl Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ratio) => write!(
                f,
                "<tspan class=\"ratio\" dx=\"{GAP}\">{}</tspan>",
                range(ratio)
            ),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{idle, report};
    use super::*;
    use crate::run::Series;

    /// Of the idle work, which has one figure.
    fn chart(all: &[Series]) -> String {
        let report = report(all);
        let work = &report.works[0];
        Chart::new(&report, work, report.headline_of(work).expect("a figure")).to_string()
    }

    fn attributes(chart: &str, name: &str) -> Vec<f64> {
        let before = format!(" {name}=\"");
        let attributes = chart.split(&before).skip(1);
        let value = |rest: &str| rest.split('"').next().and_then(|value| value.parse().ok());
        attributes
            .map(|rest| value(rest).expect("a number"))
            .collect()
    }

    #[test]
    fn bars_are_as_long_as_their_medians_and_whiskers_as_their_ranges() {
        let chart = chart(&[
            idle("loop", &[100.0, 100.0, 100.0]),
            idle("ours", &[150.0, 50.0, 200.0]),
        ]);
        assert_eq!(attributes(&chart, "width"), [BARS / 2.0, BARS * 0.75]);
        let whisker = format!("M{:.1} 42.0H{:.1}", NAMES + BARS / 4.0, NAMES + BARS);
        assert!(chart.contains(&whisker), "{chart}");
        let level = format!("class=\"level\" d=\"M{:.1} 0V56.0\"", NAMES + BARS / 2.0);
        assert!(chart.contains(&level), "{chart}");
        assert!(chart.contains(">1.50 (0.50–2.00)</tspan>"), "{chart}");
        assert_eq!(chart.matches("class=\"reference\"").count(), 1);
        assert_eq!(chart.matches("class=\"bar\"").count(), 1);
    }

    #[test]
    fn no_value_leaves_the_drawing() {
        for values in [[0.0, 0.0], [-5.0, 1.0], [f64::MAX, f64::MIN_POSITIVE]] {
            let chart = chart(&[idle("loop", &values[..1]), idle("ours", &values[1..])]);
            for width in attributes(&chart, "width") {
                assert!((0.0..=BARS).contains(&width), "{chart}");
            }
            assert!(!chart.contains("NaN") && !chart.contains("inf"), "{chart}");
        }
    }

    #[test]
    fn without_the_reference_there_is_neither_ratio_nor_level() {
        let chart = chart(&[idle("ours", &[1.0])]);
        assert!(
            !chart.contains("ratio") && !chart.contains("level"),
            "{chart}"
        );
    }
}
