//! What is measured: the loads and their names.

use std::fmt;

use crate::figure::Figure;

/// Idle connections whose memory is measured. With 1,000, a page more or less in the process does
/// not show.
const IDLE_CONNECTIONS: usize = 1_000;

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Messages come back as fast as they can.
    Echo(Echo),
    /// That many connections have each exchanged one small message and are silent.
    Idle {
        /// How many.
        connections: usize,
    },
}

/// A closed loop: each reply is followed by the next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Echo {
    /// Bytes per message, without the header.
    pub(crate) payload: usize,
    /// Connections that work at the same time.
    pub(crate) connections: usize,
    /// Messages on their way, per connection.
    pub(crate) in_flight: usize,
}

impl Work {
    /// Every load, in the order of the reports.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for payload in [64, 1 << 10] {
            for in_flight in [1, 64, 1_024] {
                all.push(Self::Echo(Echo {
                    payload,
                    connections: 1,
                    in_flight,
                }));
            }
        }
        all.push(Self::Idle {
            connections: IDLE_CONNECTIONS,
        });
        all
    }

    /// The load of that name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::all()
            .into_iter()
            .find(|work| work.to_string() == name)
    }

    /// The figure by which systems are compared at this load.
    pub(crate) fn headline(self) -> Figure {
        match self {
            Self::Echo(_) => Figure::ServerCpu,
            Self::Idle { .. } => Figure::Rss,
        }
    }

    /// Whether it is one of the few that tell the most for their time.
    pub(crate) fn is_quick(self) -> bool {
        match self {
            Self::Echo(echo) => {
                echo.connections == 1
                    && matches!(
                        (echo.payload, echo.in_flight),
                        (64, 64 | 1_024) | (1_024, 1_024)
                    )
            }
            Self::Idle { connections } => connections == IDLE_CONNECTIONS,
        }
    }

    /// Whether the name contains `pattern`, or, with a `*` in the pattern, is matched by it from
    /// its first to its last character.
    pub(crate) fn matches(&self, pattern: &str) -> bool {
        let name = self.to_string();
        if pattern.contains('*') {
            matches_glob(&name, pattern)
        } else {
            name.contains(pattern)
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo(echo) => {
                let Echo {
                    payload,
                    connections,
                    in_flight,
                } = echo;
                if payload.is_multiple_of(1 << 10) {
                    write!(f, "echo/{}KiB/{connections}x{in_flight}", payload >> 10)
                } else {
                    write!(f, "echo/{payload}B/{connections}x{in_flight}")
                }
            }
            Self::Idle { connections } => write!(f, "idle/{connections}"),
        }
    }
}

/// `*` stands for any number of characters, everything else for itself.
fn matches_glob(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((literal, rest)) => name.strip_prefix(literal).is_some_and(|tail| {
            tail.char_indices()
                .map(|(at, _)| &tail[at..])
                .chain([""])
                .any(|tail| matches_glob(tail, rest))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_is_found_by_its_name() {
        let names: Vec<String> = Work::all().iter().map(Work::to_string).collect();
        assert_eq!(
            names,
            [
                "echo/64B/1x1",
                "echo/64B/1x64",
                "echo/64B/1x1024",
                "echo/1KiB/1x1",
                "echo/1KiB/1x64",
                "echo/1KiB/1x1024",
                "idle/1000",
            ]
        );
        for (name, work) in names.iter().zip(Work::all()) {
            assert_eq!(Work::find(name), Some(work));
        }
        assert_eq!(Work::find("echo/64B"), None);
    }

    #[test]
    fn a_pattern_without_a_star_is_a_substring() {
        let work = Work::find("echo/64B/1x64").expect("a load");
        assert!(work.matches(""));
        assert!(work.matches("64B"));
        assert!(work.matches("1x64"));
        assert!(!work.matches("1x1"));
        assert!(!work.matches("echo/1x64"));
    }

    #[test]
    fn a_pattern_with_a_star_matches_the_whole_name() {
        let work = Work::find("echo/64B/1x64").expect("a load");
        for pattern in [
            "*",
            "echo*",
            "*64",
            "echo/*/1x64",
            "*64*64*",
            "echo/64B/1x64*",
            "**",
        ] {
            assert!(work.matches(pattern), "{pattern}");
        }
        for pattern in ["64B*", "*64B", "echo/*/1x6", "*64*64*64*64", "*idle*"] {
            assert!(!work.matches(pattern), "{pattern}");
        }
    }
}
