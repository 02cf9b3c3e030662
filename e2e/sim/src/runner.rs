//! Many simulations, each in a process of its own, and what to do with one that fails: run it again, then leave out
//! whatever it fails without.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// One simulation: a seed, and what of its plan is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// The seed.
    pub seed: u64,
    /// Steps of users that don't happen, by their place in the plan.
    pub without_ops: BTreeSet<usize>,
    /// Faults that don't happen.
    pub without_faults: BTreeSet<usize>,
    /// The deliberate bug, if any.
    pub mutant: Option<String>,
}

impl Case {
    /// The whole plan of a seed.
    #[must_use]
    pub fn of(seed: u64, mutant: Option<&str>) -> Self {
        Self {
            seed,
            mutant: mutant.map(str::to_owned),
            ..Self::default()
        }
    }

    /// What is left of the plan.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let mut plan = Plan::of(self.seed);
        plan.ops = left(plan.ops, &self.without_ops);
        plan.faults = left(plan.faults, &self.without_faults);
        plan
    }

    /// The flags that make the simulator run this case.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let list = |places: &BTreeSet<usize>| {
            let places: Vec<String> = places.iter().map(ToString::to_string).collect();
            places.join(",")
        };
        let mut flags = vec!["--seed".to_owned(), self.seed.to_string()];
        if !self.without_ops.is_empty() {
            flags.extend(["--without-ops".to_owned(), list(&self.without_ops)]);
        }
        if !self.without_faults.is_empty() {
            flags.extend(["--without-faults".to_owned(), list(&self.without_faults)]);
        }
        if let Some(mutant) = &self.mutant {
            flags.extend(["--mutant".to_owned(), mutant.clone()]);
        }
        flags
    }
}

fn left<T>(list: Vec<T>, without: &BTreeSet<usize>) -> Vec<T> {
    let numbered = list.into_iter().enumerate();
    numbered
        .filter(|(place, _)| !without.contains(place))
        .map(|(_, item)| item)
        .collect()
}

/// What a process says of its simulation.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Verdict {
    /// What was wrong; empty: nothing.
    pub broken: Vec<String>,
    /// Hash of all that happened.
    pub hash: String,
    /// How many lines that were.
    pub lines: u64,
    /// How many events.
    pub steps: u64,
    /// The virtual time at the end.
    pub millis: u64,
    /// The last lines before it went wrong.
    pub tail: Vec<String>,
}

/// Starts simulations.
#[derive(Debug)]
pub struct Runner {
    program: PathBuf,
    pki: tempfile::TempDir,
    /// How long one may take in real time.
    patience: Duration,
}

impl Runner {
    /// Prepares what simulations share.
    ///
    /// # Errors
    /// When not even an empty simulation works.
    pub fn new(program: &Path, patience: Duration) -> anyhow::Result<Self> {
        let runner = Self {
            program: program.to_owned(),
            pki: tempfile::tempdir().context("make a temporary folder")?,
            patience,
        };
        let status = runner.command(&["--prepare".to_owned()]).status();
        let status = status.with_context(|| format!("start {}", program.display()))?;
        ensure!(
            status.success(),
            "the simulator can't make the API server's keys: {status}"
        );
        Ok(runner)
    }

    fn command(&self, flags: &[String]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--one", "--pki"]).arg(self.pki.path()).args(flags);
        command
    }

    /// Runs one case.
    ///
    /// # Errors
    /// When its process can't be started or says nothing that makes sense.
    pub fn run(&self, case: &Case) -> anyhow::Result<Verdict> {
        let mut child = self
            .command(&case.flags())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        let (text, is_late) = self.listen(&mut child)?;
        let status = child.wait().context("wait for a simulation")?;
        if is_late {
            return Ok(Verdict {
                broken: vec![format!("no end within {:?} of real time", self.patience)],
                hash: String::new(),
                lines: 0,
                steps: 0,
                millis: 0,
                tail: Vec::new(),
            });
        }
        serde_json::from_str(&text).with_context(|| format!("seed {}: {status}, said {text:?}", case.seed))
    }

    /// Runs one case and lets it print everything that happens.
    ///
    /// # Errors
    /// When its process can't be started.
    pub fn show(&self, case: &Case) -> anyhow::Result<bool> {
        let mut flags = case.flags();
        flags.push("--verbose".to_owned());
        let status = self.command(&flags).status();
        let status = status.with_context(|| format!("start {}", self.program.display()))?;
        Ok(status.success())
    }

    /// What the child says; kills it when it takes too long.
    fn listen(&self, child: &mut Child) -> anyhow::Result<(String, bool)> {
        let mut stdout = child.stdout.take().context("a simulation has an output")?;
        let is_over = AtomicU64::new(0);
        let begun = Instant::now();
        let mut text = String::new();
        let mut is_late = false;
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let read = stdout.read_to_string(&mut text);
                is_over.store(1, Ordering::Release);
                read
            });
            while is_over.load(Ordering::Acquire) == 0 {
                if begun.elapsed() > self.patience {
                    is_late = true;
                    child.kill().ok(); // It may just have ended.
                    break;
                }
                std::thread::park_timeout(Duration::from_millis(2));
            }
            reading.join().map_or(Ok(0), |read| read)
        })
        .context("read what a simulation says")?;
        Ok((text, is_late))
    }

    /// Runs many seeds on several processors. `on_result` hears of each, in no order, and says whether to go on.
    ///
    /// # Errors
    /// The first that [`Runner::run`] has.
    pub fn run_many(
        &self,
        cases: &[Case],
        jobs: usize,
        on_result: impl Fn(&Case, &Verdict) -> bool + Sync,
    ) -> anyhow::Result<()> {
        let next = AtomicU64::new(0);
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                scope.spawn(|| {
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                        let goes_on = match self.run(case) {
                            Ok(verdict) => on_result(case, &verdict),
                            Err(error) => {
                                failure.lock().get_or_insert(error);
                                false
                            }
                        };
                        if !goes_on {
                            next.store(u64::MAX / 2, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        failure.into_inner().map_or(Ok(()), Err)
    }

    /// Leaves out steps and faults while the case still fails, in ever smaller pieces.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn shrink(&self, case: &Case, mut on_progress: impl FnMut(&Case)) -> anyhow::Result<Case> {
        let mut best = case.clone();
        let plan = Plan::of(case.seed);
        let mut size = plan.ops.len().max(plan.faults.len()).div_ceil(2).max(1);
        loop {
            let before = best.clone();
            for kind in [Kind::Faults, Kind::Ops] {
                let all = match kind {
                    Kind::Faults => plan.faults.len(),
                    Kind::Ops => plan.ops.len(),
                };
                let left: Vec<usize> = (0..all)
                    .filter(|place| !kind.of(&mut best).contains(place))
                    .collect();
                for piece in left.chunks(size) {
                    let mut smaller = best.clone();
                    kind.of(&mut smaller).extend(piece);
                    if !self.run(&smaller)?.broken.is_empty() {
                        best = smaller;
                        on_progress(&best);
                    }
                }
            }
            if size > 1 {
                size = size.div_ceil(2);
            } else if best == before {
                return Ok(best);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Ops,
    Faults,
}

impl Kind {
    fn of(self, case: &mut Case) -> &mut BTreeSet<usize> {
        match self {
            Kind::Ops => &mut case.without_ops,
            Kind::Faults => &mut case.without_faults,
        }
    }
}
