//! What is measured, and the figures of one round.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A quantity that is measured. The order is that of the reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// Messages per second.
    Rate,
    /// Processor time of the server per message, in nanoseconds.
    ServerCpu,
    /// Processor time of the client per message, in nanoseconds.
    ClientCpu,
    /// Median round trip, in microseconds.
    P50,
    /// Round trip that 99 of 100 do not exceed, in microseconds.
    P99,
    /// Round trip that 999 of 1,000 do not exceed, in microseconds.
    P999,
    /// Longest round trip, in microseconds.
    Max,
    /// What 99 of 100 messages of a schedule left too late by, in microseconds: the client's part
    /// of the latencies, which are counted from the schedule.
    SendDelay,
    /// Resident bytes by which a connection makes the server larger.
    Rss,
    /// Bytes that a connection has allocated and not given back.
    Heap,
    /// Resident bytes by which the server was larger when it was largest.
    PeakRss,
    /// Resident bytes by which the client was larger when it was largest.
    ClientPeakRss,
}

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// The larger one.
    Higher,
    /// The smaller one.
    Lower,
}

impl Figure {
    /// Every figure, in the order of the reports.
    pub(crate) const ALL: &'static [Self] = &[
        Self::Rate,
        Self::ServerCpu,
        Self::ClientCpu,
        Self::P50,
        Self::P99,
        Self::P999,
        Self::Max,
        Self::SendDelay,
        Self::Rss,
        Self::Heap,
        Self::PeakRss,
        Self::ClientPeakRss,
    ];

    /// What JSON and the command line call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::ServerCpu => "server_cpu_ns",
            Self::ClientCpu => "client_cpu_ns",
            Self::P50 => "p50_us",
            Self::P99 => "p99_us",
            Self::P999 => "p999_us",
            Self::Max => "max_us",
            Self::SendDelay => "send_delay_p99_us",
            Self::Rss => "rss_per_connection",
            Self::Heap => "heap_per_connection",
            Self::PeakRss => "peak_rss",
            Self::ClientPeakRss => "client_peak_rss",
        }
    }

    /// A short heading for people, with the unit.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Rate => "messages/s",
            Self::ServerCpu => "server ns",
            Self::ClientCpu => "client ns",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::P999 => "p99.9 µs",
            Self::Max => "max µs",
            Self::SendDelay => "late p99 µs",
            Self::Rss => "RSS B/conn",
            Self::Heap => "heap B/conn",
            Self::PeakRss => "peak RSS B",
            Self::ClientPeakRss => "client peak RSS B",
        }
    }

    /// Which values are the good ones.
    pub(crate) fn better(self) -> Better {
        match self {
            Self::Rate => Better::Higher,
            Self::ServerCpu
            | Self::ClientCpu
            | Self::P50
            | Self::P99
            | Self::P999
            | Self::Max
            | Self::SendDelay
            | Self::Rss
            | Self::Heap
            | Self::PeakRss
            | Self::ClientPeakRss => Better::Lower,
        }
    }
}

/// The figures of one round: those that the work has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample(BTreeMap<Figure, f64>);

impl Sample {
    /// The sample with one figure more.
    #[must_use]
    pub(crate) fn with(mut self, figure: Figure, value: f64) -> Self {
        self.0.insert(figure, value);
        self
    }

    /// The value of a figure, if the work has it.
    pub(crate) fn get(&self, figure: Figure) -> Option<f64> {
        self.0.get(&figure).copied()
    }

    /// All values, in the order of the reports.
    pub(crate) fn figures(&self) -> impl Iterator<Item = (Figure, f64)> {
        self.0.iter().map(|(&figure, &value)| (figure, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_listed_once_in_order_and_has_a_name_of_its_own() {
        assert!(Figure::ALL.is_sorted_by(|a, b| a < b));
        for figure in Figure::ALL {
            let namesakes = |other: &&Figure| other.name() == figure.name();
            assert_eq!(Figure::ALL.iter().filter(namesakes).count(), 1);
        }
    }

    #[test]
    fn a_sample_has_what_it_was_given_in_the_order_of_the_reports() {
        let sample = Sample::default()
            .with(Figure::Rss, 9.0)
            .with(Figure::Rate, 1.0)
            .with(Figure::Rate, 2.0);
        let figures: Vec<(Figure, f64)> = sample.figures().collect();
        assert_eq!(figures, [(Figure::Rate, 2.0), (Figure::Rss, 9.0)]);
        assert_eq!(sample.get(Figure::Rss), Some(9.0));
        assert_eq!(sample.get(Figure::P99), None);
    }
}
