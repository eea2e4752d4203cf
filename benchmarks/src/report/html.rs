//! The report as a page: one file, without scripts, fonts or images from elsewhere.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};

use super::chart::Chart;
use super::text::{number, range, ratio};
use super::{FigureFacts, Measured, Report, WorkReport};
use crate::figure::Better;

/// A ratio that is closer to 1 is not coloured.
const NEAR: f64 = 0.05;

/// Writes the report as an HTML page.
///
/// # Errors
///
/// Those of `out`.
pub(crate) fn write_html(report: &Report, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{}", Page(report))
}

/// Text from outside, in which nothing is markup.
#[derive(Clone, Copy)]
pub(super) struct Text<'a>(pub(super) &'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

struct Page<'a>(&'a Report);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        write!(
            f,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>Benchmarks, {time}</title>\n<style>\n{style}</style>\n</head>\n<body>\n\
             <h1>Benchmarks</h1>\n\
             <p>Measured {time} at commit <code>{commit}</code>: {rounds} rounds, {seconds} s for each system and work.</p>\n",
            time = Text(&report.provenance.time),
            commit = Text(&report.provenance.commit),
            style = include_str!("page.css"),
            rounds = report.rounds,
            seconds = report.seconds,
        )?;
        write_overview(report, f)?;
        for (at, work) in report.works.iter().enumerate() {
            write_work(report, (at, work), f)?;
        }
        write_systems(report, f)?;
        write_method(report, f)?;
        write_facts(report, f)?;
        f.write_str("</body>\n</html>\n")
    }
}

/// The ratios of the headlines: a row per work, a column per system.
fn write_overview(report: &Report, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(
        f,
        "<h2>At a glance</h2>\n\
         <p>Each figure as a ratio to <code>{}</code>, or to what a work is compared with instead, the \
         median over the rounds.</p>\n\
         <div class=\"wide\"><table>\n<tr><th>work</th><th>figure</th>",
        Text(&report.reference)
    )?;
    for system in &report.systems {
        write!(f, "<th>{}</th>", Text(&system.name))?;
    }
    f.write_str("</tr>\n")?;
    for (at, work) in report.works.iter().enumerate() {
        let Some(headline) = report.headline_of(work) else {
            continue;
        };
        write!(
            f,
            "<tr><th><a href=\"#work-{at}\">{}</a></th><td class=\"name\">{}</td>",
            Text(&work.name),
            Text(&headline.label)
        )?;
        for system in &report.systems {
            let system = work.systems.iter().find(|it| it.name == system.name);
            let measured = system.and_then(|it| it.figures.get(&headline.name));
            match measured.and_then(|it| it.ratio) {
                Some(it) => write!(
                    f,
                    "<td class=\"{}\">{}</td>",
                    shade(headline.better, it.median),
                    ratio(it.median)
                )?,
                None => f.write_str("<td></td>")?,
            }
        }
        f.write_str("</tr>\n")?;
    }
    f.write_str("</table></div>\n")
}

/// The class of a ratio.
fn shade(better: Better, ratio: f64) -> &'static str {
    let (low, high) = match better {
        Better::Lower => ("good", "bad"),
        Better::Higher => ("bad", "good"),
    };
    if ratio < 1.0 - NEAR {
        low
    } else if ratio > 1.0 + NEAR {
        high
    } else {
        "near"
    }
}

fn write_work(
    report: &Report,
    (at, work): (usize, &WorkReport),
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    writeln!(f, "<h2 id=\"work-{at}\">{}</h2>", Text(&work.name))?;
    let figures = report.figures_of(work);
    if let Some(headline) = report.headline_of(work) {
        let better = match headline.better {
            Better::Lower => "lower",
            Better::Higher => "higher",
        };
        writeln!(
            f,
            "<figure>{}<figcaption>{}, {better} is better. Bars are medians, whiskers the \
             smallest and the largest of the rounds; beside them the ratio to <code>{}</code> \
             (min–max).</figcaption></figure>",
            Chart::new(report, work, headline),
            Text(&headline.label),
            Text(report.reference_of(work)),
        )?;
    }
    f.write_str("<div class=\"wide\"><table>\n<tr><th>system</th>")?;
    for figure in &figures {
        write!(f, "<th>{}</th>", Text(&figure.label))?;
    }
    f.write_str("</tr>\n")?;
    for system in &work.systems {
        write!(f, "<tr><th>{}</th>", Text(&system.name))?;
        for figure in &figures {
            write_cell(system.figures.get(&figure.name), figure, f)?;
        }
        f.write_str("</tr>\n")?;
    }
    f.write_str("</table></div>\n")?;
    for system in &work.systems {
        for note in &system.notes {
            writeln!(
                f,
                "<p class=\"note\">{}: {}</p>",
                Text(&system.name),
                Text(note)
            )?;
        }
    }
    Ok(())
}

fn write_cell(
    measured: Option<&Measured>,
    figure: &FigureFacts,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let Some(Measured { spread, ratio, .. }) = measured else {
        return f.write_str("<td></td>");
    };
    write!(
        f,
        "<td>{}<small>{}–{}</small>",
        number(spread.median),
        number(spread.min),
        number(spread.max)
    )?;
    if let Some(ratio) = ratio {
        let shade = shade(figure.better, ratio.median);
        write!(f, "<small class=\"{shade}\">{}</small>", range(*ratio))?;
    }
    f.write_str("</td>")
}

fn write_systems(report: &Report, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("<h2>Systems</h2>\n<dl>\n")?;
    for system in &report.systems {
        writeln!(
            f,
            "<dt>{}</dt><dd>{}</dd>",
            Text(&system.name),
            Text(&system.about)
        )?;
    }
    f.write_str("</dl>\n")
}

fn write_method(report: &Report, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(
        f,
        include_str!("method.html"),
        reference = Text(&report.reference),
        rounds = report.rounds,
    )
}

fn write_facts(report: &Report, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("<h2>Machine and program</h2>\n<dl>\n")?;
    for (name, value) in report.provenance.facts() {
        writeln!(f, "<dt>{name}</dt><dd>{}</dd>", Text(&value))?;
    }
    if let Some(load) = report.provenance.machine.load_average {
        writeln!(f, "<dt>load average before the run</dt><dd>{load}</dd>")?;
    }
    writeln!(
        f,
        "<dt>commit</dt><dd><code>{}</code></dd>\n</dl>",
        Text(&report.provenance.commit)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::tests::{echo, idle, report};
    use super::*;

    fn page(report: &Report) -> String {
        let mut page = Vec::new();
        write_html(report, &mut page).expect("memory");
        String::from_utf8(page).expect("text")
    }

    fn example() -> Report {
        let mut noted = echo("loop", &[100.0, 100.0, 100.0]);
        noted.notes = vec!["round 2: failed: no reply".to_owned()];
        report(&[
            noted,
            echo("ours", &[110.0, 120.0, 130.0]),
            echo("ours-channel", &[90.0, 90.0, 90.0]),
            idle("loop", &[16_384.0]),
            idle("ours", &[1_024.0]),
        ])
    }

    /// Checks that every element that is opened is closed in order, and returns their names.
    fn elements(page: &str) -> Vec<String> {
        let mut open: Vec<&str> = Vec::new();
        let mut all = Vec::new();
        for tag in page.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').expect("a tag that ends");
            let name = tag.split([' ', '\n']).next().unwrap_or_default();
            if let Some(name) = name.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !["!DOCTYPE", "meta"].contains(&name) && !tag.ends_with('/') {
                open.push(name);
            }
            all.push(name.to_owned());
        }
        assert_eq!(open, [""; 0]);
        all
    }

    /// Puts markup into every string and every name of an object, and nothing else.
    fn poison(value: &mut Value) {
        const MARKUP: &str = "</td><poison a='b' c=\"d\">&poison;";
        match value {
            // Not a text, but one of two words.
            Value::String(word) if word == "lower" || word == "higher" => {}
            Value::String(text) => *text = format!("{text}{MARKUP}"),
            Value::Array(values) => values.iter_mut().for_each(poison),
            Value::Object(members) => {
                for (name, value) in members.iter_mut() {
                    poison(value);
                    if name == "figures" && value.is_object() {
                        let figures = std::mem::take(value.as_object_mut().expect("an object"));
                        *value = figures
                            .into_iter()
                            .map(|(name, value)| (format!("{name}{MARKUP}"), value))
                            .collect();
                    }
                }
            }
            _ => {}
        }
    }

    #[test]
    fn text_from_outside_is_no_markup() {
        assert_eq!(
            Text("<a href='b' c=\"d\">&amp;é").to_string(),
            "&lt;a href=&#39;b&#39; c=&quot;d&quot;&gt;&amp;amp;é"
        );
        let mut value = serde_json::to_value(example()).expect("a report");
        poison(&mut value);
        let poisoned = page(&serde_json::from_value(value).expect("a report"));
        assert!(!poisoned.contains("<poison"), "{poisoned}");
        assert!(!poisoned.contains("c=\"d\""), "{poisoned}");
        assert!(!poisoned.contains("a='b'"), "{poisoned}");
        assert!(!poisoned.contains("&poison;"), "{poisoned}");
        assert!(poisoned.matches("&lt;poison").count() > 30, "{poisoned}");
        assert_eq!(elements(&poisoned), elements(&page(&example())));
    }

    #[test]
    fn a_page_needs_nothing_from_elsewhere() {
        let page = page(&example());
        let elements = elements(&page);
        for element in ["script", "link", "img", "iframe", "object", "use"] {
            assert!(!elements.iter().any(|it| it == element), "{element}");
        }
        for reference in ["http", "url(", "@import", "src="] {
            assert!(!page.contains(reference), "{reference}");
        }
        // Links lead to a work further down.
        let mut links = page.split("href=\"").skip(1).peekable();
        assert!(links.peek().is_some(), "{page}");
        for link in links {
            let (target, _) = link.split_once('"').expect("the end of an attribute");
            let work = target.strip_prefix('#').expect("a link inside of the page");
            assert_eq!(page.matches(&format!("id=\"{work}\"")).count(), 1);
        }
        assert!(page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn a_page_has_a_chart_and_a_table_per_work_and_all_facts() {
        let report = example();
        let page = page(&report);
        assert_eq!(page.matches("<svg").count(), 2);
        assert_eq!(page.matches("<table").count(), 3);
        let mut expected = vec![
            "c0ffee",
            "2026-01-31T12:00:00Z",
            "<td>120<small>110–130</small><small class=\"bad\">1.20 (1.10–1.30)</small></td>",
            "<td class=\"bad\">1.20</td><td class=\"good\">0.90</td>",
            "<th><a href=\"#work-1\">idle/1000</a></th><td class=\"name\">RSS B/conn</td>\
             <td class=\"near\">1.00</td><td class=\"good\">0.06</td><td></td>",
            "the reactor replies through its context",
            "coordinated omission",
            "<p class=\"note\">loop: round 2: failed: no reply</p>",
            "Chip 7",
        ];
        let facts = report.provenance.facts();
        expected.extend(facts.iter().map(|(_, fact)| fact.as_str()));
        for expected in expected {
            assert!(page.contains(expected), "{expected}: {page}");
        }
    }

    #[test]
    fn what_is_good_depends_on_the_figure() {
        assert_eq!(shade(Better::Lower, 0.94), "good");
        assert_eq!(shade(Better::Higher, 0.94), "bad");
        assert_eq!(shade(Better::Lower, 1.06), "bad");
        assert_eq!(shade(Better::Higher, 1.06), "good");
        assert_eq!(shade(Better::Lower, 1.04), "near");
        assert_eq!(shade(Better::Lower, 0.96), "near");
    }
}
