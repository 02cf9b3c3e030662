//! Directories of volumes that were deleted before anybody used them: the next new volumes get them. To make and remove a
//! directory and its files costs more than all else that a pool does for a volume without data.
//!
//! ```text
//! <shelf>/.new-spare.<n>      one that waits; a start removes it like all that is half-made
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

use super::{
    PoolError, remove,
    shelf::{NEW_PREFIX, RECORD_FILE},
};
use crate::backend;

/// What follows [`NEW_PREFIX`]; no id has a dot.
const NAME: &str = "spare.";
/// How many wait at most; as many creations as are ever under way at once.
const SPARES_MAX: usize = crate::blocking::THREADS_MAX;

/// Is this the name of a directory that waits for a volume?
pub(crate) fn is_spare(name: &str) -> bool {
    name.strip_prefix(NEW_PREFIX)
        .is_some_and(|name| name.starts_with(NAME))
}

/// The spare directories of one shelf.
#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    paths: Vec<PathBuf>,
    /// How many were ever kept.
    count: u64,
    is_closed: bool,
}

impl Spares {
    /// Keeps the directory of a deleted volume, if it holds nothing but an unused volume's; else it is the caller's to
    /// remove.
    pub(super) fn keep(&self, gone: &Path) -> Result<bool, PoolError> {
        if self.0.lock().paths.len() >= SPARES_MAX || !is_unused(gone)? {
            return Ok(false);
        }
        backend::remove_data(gone)?;
        let mut kept = self.0.lock();
        if kept.is_closed {
            return Ok(false);
        }
        kept.count += 1;
        let path = gone.with_file_name(format!("{NEW_PREFIX}{NAME}{}", kept.count));
        fs::rename(gone, &path).map_err(PoolError::io("keep as a spare", &path))?;
        kept.paths.push(path);
        Ok(true)
    }

    /// Moves a spare directory to `new`; says whether there was one.
    pub(super) fn take(&self, new: &Path) -> Result<bool, PoolError> {
        let Some(spare) = self.0.lock().paths.pop() else {
            return Ok(false);
        };
        match fs::rename(&spare, new) {
            Ok(()) => Ok(true),
            // Somebody has tidied up.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(PoolError::io("move a spare to", new)(error)),
        }
    }

    /// Removes them all and keeps none from now on.
    pub(super) fn close(&self) -> Result<(), PoolError> {
        let paths = {
            let mut kept = self.0.lock();
            kept.is_closed = true;
            std::mem::take(&mut kept.paths)
        };
        paths.iter().try_for_each(|path| remove::all(path))
    }
}

/// Is there a record and an empty data directory, and nothing else?
fn is_unused(directory: &Path) -> Result<bool, PoolError> {
    let list = |path: &Path| fs::read_dir(path).map_err(PoolError::io("list", path));
    let (mut has_record, mut has_data) = (false, false);
    for entry in list(directory)? {
        let entry = entry.map_err(PoolError::io("list", directory))?;
        let name = entry.file_name();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if name == RECORD_FILE && !is_directory {
            has_record = true;
        } else if name == backend::DATA_DIRECTORY && is_directory {
            has_data = list(&entry.path())?.next().is_none();
        } else {
            return Ok(false);
        }
    }
    Ok(has_record && has_data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unused(root: &Path, name: &str) -> PathBuf {
        let path = root.join(name);
        fs::create_dir_all(path.join("data")).unwrap();
        fs::write(path.join(RECORD_FILE), "old").unwrap();
        path
    }

    #[test]
    fn only_what_nobody_used_is_kept() {
        type Change = fn(&Path);
        let cases: [(&str, Change, bool); 7] = [
            ("unused", |_| (), true),
            (
                "a file",
                |path| fs::write(path.join("data/x"), "").unwrap(),
                false,
            ),
            (
                "a directory",
                |path| fs::create_dir(path.join("data/x")).unwrap(),
                false,
            ),
            (
                "a second copy of the record",
                |path| fs::write(path.join("record.copy"), "").unwrap(),
                false,
            ),
            (
                "no data",
                |path| fs::remove_dir(path.join("data")).unwrap(),
                false,
            ),
            (
                "no record",
                |path| fs::remove_file(path.join(RECORD_FILE)).unwrap(),
                false,
            ),
            (
                "a link for data",
                |path| {
                    fs::remove_dir(path.join("data")).unwrap();
                    std::os::unix::fs::symlink("/", path.join("data")).unwrap();
                },
                false,
            ),
        ];
        for (name, change, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            let path = unused(dir.path(), ".del-a");
            change(&path);
            let spares = Spares::default();
            assert_eq!(spares.keep(&path).unwrap(), expected, "{name}");
            assert_eq!(path.exists(), !expected, "{name}");
            assert_eq!(
                spares.take(&dir.path().join(".new-b")).unwrap(),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn they_are_bounded_and_go_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let spares = Spares::default();
        for number in 0..SPARES_MAX {
            assert!(
                spares
                    .keep(&unused(dir.path(), &format!(".del-{number}")))
                    .unwrap()
            );
        }
        let one_more = unused(dir.path(), ".del-more");
        assert!(!spares.keep(&one_more).unwrap());
        spares.close().unwrap();
        assert!(!spares.keep(&one_more).unwrap());
        assert!(!spares.take(&dir.path().join(".new-b")).unwrap());
        let left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, [".del-more"]);
    }

    #[test]
    fn names() {
        for (name, expected) in [
            (".new-spare.1", true),
            (".new-spare", false),
            (".new-a", false),
            ("spare.1", false),
        ] {
            assert_eq!(is_spare(name), expected, "{name}");
        }
    }
}
