//! One operation per volume, snapshot and name at a time. The guard is not a lock: the second caller is sent away with
//! `ABORTED`.
//!
//! | beside | whole | attachment | source | target |
//! | --- | --- | --- | --- | --- |
//! | whole (delete, expand, modify, stage, unstage) | no | no | no | no |
//! | attachment (controller publish, unpublish) | no | no | yes | no |
//! | source (of snapshots and clones) | no | yes | yes | yes |
//! | target (node publish, unpublish at a path) | no | no | yes | another path |

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use parking_lot::Mutex;

use crate::{DriverError, ErrorKind};

/// What an operation has for itself while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The name of a volume to be.
    Name(String),
    /// A volume as a whole.
    Volume(String),
    /// Where a volume is attached: nothing that matters to who only reads its content.
    Attachment(String),
    /// A volume as the source of a snapshot or clone: several may run at once.
    VolumeSource(String),
    /// A volume at one path: several workloads of a node may come and go at once, but none during staging or growing.
    Target(String, PathBuf),
    /// The name of a snapshot to be.
    SnapshotName(String),
    /// A snapshot as a whole.
    Snapshot(String),
    /// A snapshot that is read: several may run at once.
    SnapshotSource(String),
    /// The name of a group snapshot to be.
    GroupName(String),
    /// A group snapshot as a whole.
    Group(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Mode {
    Whole,
    Attachment,
    Source,
    Target(PathBuf),
}

impl Mode {
    fn goes_with(&self, other: &Mode) -> bool {
        match (self, other) {
            (Mode::Whole, _) | (_, Mode::Whole) => false,
            (Mode::Source, _) | (_, Mode::Source) => true,
            (Mode::Target(path), Mode::Target(other)) => path != other,
            (Mode::Attachment, Mode::Attachment | Mode::Target(_)) | (Mode::Target(_), Mode::Attachment) => {
                false
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Name,
    Volume,
    SnapshotName,
    Snapshot,
    GroupName,
    Group,
}

type Key = (Kind, String);

#[derive(Debug)]
struct Holder {
    mode: Mode,
    operation: &'static str,
}

/// All operations that are running.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight {
    holders: Arc<Mutex<HashMap<Key, Vec<Holder>>>>,
}

/// Ends the claims when dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    in_flight: InFlight,
    claims: Vec<(Key, Mode)>,
    operation: &'static str,
}

impl InFlight {
    /// Takes all the claims for `operation`, or none and says who has one.
    pub(crate) fn acquire(&self, claims: Vec<Claim>, operation: &'static str) -> Result<Guard, DriverError> {
        let claims: Vec<_> = claims.into_iter().map(Claim::split).collect();
        let mut holders = self.holders.lock();
        for (key, mode) in &claims {
            let others = holders.get(key).map_or(&[][..], Vec::as_slice);
            if let Some(other) = others.iter().find(|other| !other.mode.goes_with(mode)) {
                let message = format!("{} is still running for {}", other.operation, key.1);
                return Err(DriverError::new(ErrorKind::Aborted, message));
            }
        }
        for (key, mode) in &claims {
            let holder = Holder {
                mode: mode.clone(),
                operation,
            };
            holders.entry(key.clone()).or_default().push(holder);
        }
        drop(holders);
        Ok(Guard {
            in_flight: self.clone(),
            claims,
            operation,
        })
    }

    /// The operations that are running, for a message at shutdown.
    pub(crate) fn describe(&self) -> Vec<String> {
        let holders = self.holders.lock();
        let mut running: Vec<_> = holders
            .iter()
            .flat_map(|((_, id), holders)| {
                holders
                    .iter()
                    .map(move |holder| format!("{} for {id}", holder.operation))
            })
            .collect();
        running.sort();
        running
    }
}

impl Claim {
    /// The id or name that is claimed.
    pub(crate) fn subject(&self) -> &str {
        match self {
            Claim::Name(id)
            | Claim::Volume(id)
            | Claim::Attachment(id)
            | Claim::VolumeSource(id)
            | Claim::Target(id, _)
            | Claim::SnapshotName(id)
            | Claim::Snapshot(id)
            | Claim::SnapshotSource(id)
            | Claim::GroupName(id)
            | Claim::Group(id) => id,
        }
    }

    fn split(self) -> (Key, Mode) {
        match self {
            Claim::Name(id) => ((Kind::Name, id), Mode::Whole),
            Claim::Volume(id) => ((Kind::Volume, id), Mode::Whole),
            Claim::Attachment(id) => ((Kind::Volume, id), Mode::Attachment),
            Claim::VolumeSource(id) => ((Kind::Volume, id), Mode::Source),
            Claim::Target(id, path) => ((Kind::Volume, id), Mode::Target(path)),
            Claim::SnapshotName(id) => ((Kind::SnapshotName, id), Mode::Whole),
            Claim::Snapshot(id) => ((Kind::Snapshot, id), Mode::Whole),
            Claim::SnapshotSource(id) => ((Kind::Snapshot, id), Mode::Source),
            Claim::GroupName(id) => ((Kind::GroupName, id), Mode::Whole),
            Claim::Group(id) => ((Kind::Group, id), Mode::Whole),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut holders = self.in_flight.holders.lock();
        for (key, mode) in &self.claims {
            let Some(of_key) = holders.get_mut(key) else {
                continue;
            };
            let ours = of_key
                .iter()
                .position(|holder| holder.mode == *mode && holder.operation == self.operation);
            if let Some(ours) = ours {
                of_key.swap_remove(ours);
            }
            if of_key.is_empty() {
                holders.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> Claim {
        Claim::Volume("v".into())
    }

    fn source() -> Claim {
        Claim::VolumeSource("v".into())
    }

    fn target(path: &str) -> Claim {
        Claim::Target("v".into(), path.into())
    }

    #[test]
    fn claims_exclude_each_other_where_they_overlap() {
        let attachment = || Claim::Attachment("v".into());
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
            ("two readers", source(), source(), true),
            ("a reader and the whole", source(), volume(), false),
            ("the whole and a reader", volume(), source(), false),
            ("a reader and a path", source(), target("/a"), true),
            ("a reader and an attachment", source(), attachment(), true),
            ("two attachments", attachment(), attachment(), false),
            ("an attachment and the whole", attachment(), volume(), false),
            ("an attachment and a path", attachment(), target("/a"), false),
            (
                "a snapshot is no volume",
                volume(),
                Claim::Snapshot("v".into()),
                true,
            ),
            (
                "a snapshot that is read and deleted",
                Claim::SnapshotSource("v".into()),
                Claim::Snapshot("v".into()),
                false,
            ),
            (
                "names of snapshots and volumes",
                Claim::SnapshotName("v".into()),
                Claim::Name("v".into()),
                true,
            ),
            (
                "names of groups and snapshots",
                Claim::GroupName("v".into()),
                Claim::SnapshotName("v".into()),
                true,
            ),
            (
                "one group twice",
                Claim::Group("v".into()),
                Claim::Group("v".into()),
                false,
            ),
        ];
        for (name, first, second, expected) in cases {
            let in_flight = InFlight::default();
            let guard = in_flight.acquire(vec![first], "First").expect(name);
            match in_flight.acquire(vec![second.clone()], "Second") {
                Ok(_) => assert!(expected, "{name}"),
                Err(error) => {
                    assert!(!expected, "{name}");
                    assert_eq!(error.kind(), ErrorKind::Aborted, "{name}");
                    assert_eq!(error.to_string(), "First is still running for v", "{name}");
                }
            }
            drop(guard);
            drop(in_flight.acquire(vec![second], "Third").expect(name));
            assert_eq!(in_flight.describe(), [""; 0], "{name}: nothing stays");
        }
    }

    #[test]
    fn the_whole_is_free_only_after_the_last_path() {
        let in_flight = InFlight::default();
        let first = in_flight
            .acquire(vec![target("/a")], "NodePublishVolume")
            .unwrap();
        let second = in_flight
            .acquire(vec![target("/b")], "NodePublishVolume")
            .unwrap();
        drop(first);
        assert!(in_flight.acquire(vec![volume()], "NodeUnstageVolume").is_err());
        drop(second);
        in_flight.acquire(vec![volume()], "NodeUnstageVolume").unwrap();
    }

    #[test]
    fn all_claims_are_taken_or_none() {
        let in_flight = InFlight::default();
        let deleting = in_flight.acquire(vec![volume()], "DeleteVolume").unwrap();
        let group = || {
            vec![
                Claim::GroupName("g".into()),
                Claim::VolumeSource("w".into()),
                source(),
            ]
        };
        assert!(in_flight.acquire(group(), "CreateVolumeGroupSnapshot").is_err());
        assert_eq!(in_flight.describe(), ["DeleteVolume for v"]);
        drop(deleting);
        let first = in_flight.acquire(group(), "CreateVolumeGroupSnapshot").unwrap();
        let second = in_flight.acquire(vec![source()], "CreateSnapshot").unwrap();
        drop(first);
        assert_eq!(in_flight.describe(), ["CreateSnapshot for v"]);
        drop(second);
        assert_eq!(in_flight.describe(), [""; 0]);
    }
}
