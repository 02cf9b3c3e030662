//! What is in the pools that should not be, or not so: reported without changing anything, and put right on demand.
//!
//! Repairing does what a start of the controller does anyhow, and removes orphans besides: things without a record and
//! without data. Whatever may hold somebody's data is never removed here.

mod scan;

use std::{fmt, fs, path::PathBuf};

use crate::{
    config::PoolConfig,
    pool::{self, PoolError},
    pools::{Opener, Pools},
    recovery,
};

/// What was found in one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The pool's name.
    pub pool: String,
    /// Where it is.
    pub directory: PathBuf,
    /// A controller uses it now: what is half-made may be its work, and nothing can be repaired.
    pub is_in_use: bool,
    /// How many volumes have a record that can be used.
    pub volumes: usize,
    /// How many snapshots, likewise.
    pub snapshots: usize,
    /// How many groups of snapshots, likewise.
    pub groups: usize,
    /// What is wrong, in the order of paths.
    pub findings: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub trouble: Trouble,
}

/// What is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It was being made when its driver died.
    HalfMade,
    /// It was being removed when its driver died.
    HalfGone,
    /// Its record is damaged or missing; the second copy is good.
    RecordLost,
    /// The second copy of its record is damaged, missing or behind.
    CopyLost,
    /// Neither copy of its record can be used, and there is data: kept, and served to nobody.
    Damaged(String),
    /// Its record is good, its data is not.
    Faulty(String),
    /// It has neither record nor data.
    Orphan,
    /// None of this driver's things has such a name.
    Foreign,
    /// Its record was written in another pool.
    OfAnotherPool,
    /// The pool named has the same id, and serves it.
    Twin(String),
    /// The record of this group is lost; its snapshots know it.
    GroupLost,
    /// The record of this group is lost, and so are some of its snapshots.
    GroupTorn,
    /// A driver that is not running holds writes to this volume up.
    Frozen,
    /// A lease of a volume that is not there.
    LeaseOfNobody,
}

impl Trouble {
    /// Does [`repair`] put it right?
    pub fn is_repairable(&self) -> bool {
        match self {
            Trouble::HalfMade
            | Trouble::HalfGone
            | Trouble::RecordLost
            | Trouble::CopyLost
            | Trouble::Orphan
            | Trouble::GroupLost
            | Trouble::Frozen
            | Trouble::LeaseOfNobody => true,
            Trouble::Damaged(_)
            | Trouble::Faulty(_)
            | Trouble::Foreign
            | Trouble::OfAnotherPool
            | Trouble::Twin(_)
            | Trouble::GroupTorn => false,
        }
    }

    /// Is it only removed by [`repair`], not by a start?
    fn is_litter(&self) -> bool {
        matches!(self, Trouble::Orphan | Trouble::LeaseOfNobody)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::HalfMade => f.write_str("was being made when its driver died; it will be removed"),
            Trouble::HalfGone => f.write_str("was being removed when its driver died; that will be finished"),
            Trouble::RecordLost => {
                f.write_str("has lost its record, which will be rebuilt from the second copy")
            }
            Trouble::CopyLost => {
                f.write_str("has no good second copy of its record; it will be written again")
            }
            Trouble::Damaged(reason) => write!(
                f,
                "can't be served: {reason}; restore the record from a backup, or save its data and remove it by hand"
            ),
            Trouble::Faulty(what) => write!(f, "has lost data: {what}"),
            Trouble::Orphan => f.write_str("has neither record nor data; --repair removes it"),
            Trouble::Foreign => f.write_str("is none of this driver's; move it elsewhere"),
            Trouble::OfAnotherPool => f.write_str("was made in another pool; it is served here all the same"),
            Trouble::Twin(pool) => {
                write!(
                    f,
                    "has the id of something in pool {pool}, which is served instead; remove one of the two"
                )
            }
            Trouble::GroupLost => {
                f.write_str("has lost its record, which will be rebuilt from its snapshots")
            }
            Trouble::GroupTorn => f.write_str(
                "has lost its record and some of its snapshots; delete the others one by one by hand",
            ),
            Trouble::Frozen => f.write_str("was left frozen; it will be thawed"),
            Trouble::LeaseOfNobody => {
                f.write_str("is a lease of a volume that is not there; --repair removes it")
            }
        }
    }
}

/// Looks through the pools and changes nothing. A pool that is not there yet is empty. Blocks.
///
/// # Errors
/// When a directory can't be read, or is laid out by another version.
pub fn open_for_check(pools: &[PoolConfig]) -> Result<Vec<Report>, PoolError> {
    scan::scan(pools)
}

/// Puts right what can be, as a start of the controller does, and removes orphans; then looks again. Blocks.
///
/// # Errors
/// [`PoolError::Locked`] while a controller uses one of the pools; when something can't be changed.
pub fn repair(pools: &[PoolConfig]) -> Result<Vec<Report>, PoolError> {
    {
        let opened = Pools::open(pools, Opener::Controller)?;
        recovery::recover(&opened)?;
        for report in scan::scan(pools)? {
            for finding in report
                .findings
                .iter()
                .filter(|finding| finding.trouble.is_litter())
            {
                remove(finding)?;
            }
        }
    }
    scan::scan(pools)
}

fn remove(finding: &Finding) -> Result<(), PoolError> {
    let path = &finding.path;
    tracing::info!(path = %path.display(), "Removing an orphan");
    match finding.trouble {
        Trouble::LeaseOfNobody => fs::remove_file(path).map_err(PoolError::io("remove", path)),
        _ => pool::remove_unused(path),
    }
}

#[cfg(test)]
mod tests;
