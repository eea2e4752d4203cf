//! Texts that may quote a peer, for people and logs.

use std::fmt::{self, Write};

/// Shows a text with its control characters escaped, so that what a peer sent can neither begin a
/// line of its own in a log nor command a terminal.
pub(crate) struct Escaped<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaper(f), "{}", self.0)
    }
}

struct Escaper<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        for (at, special) in text.match_indices(is_special) {
            self.0.write_str(&text[plain..at])?;
            for character in special.chars().flat_map(char::escape_default) {
                self.0.write_char(character)?;
            }
            plain = at + special.len();
        }
        self.0.write_str(&text[plain..])
    }
}

/// Control characters of both blocks, and what breaks lines or turns the direction of writing.
fn is_special(character: char) -> bool {
    matches!(character,
        '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f26_what_commands_a_terminal_or_breaks_a_line_is_escaped() {
        let shown = |text: &str| Escaped(text).to_string();
        assert_eq!(
            shown("plain, \"quoted\", äöü 猫"),
            "plain, \"quoted\", äöü 猫"
        );
        assert_eq!(shown("a\r\nERROR b"), "a\\r\\nERROR b");
        assert_eq!(shown("\u{1b}[31m\0\u{9b}2J"), "\\u{1b}[31m\\u{0}\\u{9b}2J");
        assert_eq!(
            shown("\u{2028}\u{202e}\u{2066}"),
            "\\u{2028}\\u{202e}\\u{2066}"
        );
    }
}
