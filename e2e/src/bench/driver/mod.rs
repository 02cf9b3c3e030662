//! The driver alone, through its own door: how many calls a second, how long each takes, and how much memory that
//! costs, beside any other CSI driver that is given the very same load.

pub mod client;
mod load;
mod report;
mod snapshot;
mod subject;

use std::{path::PathBuf, str::FromStr, time::Duration};

use anyhow::Context as _;

pub use self::report::Report;
use self::{
    client::Endpoint,
    load::Load,
    report::{Better, Figure, Line},
    subject::Subject,
};

/// How long a driver is left alone before its memory counts as idle.
const SETTLED: Duration = Duration::from_secs(1);
/// How often a driver is started to find out how long that takes.
const STARTS: usize = 10;
/// Entries in a page of ListVolumes.
const PAGE: i32 = 500;
const LISTINGS: usize = 5;

/// Another driver, already running on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Its process, for its memory.
    pub pid: Option<u32>,
}

impl FromStr for Peer {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (endpoint, rest) = text.split_once(',').map_or((text, None), |(a, b)| (a, Some(b)));
        let pid = rest.map(|rest| {
            let number = rest.strip_prefix("pid=").and_then(|pid| pid.parse().ok());
            number.with_context(|| format!("{rest:?} is not pid=NUMBER"))
        });
        Ok(Self {
            endpoint: endpoint.parse()?,
            pid: pid.transpose()?,
        })
    }
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// From exec to the first answered Probe.
    Start,
    /// Memory when nothing has been asked of it.
    Idle,
    /// Calls a second, by load, number of clients and existing volumes.
    Loads,
    /// Memory and listing with many volumes.
    Many,
    /// Snapshots of a large sparse volume.
    Snapshot,
}

/// What to measure.
#[derive(Debug)]
pub struct Options {
    /// Beside whom.
    pub peer: Option<Peer>,
    /// Which parts.
    pub parts: Vec<Part>,
    /// Numbers of clients.
    pub clients: Vec<usize>,
    /// Numbers of existing volumes, growing.
    pub existing: Vec<usize>,
    /// How many volumes are many.
    pub many: usize,
    /// How long each load runs.
    pub time: Duration,
    /// The backend whose volumes are staged and published.
    pub backend: String,
    /// Where pools are made.
    pub dir: PathBuf,
}

/// Measures.
///
/// # Errors
/// When a driver doesn't start or a call fails.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new(options.peer.is_some());
    let has = |part: Part| options.parts.contains(&part);
    if has(Part::Start) {
        report.figures.push(start(options).await.context("start")?);
    }
    let mut subjects = vec![Subject::ours(&options.dir, &options.backend).await?];
    if let Some(peer) = &options.peer {
        subjects.push(Subject::peer(peer).await.context("use the peer")?);
    }
    if has(Part::Idle) {
        tokio::time::sleep(SETTLED).await;
        let rss = memory(&subjects)?;
        report
            .figures
            .push(Figure::new("idle RSS, MiB", Better::Lower, &rss));
    }
    if has(Part::Loads) {
        loads(options, &mut subjects, &mut report).await?;
    }
    if has(Part::Many) {
        many(options, &mut subjects, &mut report).await?;
    }
    for subject in subjects {
        subject.end().await?;
    }
    if has(Part::Snapshot) {
        let figures = snapshot::run(&options.dir).await.context("snapshot")?;
        report.figures.extend(figures);
    }
    Ok(report)
}

/// Resident memory of each, in MiB; unknown where no process is known.
fn memory(subjects: &[Subject]) -> anyhow::Result<Vec<Option<f64>>> {
    subjects.iter().map(Subject::rss_mib).collect()
}

async fn start(options: &Options) -> anyhow::Result<Figure> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let (subject, took) = Subject::started(&options.dir, &options.backend).await?;
        subject.end().await?;
        times.push(took.as_secs_f64() * 1e3);
    }
    Ok(Figure::new(
        "exec to first Probe p50, ms",
        Better::Lower,
        &[Some(super::rounded(super::quantile(&mut times, 0.5)))],
    ))
}

async fn loads(options: &Options, subjects: &mut [Subject], report: &mut Report) -> anyhow::Result<()> {
    for (at, existing) in options.existing.iter().enumerate() {
        for subject in subjects.iter_mut() {
            subject.populate(*existing).await?;
        }
        for load in Load::ALL {
            // Whether there are volumes is nothing to Probe.
            if load == Load::Probe && at > 0 {
                continue;
            }
            for clients in &options.clients {
                eprintln!("{load}, {existing} existing volumes, {clients} clients");
                let mut rates = Vec::new();
                // One after the other, so that both meet the machine in the same mood.
                for subject in subjects.iter() {
                    let rate = load::run(&subject.target, load, *clients, options.time)
                        .await
                        .with_context(|| format!("{load} of {}", subject.name))?;
                    rates.push(rate);
                }
                report.lines.push(Line::new(load, *existing, *clients, rates));
            }
        }
    }
    Ok(())
}

async fn many(options: &Options, subjects: &mut [Subject], report: &mut Report) -> anyhow::Result<()> {
    let mut whole = Vec::new();
    let mut paged = Vec::new();
    for subject in subjects.iter_mut() {
        eprintln!("{} volumes in {}", options.many, subject.name);
        subject.populate(options.many).await?;
        whole.push(listing(subject, 0).await?);
        paged.push(listing(subject, PAGE).await?);
    }
    tokio::time::sleep(SETTLED).await;
    let rss = memory(subjects)?;
    let count = options.many;
    let figures = &mut report.figures;
    figures.push(Figure::new(
        &format!("RSS with {count} volumes, MiB"),
        Better::Lower,
        &rss,
    ));
    figures.push(Figure::new(
        &format!("ListVolumes of {count} in one answer p50, ms"),
        Better::Lower,
        &whole,
    ));
    figures.push(Figure::new(
        &format!("ListVolumes of {count} in pages of {PAGE} p50, ms"),
        Better::Lower,
        &paged,
    ));
    Ok(())
}

/// How long it takes to list everything, in milliseconds.
async fn listing(subject: &mut Subject, page: i32) -> anyhow::Result<Option<f64>> {
    if !subject.target.abilities.list {
        return Ok(None);
    }
    let mut times = Vec::new();
    for _ in 0..LISTINGS {
        let began = std::time::Instant::now();
        let (volumes, _) = subject.client.list(page).await?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        anyhow::ensure!(
            volumes >= subject.volumes.len(),
            "{} listed {volumes} of {} volumes",
            subject.name,
            subject.volumes.len()
        );
    }
    Ok(Some(super::rounded(super::quantile(&mut times, 0.5))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_endpoints_with_or_without_a_process() {
        let socket = Endpoint::Unix("/run/x.sock".into());
        let cases = [
            ("/run/x.sock", Some((socket.clone(), None))),
            ("unix:///run/x.sock,pid=17", Some((socket, Some(17)))),
            ("/run/x.sock,pid=", None),
            ("/run/x.sock,17", None),
            ("x", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(endpoint, pid)| Peer { endpoint, pid });
            assert_eq!(text.parse::<Peer>().ok(), expected, "{text:?}");
        }
    }
}
