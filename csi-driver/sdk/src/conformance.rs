//! Is a running driver what it advertises? Checks over gRPC that any vendor's test can call.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use moorline_driver_sdk::conformance::{Options, check};
//!
//! let report = check(&"unix:///run/my-driver/csi.sock".parse()?, &Options::default()).await?;
//! println!("{report}");
//! assert!(report.has_passed());
//! # Ok(()) }
//! ```
//!
//! What a check needs and the driver does not advertise is skipped, with the reason. Volumes and snapshots that checks
//! make are removed at the end, also after failures; a driver that can't remove them fails the last check.

mod attachment;
mod context;
mod groups;
mod identity;
mod metadata;
mod node;
mod snapshots;
mod volumes;

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

pub use context::ConformanceError;
use context::Context;
use futures::future::BoxFuture;

use crate::Endpoint;

/// What the checks may use.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the node service listens, if elsewhere.
    pub node_endpoint: Option<Endpoint>,
    /// An existing directory on the driver's node below which volumes may be staged and published; `None`: the checks
    /// that would do so are skipped.
    pub node_dir: Option<PathBuf>,
    /// Parameters of new volumes.
    pub parameters: BTreeMap<String, String>,
    /// Parameters that can be changed, for drivers with MODIFY_VOLUME; empty: that is skipped.
    pub mutable_parameters: BTreeMap<String, String>,
    /// Secrets of all calls that take some.
    pub secrets: BTreeMap<String, String>,
    /// Block devices instead of filesystems?
    pub is_block: bool,
    /// Filesystem of new volumes that are no block devices; empty: what the driver likes.
    pub fs_type: String,
    /// Size of new volumes; they are grown to twice of it.
    pub capacity_bytes: u64,
    /// Begins the names of everything that is made.
    pub name_prefix: String,
    /// How long one call may take.
    pub call_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            node_endpoint: None,
            node_dir: None,
            parameters: BTreeMap::new(),
            mutable_parameters: BTreeMap::new(),
            secrets: BTreeMap::new(),
            is_block: false,
            fs_type: String::new(),
            capacity_bytes: 1 << 30,
            name_prefix: format!("conformance-{}", std::process::id()),
            call_timeout: Duration::from_secs(60),
        }
    }
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The driver does what the specification demands.
    Passed,
    /// It does not; what was expected and what happened.
    Failed(String),
    /// It could not be checked; why.
    Skipped(String),
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is demanded, as a sentence.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
}

/// All checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In the order in which they ran.
    pub checks: Vec<Check>,
}

impl Report {
    /// Has none failed?
    pub fn has_passed(&self) -> bool {
        self.failed().next().is_none()
    }

    /// The names of those that failed.
    pub fn failed(&self) -> impl Iterator<Item = &'static str> + '_ {
        let failed = |check: &&Check| matches!(check.outcome, Outcome::Failed(_));
        self.checks.iter().filter(failed).map(|check| check.name)
    }

    /// The names of those that passed.
    pub fn passed(&self) -> impl Iterator<Item = &'static str> + '_ {
        let passed = |check: &&Check| check.outcome == Outcome::Passed;
        self.checks.iter().filter(passed).map(|check| check.name)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        for Check { name, outcome } in &self.checks {
            match outcome {
                Outcome::Passed => passed += 1,
                Outcome::Failed(why) => {
                    failed += 1;
                    writeln!(f, "failed: {name}: {why}")?;
                }
                Outcome::Skipped(why) => {
                    skipped += 1;
                    writeln!(f, "skipped: {name}: {why}")?;
                }
            }
        }
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Why a check did not pass.
enum Fault {
    Failed(String),
    Skipped(String),
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Fault::Failed(why)
    }
}

type Checked = Result<(), Fault>;
type Run = for<'a> fn(&'a Context) -> BoxFuture<'a, Checked>;

/// A check, what has to be advertised for it, and how it is done.
struct Demand {
    name: &'static str,
    needs: &'static [&'static str],
    run: Run,
}

/// A row of a family's table.
macro_rules! demand {
    ($name:literal, [$($needs:literal),*], $run:path) => {
        $crate::conformance::Demand { name: $name, needs: &[$($needs),*], run: |context| Box::pin($run(context)) }
    };
}
use demand;

/// Checks a running driver.
///
/// # Errors
/// When it can't be reached or does not say what it is. What it does wrong is in the report.
pub async fn check(endpoint: &Endpoint, options: &Options) -> Result<Report, ConformanceError> {
    let context = Context::open(endpoint, options).await?;
    let families = [
        identity::DEMANDS,
        volumes::DEMANDS,
        attachment::DEMANDS,
        snapshots::DEMANDS,
        groups::DEMANDS,
        metadata::DEMANDS,
        node::DEMANDS,
    ];
    let mut checks = Vec::new();
    for demand in families.into_iter().flatten() {
        let missing = demand.needs.iter().find(|need| !context.has(need));
        let result = match missing {
            Some(missing) => Err(Fault::Skipped(format!("{missing} is not advertised"))),
            None => (demand.run)(&context).await,
        };
        checks.push(Check {
            name: demand.name,
            outcome: outcome(result),
        });
    }
    checks.push(Check {
        name: "what was made can be removed",
        outcome: outcome(context.clean_up().await),
    });
    Ok(Report { checks })
}

fn outcome(result: Checked) -> Outcome {
    match result {
        Ok(()) => Outcome::Passed,
        Err(Fault::Failed(why)) => Outcome::Failed(why),
        Err(Fault::Skipped(why)) => Outcome::Skipped(why),
    }
}
