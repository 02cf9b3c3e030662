//! One operation per volume at a time. The guard is not a lock: the second caller is sent away with `ABORTED`.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{DriverError, ErrorKind};

/// What an operation has for itself while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The name of a volume to be.
    Name(String),
    /// A volume as a whole.
    Volume(String),
    /// A volume at one path: several workloads of a node may come and go at once, but none during staging or growing.
    Target(String, PathBuf),
}

#[derive(Debug)]
enum Holder {
    Whole(&'static str),
    Targets(HashMap<PathBuf, &'static str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Name,
    Volume,
}

/// All operations that are running.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight {
    holders: Arc<Mutex<HashMap<(Kind, String), Holder>>>,
}

/// Ends the claim when dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    in_flight: InFlight,
    claim: Claim,
}

impl InFlight {
    /// Takes the claim for `operation`, or says who has it.
    pub(crate) fn acquire(&self, claim: Claim, operation: &'static str) -> Result<Guard, DriverError> {
        let mut holders = self.holders.lock();
        let (key, path) = split(&claim);
        let busy = match (holders.entry(key), path) {
            (Entry::Vacant(entry), None) => {
                entry.insert(Holder::Whole(operation));
                None
            }
            (Entry::Vacant(entry), Some(path)) => {
                entry.insert(Holder::Targets(HashMap::from([(path, operation)])));
                None
            }
            (Entry::Occupied(mut entry), Some(path)) => match entry.get_mut() {
                Holder::Whole(other) => Some(*other),
                Holder::Targets(targets) => match targets.entry(path) {
                    Entry::Occupied(target) => Some(*target.get()),
                    Entry::Vacant(target) => {
                        target.insert(operation);
                        None
                    }
                },
            },
            (Entry::Occupied(entry), None) => Some(entry.get().operation()),
        };
        drop(holders);
        match busy {
            None => Ok(Guard {
                in_flight: self.clone(),
                claim,
            }),
            Some(other) => Err(DriverError::new(
                ErrorKind::Aborted,
                format!("{other} is still running for {}", claim.subject()),
            )),
        }
    }

    /// The operations that are running, for a message at shutdown.
    pub(crate) fn describe(&self) -> Vec<String> {
        let holders = self.holders.lock();
        holders
            .iter()
            .map(|((_, id), holder)| format!("{} for {id}", holder.operation()))
            .collect()
    }
}

impl Holder {
    fn operation(&self) -> &'static str {
        match self {
            Holder::Whole(operation) => operation,
            Holder::Targets(targets) => targets.values().next().copied().unwrap_or("an operation"),
        }
    }
}

impl Claim {
    fn subject(&self) -> &str {
        match self {
            Claim::Name(id) | Claim::Volume(id) | Claim::Target(id, _) => id,
        }
    }
}

fn split(claim: &Claim) -> ((Kind, String), Option<PathBuf>) {
    match claim {
        Claim::Name(name) => ((Kind::Name, name.clone()), None),
        Claim::Volume(id) => ((Kind::Volume, id.clone()), None),
        Claim::Target(id, path) => ((Kind::Volume, id.clone()), Some(path.clone())),
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut holders = self.in_flight.holders.lock();
        let (key, path) = split(&self.claim);
        let is_last = match (holders.get_mut(&key), path) {
            (Some(Holder::Targets(targets)), Some(path)) => {
                targets.remove(&path);
                targets.is_empty()
            }
            _ => true,
        };
        if is_last {
            holders.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> Claim {
        Claim::Volume("v".into())
    }

    fn target(path: &str) -> Claim {
        Claim::Target("v".into(), path.into())
    }

    #[test]
    fn claims_exclude_each_other_where_they_overlap() {
        let cases = [
            ("one volume twice", volume(), volume(), false),
            ("two volumes", volume(), Claim::Volume("w".into()), true),
            ("a name is no volume", Claim::Name("v".into()), volume(), true),
            (
                "one name twice",
                Claim::Name("v".into()),
                Claim::Name("v".into()),
                false,
            ),
            ("two paths of one volume", target("/a"), target("/b"), true),
            ("one path twice", target("/a"), target("/a"), false),
            ("a path and the whole", target("/a"), volume(), false),
            ("the whole and a path", volume(), target("/a"), false),
        ];
        for (name, first, second, expected) in cases {
            let in_flight = InFlight::default();
            let guard = in_flight.acquire(first, "First").expect(name);
            match in_flight.acquire(second.clone(), "Second") {
                Ok(_) => assert!(expected, "{name}"),
                Err(error) => {
                    assert!(!expected, "{name}");
                    assert_eq!(error.kind(), ErrorKind::Aborted, "{name}");
                    assert_eq!(error.to_string(), "First is still running for v", "{name}");
                }
            }
            drop(guard);
            drop(in_flight.acquire(second, "Third").expect(name));
            assert_eq!(in_flight.describe(), [""; 0], "{name}: nothing stays");
        }
    }

    #[test]
    fn the_whole_is_free_only_after_the_last_path() {
        let in_flight = InFlight::default();
        let first = in_flight.acquire(target("/a"), "NodePublishVolume").unwrap();
        let second = in_flight.acquire(target("/b"), "NodePublishVolume").unwrap();
        drop(first);
        assert!(in_flight.acquire(volume(), "NodeUnstageVolume").is_err());
        drop(second);
        in_flight.acquire(volume(), "NodeUnstageVolume").unwrap();
    }
}
