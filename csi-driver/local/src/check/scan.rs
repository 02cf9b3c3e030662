//! Looking through pools. Nothing is changed, and nothing is assumed to be there.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use uuid::Uuid;

use super::{Finding, Report, Trouble};
use crate::{
    backend::{self, Files},
    config::PoolConfig,
    pool::{self, Found, Layout, Named, PoolError, Remedy},
    record::{Content, GroupRecord, Record, RecordError, SnapshotRecord},
};

const VOLUME: &str = "volume";

pub(super) fn scan(pools: &[PoolConfig]) -> Result<Vec<Report>, PoolError> {
    let mut seen = pools
        .iter()
        .map(ScannedPool::read)
        .collect::<Result<Vec<_>, _>>()?;
    find_twins(&mut seen);
    find_lost_groups(&mut seen);
    let mut reports = Vec::new();
    for mut pool in seen {
        pool.report.findings.sort_by(|one, two| one.path.cmp(&two.path));
        reports.push(pool.report);
    }
    Ok(reports)
}

/// One pool as it was found.
struct ScannedPool {
    report: Report,
    layout: Layout,
    id: Uuid,
    /// Paths of things by kind and id.
    served: BTreeMap<(&'static str, String), PathBuf>,
    members: Vec<Arc<SnapshotRecord>>,
    groups: BTreeSet<String>,
    /// Volumes that need no second copy of their record yet.
    promised: BTreeSet<String>,
}

/// What a record says that matters here.
struct Told {
    pool: Uuid,
    content: Option<Content>,
    /// What the data must have, at least.
    bytes: u64,
}

impl ScannedPool {
    fn read(config: &PoolConfig) -> Result<Self, PoolError> {
        let layout = Layout::of(&config.directory);
        layout.check_format()?;
        let report = Report {
            pool: config.name.clone(),
            directory: config.directory.clone(),
            is_in_use: layout.is_locked()?,
            volumes: 0,
            snapshots: 0,
            groups: 0,
            findings: Vec::new(),
        };
        let mut pool = ScannedPool {
            id: layout.id(),
            report,
            layout,
            served: BTreeMap::new(),
            members: Vec::new(),
            groups: BTreeSet::new(),
            promised: pool::promised(&config.directory)?,
        };
        pool.read_things()?;
        pool.read_markers()?;
        pool.read_leases()?;
        Ok(pool)
    }

    fn find(&mut self, path: PathBuf, trouble: Trouble) {
        self.report.findings.push(Finding { path, trouble });
    }

    fn read_things(&mut self) -> Result<(), PoolError> {
        for (id, _) in self.read_shelf(VOLUME, &self.layout.volumes.clone(), Record::read_of, |record| {
            Told {
                pool: record.pool,
                content: Some(record.content),
                bytes: record.capacity_bytes,
            }
        })? {
            self.report.volumes += 1;
            let path = self.layout.volumes.join(&id);
            self.served.insert((VOLUME, id), path);
        }
        for (id, record) in self.read_shelf(
            "snapshot",
            &self.layout.snapshots.clone(),
            SnapshotRecord::read_of,
            |record| Told {
                pool: record.pool,
                content: Some(record.content),
                bytes: record.size_bytes,
            },
        )? {
            self.report.snapshots += 1;
            let path = self.layout.snapshots.join(&id);
            self.served.insert(("snapshot", id), path);
            self.members.push(Arc::new(record));
        }
        let groups = self.layout.groups.clone();
        for (id, _) in self.read_shelf("group snapshot", &groups, GroupRecord::read_of, |_| Told {
            pool: Uuid::nil(),
            content: None,
            bytes: 0,
        })? {
            self.report.groups += 1;
            self.groups.insert(id);
        }
        Ok(())
    }

    /// The things of one kind that have a good record; the trouble with all.
    fn read_shelf<R>(
        &mut self,
        noun: &'static str,
        shelf: &Path,
        parse: impl Fn(&str, &[u8]) -> Result<R, RecordError>,
        tell: impl Fn(&R) -> Told,
    ) -> Result<Vec<(String, R)>, PoolError> {
        let mut good = Vec::new();
        for name in names(shelf)? {
            let path = shelf.join(&name);
            let id = match pool::named(&name) {
                Named::Thing(id) => id.to_owned(),
                // The driver that has the pool keeps it for the next volume.
                Named::Unmade(_) if self.report.is_in_use && pool::is_spare(&name) => continue,
                Named::Unmade(_) => {
                    self.find(path, Trouble::HalfMade);
                    continue;
                }
                Named::Going(_) => {
                    self.find(path, Trouble::HalfGone);
                    continue;
                }
                Named::Foreign => {
                    self.find(path, Trouble::Foreign);
                    continue;
                }
            };
            let looked = pool::look_at(noun, &path, &id, &parse);
            match looked.remedy {
                Remedy::None => {}
                Remedy::WriteCopy
                    if looked.states[1] == Found::Missing
                        && noun == VOLUME
                        && self.promised.contains(&id) => {}
                Remedy::WriteCopy => self.find(path.clone(), Trouble::CopyLost),
                Remedy::WriteRecord => self.find(path.clone(), Trouble::RecordLost),
                Remedy::Quarantine => {
                    let is_empty = looked.states == [Found::Missing; 2] && holds_no_data(&path)?;
                    let trouble = if is_empty {
                        Trouble::Orphan
                    } else {
                        Trouble::Damaged(looked.reason)
                    };
                    self.find(path, trouble);
                    continue;
                }
            }
            if let Some(record) = looked.record {
                self.check_data(&path, tell(&record));
                good.push((id, record));
            }
        }
        Ok(good)
    }

    fn check_data(&mut self, path: &Path, told: Told) {
        if !told.pool.is_nil() && told.pool != self.id {
            self.find(path.to_owned(), Trouble::OfAnotherPool);
        }
        let Some(content) = told.content else {
            return;
        };
        let files = Files {
            directory: path,
            content,
        };
        let fault = match backend::of_content(content).fault(files, told.bytes) {
            Ok(fault) => fault,
            Err(error) => Some(error.into_driver_error("look at the data").full_message()),
        };
        if let Some(fault) = fault {
            self.find(path.to_owned(), Trouble::Faulty(fault));
        }
    }

    fn read_markers(&mut self) -> Result<(), PoolError> {
        if self.report.is_in_use {
            return Ok(()); // They are that controller's.
        }
        let frozen = self.layout.frozen.clone();
        for name in names(&frozen)? {
            self.find(frozen.join(name), Trouble::Frozen);
        }
        Ok(())
    }

    fn read_leases(&mut self) -> Result<(), PoolError> {
        let leases = self.layout.leases.clone();
        for name in names(&leases)? {
            let is_of_somebody = self.layout.volumes.join(&name).exists();
            if !is_of_somebody && matches!(pool::named(&name), Named::Thing(_)) {
                self.find(leases.join(name), Trouble::LeaseOfNobody);
            }
        }
        Ok(())
    }
}

fn names(directory: &Path) -> Result<Vec<String>, PoolError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(PoolError::io("list", directory))?,
    };
    let text = |name: &OsStr| name.to_string_lossy().into_owned();
    entries
        .map(|entry| entry.map(|entry| text(&entry.file_name())))
        .collect::<Result<_, _>>()
        .map_err(PoolError::io("list", directory))
}

fn holds_no_data(directory: &Path) -> Result<bool, PoolError> {
    let is_directory = fs::symlink_metadata(directory).is_ok_and(|seen| seen.is_dir());
    Ok(is_directory && names(directory)?.is_empty())
}

/// The first pool serves what several have.
fn find_twins(pools: &mut [ScannedPool]) {
    let mut first: BTreeMap<(&'static str, String), String> = BTreeMap::new();
    for pool in pools {
        for (key, path) in std::mem::take(&mut pool.served) {
            match first.get(&key) {
                Some(other) => pool.report.findings.push(Finding {
                    path,
                    trouble: Trouble::Twin(other.clone()),
                }),
                None => drop(first.insert(key, pool.report.pool.clone())),
            }
        }
    }
}

/// Groups that only their snapshots know of.
fn find_lost_groups(pools: &mut [ScannedPool]) {
    let known: BTreeSet<String> = pools
        .iter()
        .flat_map(|pool| pool.groups.iter().cloned())
        .collect();
    let mut lost: BTreeMap<String, (usize, Vec<Arc<SnapshotRecord>>)> = BTreeMap::new();
    for (index, pool) in pools.iter().enumerate() {
        for member in &pool.members {
            if let Some(group) = member
                .group
                .as_deref()
                .filter(|group| !known.contains(&group.group_id))
            {
                let (_, members) = lost.entry(group.group_id.clone()).or_insert((index, Vec::new()));
                members.push(Arc::clone(member));
            }
        }
    }
    for (group_id, (index, members)) in lost {
        let pool = &mut pools[index];
        let path = pool.layout.groups.join(group_id);
        // What is being made or removed goes with its snapshots, and is reported as that.
        let is_under_way = [pool::NEW_PREFIX, pool::GONE_PREFIX].iter().any(|prefix| {
            let name = path
                .file_name()
                .map(|name| format!("{prefix}{}", name.to_string_lossy()));
            name.is_some_and(|name| pool.layout.groups.join(name).exists())
        });
        if is_under_way {
            continue;
        }
        let trouble = match GroupRecord::from_members(&members) {
            Some(_) => Trouble::GroupLost,
            None => Trouble::GroupTorn,
        };
        pool.report.findings.retain(|finding| finding.path != path);
        pool.find(path, trouble);
    }
}
