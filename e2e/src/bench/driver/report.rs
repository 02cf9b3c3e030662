//! The figures of both drivers side by side, with ratios that are above 1 wherever ours is the better one.

use std::fmt;

use serde::Serialize;

use super::load::{Load, Rate};
use crate::bench::rounded;

/// Which way a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
}

/// How many times better ours is.
fn ratio(better: Better, ours: f64, peer: f64) -> f64 {
    rounded(match better {
        Better::Lower => peer / ours,
        Better::Higher => ours / peer,
    })
}

/// A single figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figure {
    name: String,
    ours: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

impl Figure {
    /// `values` holds ours, and the peer's if there is one.
    pub(super) fn new(name: &str, better: Better, values: &[Option<f64>]) -> Self {
        let (ours, peer) = (
            values.first().copied().flatten(),
            values.get(1).copied().flatten(),
        );
        Self {
            name: name.to_owned(),
            ours,
            peer,
            ratio: ours.zip(peer).map(|(ours, peer)| ratio(better, ours, peer)),
        }
    }
}

/// How a load went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Line {
    load: String,
    existing_volumes: usize,
    clients: usize,
    ours: Rate,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Rate>,
    /// Of calls a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

impl Line {
    /// `rates` holds ours, and the peer's if there is one.
    pub(super) fn new(load: Load, existing_volumes: usize, clients: usize, rates: Vec<Rate>) -> Self {
        let mut rates = rates.into_iter();
        let ours = rates.next().expect("our driver is always measured");
        let peer = rates.next();
        let ratio = peer
            .as_ref()
            .map(|peer| ratio(Better::Higher, ours.calls_per_second, peer.calls_per_second));
        Self {
            load: load.to_string(),
            existing_volumes,
            clients,
            ours,
            peer,
            ratio,
        }
    }
}

/// Everything that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    #[serde(skip)]
    has_peer: bool,
    pub(super) lines: Vec<Line>,
    pub(super) figures: Vec<Figure>,
}

impl Report {
    pub(super) fn new(has_peer: bool) -> Self {
        Self {
            has_peer,
            lines: Vec::new(),
            figures: Vec::new(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.lines.is_empty() {
            write!(
                f,
                "{:<32} {:>8} {:>7} {:>9} {:>9} {:>9}",
                "load", "existing", "clients", "calls/s", "p50 ms", "p99 ms"
            )?;
            if self.has_peer {
                write!(
                    f,
                    " {:>12} {:>9} {:>9} {:>8}",
                    "peer calls/s", "p50 ms", "p99 ms", "ratio"
                )?;
            }
            writeln!(f)?;
        }
        for line in &self.lines {
            write!(
                f,
                "{:<32} {:>8} {:>7} {:>9.0} {:>9.3} {:>9.3}",
                line.load,
                line.existing_volumes,
                line.clients,
                line.ours.calls_per_second,
                line.ours.p50_ms,
                line.ours.p99_ms
            )?;
            if let (Some(peer), Some(ratio)) = (&line.peer, line.ratio) {
                write!(
                    f,
                    " {:>12.0} {:>9.3} {:>9.3} {ratio:>7.2}x",
                    peer.calls_per_second, peer.p50_ms, peer.p99_ms
                )?;
            }
            writeln!(f)?;
        }
        for figure in &self.figures {
            let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
            write!(f, "{:<52} {:>10}", figure.name, shown(figure.ours))?;
            if self.has_peer {
                write!(f, " {:>12}", shown(figure.peer))?;
            }
            if let Some(ratio) = figure.ratio {
                write!(f, " {ratio:>7.2}x")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(calls_per_second: f64) -> Rate {
        Rate {
            calls_per_second,
            p50_ms: 1.0,
            p99_ms: 2.0,
            calls: 10,
        }
    }

    #[test]
    fn ratios_are_above_one_where_ours_is_better() {
        let lower = Figure::new("RSS", Better::Lower, &[Some(5.0), Some(10.0)]);
        assert_eq!(lower.ratio, Some(2.0));
        let line = Line::new(Load::Probe, 0, 1, vec![rate(300.0), rate(100.0)]);
        assert_eq!(line.ratio, Some(3.0));
        assert_eq!(Figure::new("RSS", Better::Lower, &[Some(5.0), None]).ratio, None);
    }

    #[test]
    fn a_report_without_peer_has_no_columns_for_one() {
        let mut report = Report::new(false);
        report
            .lines
            .push(Line::new(Load::Stage, 1000, 16, vec![rate(7.0)]));
        report
            .figures
            .push(Figure::new("idle RSS, MiB", Better::Lower, &[Some(5.25)]));
        let text = report.to_string();
        assert!(!text.contains("peer") && text.contains("Stage+Unstage"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["lines"][0]["ours"]["calls_per_second"], 7.0);
        assert_eq!(json["figures"][0]["ours"], 5.25);
    }
}
