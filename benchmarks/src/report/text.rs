//! Numbers and columns for people.

use crate::stats::Spread;

/// Blanks between two columns.
const GAP: &str = "  ";

/// With as many digits as can be compared, and with the thousands set apart.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let (sign, rest) = text
        .strip_prefix('-')
        .map_or(("", &*text), |rest| ("-", rest));
    let (whole, fraction) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.char_indices() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{fraction}")
}

/// The median of some ratios.
pub(super) fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// `1.05 (1.01–1.10)`.
pub(super) fn range(Spread { min, median, max }: Spread) -> String {
    format!("{median:.2} ({min:.2}–{max:.2})")
}

/// Lines of cells under each other. The first column begins at the left, numbers end at the right.
///
/// INVARIANT: all rows are as long as the first.
pub(super) fn align(rows: &[Vec<String>]) -> Vec<String> {
    let widths = widths(rows);
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(&widths).enumerate();
            let cells: Vec<String> = cells
                .map(|(column, (cell, &width))| match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            cells.join(GAP).trim_end().to_owned()
        })
        .collect()
}

/// Cuts rows that are too wide into blocks, each with the first column. A column that is too wide
/// on its own has a block to itself.
pub(super) fn wrap(rows: &[Vec<String>], room: usize) -> Vec<Vec<Vec<String>>> {
    let widths = widths(rows);
    let Some((first, others)) = widths.split_first() else {
        return Vec::new();
    };
    let mut blocks: Vec<Vec<usize>> = Vec::new();
    let mut free = 0;
    for (column, width) in (1..).zip(others) {
        let width = GAP.len() + width;
        match blocks.last_mut() {
            Some(block) if width <= free => block.push(column),
            _ => {
                blocks.push(vec![0, column]);
                free = room.saturating_sub(*first);
            }
        }
        free = free.saturating_sub(width);
    }
    blocks
        .iter()
        .map(|columns| {
            let cut = |row: &Vec<String>| columns.iter().map(|&at| row[at].clone()).collect();
            rows.iter().map(cut).collect()
        })
        .collect()
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths = vec![0; rows.first().map_or(0, Vec::len)];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        let row = |row: &&[&str]| row.iter().map(|&cell| cell.to_owned()).collect();
        rows.iter().map(row).collect()
    }

    #[test]
    fn numbers_have_the_digits_that_matter() {
        for (value, expected) in [
            (0.0, "0.00"),
            (0.357, "0.36"),
            (35.94, "35.9"),
            (376.4, "376"),
            (999.9, "1,000"),
            (1_050_431.2, "1,050,431"),
            (-1_234.0, "-1,234"),
            (-123.0, "-123"),
        ] {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn ratios_have_two_digits() {
        assert_eq!(ratio(1.006), "1.01");
        let spread = Spread {
            min: 1.014,
            median: 1.05,
            max: 1.1,
        };
        assert_eq!(range(spread), "1.05 (1.01–1.10)");
    }

    #[test]
    fn names_begin_at_the_left_and_numbers_end_at_the_right() {
        let lines = align(&rows(&[&["system", "p50 µs"], &["a", "1"], &["b", ""]]));
        assert_eq!(lines, ["system  p50 µs", "a            1", "b"]);
        assert_eq!(align(&[]), [""; 0]);
    }

    #[test]
    fn what_is_too_wide_goes_on_below_with_the_names() {
        let wide = rows(&[&["name", "one", "two", "three"], &["x", "1", "2", "3"]]);
        // `name  one  two  three` has 21 characters.
        assert_eq!(wrap(&wide, 21), std::slice::from_ref(&wide));
        assert_eq!(
            wrap(&wide, 20),
            [
                rows(&[&["name", "one", "two"], &["x", "1", "2"]]),
                rows(&[&["name", "three"], &["x", "3"]]),
            ]
        );
        assert_eq!(wrap(&wide, 0).len(), 3);
    }
}
