//! What a start does with what it finds on disk: pure deciders, and the acts that follow from them.

use std::{fs, path::Path, sync::Arc};

use moorline_driver_sdk::DriverError;
use moorline_mount::durable;

use super::{
    Pool, PoolError, make_directory, remove,
    shelf::{COPY_FILE, GONE_PREFIX, NEW_PREFIX, RECORD_FILE, Shelf},
};
use crate::{
    catalog::{Entry, FoundEntries, FoundInPool, Kept},
    ids::is_id,
    record::{GroupRecord, Record, RecordError, SnapshotRecord},
};

/// What a name on a shelf stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named<'a> {
    /// A thing with this id.
    Thing(&'a str),
    /// A making that did not come to its end.
    Unmade(&'a str),
    /// A removal that did not come to its end.
    Going(&'a str),
    /// Somebody else's.
    Foreign,
}

pub(crate) fn named(name: &str) -> Named<'_> {
    if let Some(id) = name.strip_prefix(NEW_PREFIX) {
        return Named::Unmade(id);
    }
    if let Some(id) = name.strip_prefix(GONE_PREFIX) {
        return Named::Going(id);
    }
    if is_id(name) {
        Named::Thing(name)
    } else {
        Named::Foreign
    }
}

/// A copy of a record on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Missing,
    Damaged,
    /// Written by a later version of the driver.
    Later,
    Good,
}

/// What becomes of a thing whose two copies were found like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Both are good and the same.
    None,
    /// The record is good: it decides, also when an update got no further than the second copy.
    WriteCopy,
    /// The record is lost, its second copy is not.
    WriteRecord,
    /// Both are lost. What the data alone can't tell is not guessed: it is kept, and served to nobody.
    Quarantine,
}

pub(crate) fn remedy(record: Found, copy: Found, are_equal: bool) -> Remedy {
    match (record, copy) {
        (Found::Good, Found::Good) if are_equal => Remedy::None,
        (Found::Good, Found::Good | Found::Missing | Found::Damaged | Found::Later) => Remedy::WriteCopy,
        (Found::Missing | Found::Damaged, Found::Good) => Remedy::WriteRecord,
        (Found::Missing | Found::Damaged, Found::Missing | Found::Damaged | Found::Later) => {
            Remedy::Quarantine
        }
        // It is whole, only not for us.
        (Found::Later, _) => Remedy::Quarantine,
    }
}

impl Pool {
    /// The snapshots, in whatever pool, of groups whose making or removal did not come to its end: they go with it.
    pub(crate) fn doomed_snapshots(&self) -> Result<Vec<Arc<str>>, PoolError> {
        let mut doomed = Vec::new();
        for name in self.groups.names()? {
            let (id, directory) = match named(&name) {
                Named::Unmade(id) => (id, self.groups.new_directory(id)),
                Named::Going(id) => (id, self.groups.gone_directory(id)),
                Named::Thing(_) | Named::Foreign => continue,
            };
            // Without a whole record the making had not begun with the members yet, or the removal had ended with them.
            let bytes = fs::read(directory.join(RECORD_FILE));
            if let Some(group) = bytes.ok().and_then(|bytes| GroupRecord::read_of(id, &bytes).ok()) {
                doomed.extend(group.snapshot_ids.into_iter().filter(|id| is_id(id)));
            }
        }
        Ok(doomed)
    }

    /// Removes what a crash has left half-made and reads all records. Damaged ones are rebuilt from their second copies, or
    /// kept aside. To be called after the doomed snapshots have been removed from all pools.
    pub(crate) fn recover(&self) -> Result<FoundInPool, PoolError> {
        Ok(FoundInPool {
            volumes: self.volumes.recover(Record::read_of)?,
            snapshots: self.snapshots.recover(SnapshotRecord::read_of)?,
            groups: self.groups.recover(GroupRecord::read_of)?,
        })
    }

    /// Writes a group's record again, from those of its snapshots.
    pub(crate) fn rebuild_group(&self, group: &GroupRecord) -> Result<(), PoolError> {
        tracing::warn!(
            group.id = &*group.group_id,
            "The record was damaged; it is rebuilt from those of its snapshots"
        );
        make_directory(&self.groups.directory(&group.group_id))?;
        self.groups.update(&group.group_id, &group.to_bytes())
    }
}

impl Shelf {
    /// All that is there, with all records put right where that can be.
    fn recover<R: Kept>(
        &self,
        parse: impl Fn(&str, &[u8]) -> Result<R, RecordError>,
    ) -> Result<FoundEntries<R>, PoolError> {
        let mut found = FoundEntries::new();
        for id in self.clean()? {
            match self.recover_one(&id, &parse) {
                Ok(record) => {
                    let record = Arc::new(record);
                    found.insert(Arc::clone(record.id()), Entry::Ready(record));
                }
                Err(reason) => {
                    found.insert(
                        id.into(),
                        Entry::Damaged {
                            reason: reason.into(),
                        },
                    );
                }
            }
        }
        Ok(found)
    }

    /// The names of all that is there, whatever it is.
    fn names(&self) -> Result<Vec<String>, PoolError> {
        let entries = fs::read_dir(&self.path).map_err(PoolError::io("list", &self.path))?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        names
            .collect::<Result<_, _>>()
            .map_err(PoolError::io("list", &self.path))
    }

    /// Removes what is half-made or half-gone; the ids of the rest.
    pub(super) fn clean(&self) -> Result<Vec<String>, PoolError> {
        let mut ids = Vec::new();
        for name in self.names()? {
            let path = self.path.join(&name);
            match named(&name) {
                Named::Thing(_) => ids.push(name),
                Named::Unmade(_) | Named::Going(_) => remove::half_made(&path),
                Named::Foreign => {
                    tracing::warn!(path = %path.display(), noun = self.noun, "Ignoring something in the pool that is none of ours");
                }
            }
        }
        self.sync.sync()?;
        Ok(ids)
    }

    /// The record of one thing, with its two copies put right; if that can't be, why.
    pub(super) fn recover_one<T>(
        &self,
        id: &str,
        parse: impl Fn(&str, &[u8]) -> Result<T, RecordError>,
    ) -> Result<T, String> {
        let directory = self.directory(id);
        remove::temporary_files(&directory);
        let looked = look_at(self.noun, &directory, id, parse);
        let written = match looked.remedy {
            Remedy::None => None,
            Remedy::WriteCopy => Some(COPY_FILE),
            Remedy::WriteRecord => {
                tracing::warn!(
                    id,
                    noun = self.noun,
                    "The record was damaged; it is rebuilt from its second copy"
                );
                Some(RECORD_FILE)
            }
            Remedy::Quarantine => None,
        };
        let Some(record) = looked.record else {
            let reason = looked.reason;
            tracing::error!(id, noun = self.noun, path = %directory.display(), reason, "It can't be used; its data is left as it is");
            return Err(reason);
        };
        if let Some(file) = written
            && let Err(error) = durable::replace(directory.join(file), &looked.bytes)
        {
            // The good copy serves; the next start tries again.
            tracing::warn!(id, noun = self.noun, %error, "A copy of the record can't be rebuilt");
        }
        Ok(record)
    }
}

/// What was found of a thing's two copies of its record.
#[derive(Debug)]
pub(crate) struct Looked<T> {
    /// The record, and its second copy.
    pub(crate) states: [Found; 2],
    pub(crate) remedy: Remedy,
    /// The one that counts, if one can be used.
    pub(crate) record: Option<T>,
    /// Its bytes.
    bytes: Vec<u8>,
    /// Why none can be used.
    pub(crate) reason: String,
}

/// Looks at the two copies of a thing's record and changes nothing.
pub(crate) fn look_at<T>(
    noun: &'static str,
    directory: &Path,
    id: &str,
    parse: impl Fn(&str, &[u8]) -> Result<T, RecordError>,
) -> Looked<T> {
    let look = |name: &str| look(&directory.join(name), |bytes| parse(id, bytes));
    let (record, copy) = (look(RECORD_FILE), look(COPY_FILE));
    let states = [state(&record), state(&copy)];
    let are_equal = matches!((&record, &copy), (Ok((one, _)), Ok((two, _))) if one == two);
    let remedy = remedy(states[0], states[1], are_equal);
    let chosen = match remedy {
        Remedy::None | Remedy::WriteCopy | Remedy::Quarantine => record,
        Remedy::WriteRecord => copy,
    };
    match chosen {
        Ok((bytes, record)) => Looked {
            states,
            remedy,
            record: Some(record),
            bytes,
            reason: String::new(),
        },
        Err(error) => Looked {
            states,
            remedy,
            record: None,
            bytes: Vec::new(),
            reason: DriverError::internal(format!("the record of {noun} {id}"), error).full_message(),
        },
    }
}

type Seen<T> = Result<(Vec<u8>, T), LookError>;

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("is not there")]
    Missing,
    #[error("can't be read")]
    Io(#[source] std::io::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
}

fn look<T>(path: &Path, parse: impl Fn(&[u8]) -> Result<T, RecordError>) -> Seen<T> {
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => LookError::Missing,
        _ => LookError::Io(error),
    })?;
    let read = parse(&bytes)?;
    Ok((bytes, read))
}

fn state<T>(seen: &Seen<T>) -> Found {
    match seen {
        Ok(_) => Found::Good,
        Err(LookError::Missing) => Found::Missing,
        Err(LookError::Record(RecordError::Version { .. })) => Found::Later,
        Err(LookError::Io(_) | LookError::Record(_)) => Found::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_decides_and_its_copy_saves_it() {
        use Found::{Damaged, Good, Later, Missing};
        let cases = [
            ("as it should be", Good, Good, true, Remedy::None),
            (
                "an update that died between",
                Good,
                Good,
                false,
                Remedy::WriteCopy,
            ),
            (
                "from a version without copies",
                Good,
                Missing,
                false,
                Remedy::WriteCopy,
            ),
            ("a damaged copy", Good, Damaged, false, Remedy::WriteCopy),
            ("a lost record", Missing, Good, false, Remedy::WriteRecord),
            ("a damaged record", Damaged, Good, false, Remedy::WriteRecord),
            ("neither", Missing, Missing, false, Remedy::Quarantine),
            ("both damaged", Damaged, Damaged, false, Remedy::Quarantine),
            (
                "damaged and without copy",
                Damaged,
                Missing,
                false,
                Remedy::Quarantine,
            ),
            (
                "lost, and a damaged copy",
                Missing,
                Damaged,
                false,
                Remedy::Quarantine,
            ),
            ("of a later version", Later, Later, false, Remedy::Quarantine),
            (
                "of a later version, with an old copy",
                Later,
                Good,
                false,
                Remedy::Quarantine,
            ),
            ("a copy of a later version", Good, Later, false, Remedy::WriteCopy),
            (
                "lost, and a copy of a later version",
                Missing,
                Later,
                false,
                Remedy::Quarantine,
            ),
        ];
        for (name, record, copy, are_equal, expected) in cases {
            assert_eq!(remedy(record, copy, are_equal), expected, "{name}");
        }
    }

    #[test]
    fn names_tell_what_they_stand_for() {
        let cases = [
            ("pvc-1", Named::Thing("pvc-1")),
            (".new-pvc-1", Named::Unmade("pvc-1")),
            (".del-pvc-1", Named::Going("pvc-1")),
            (".new-", Named::Unmade("")),
            ("lost+found", Named::Foreign),
            ("Upper", Named::Foreign),
            (".hidden", Named::Foreign),
            ("", Named::Foreign),
        ];
        for (name, expected) in cases {
            assert_eq!(named(name), expected, "{name:?}");
        }
    }
}
