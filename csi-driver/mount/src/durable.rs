//! Files that are there, whole, after a power cut: temporary file, fsync, rename, fsync of the directory.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::MountError;

/// Ends the names of files that [`write()`] has not finished; leftovers of a crash may be removed by anybody.
pub const TEMPORARY_SUFFIX: &str = ".moorline-tmp";

/// Replaces the file at `path` by one with these bytes, mode 0600. After a crash there is the old or the new content,
/// never a mix; after an `Ok` there is the new one.
///
/// # Errors
/// Leaves the old file in place; a temporary file may be left only if even removing it fails.
pub fn write(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), MountError> {
    let path = path.as_ref();
    let directory = parent_of(path)?;
    replace(path, bytes)?;
    sync_directory(directory)
}

/// As [`write()`] without the last step, the fsync of the directory: for callers that share one among many files.
///
/// # Errors
/// As [`write()`].
pub fn replace(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), MountError> {
    let path = path.as_ref();
    let temporary = temporary_name(path)?;
    let result = write_new(&temporary, bytes).and_then(|()| {
        fs::rename(&temporary, path).map_err(|source| MountError::call("rename a new file to", path, source))
    });
    if result.is_err() {
        fs::remove_file(&temporary).ok(); // The first error is the one to report.
    }
    result
}

/// Writes and fsyncs a file, mode 0600, that must not exist yet. Its directory is not fsynced.
///
/// # Errors
/// `is_exists` when there is one.
pub fn write_new(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), MountError> {
    let path = path.as_ref();
    let written = (|| {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    })();
    written.map_err(|source: io::Error| MountError::call("write", path, source))
}

/// Makes the directory's entries durable.
///
/// # Errors
/// When the directory is gone or the disk fails.
pub fn sync_directory(directory: impl AsRef<Path>) -> Result<(), MountError> {
    let directory = directory.as_ref();
    File::open(directory)
        .and_then(|opened| opened.sync_all())
        .map_err(|source| MountError::call("fsync the directory", directory, source))
}

fn parent_of(path: &Path) -> Result<&Path, MountError> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(parent) => Ok(parent),
        None => Err(MountError::BadPath {
            path: path.to_owned(),
            why: "has no parent directory",
        }),
    }
}

fn temporary_name(path: &Path) -> Result<PathBuf, MountError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| MountError::BadPath {
        path: path.to_owned(),
        why: "has no file name",
    })?;
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = format!(
        ".{}-{}-{number}{TEMPORARY_SUFFIX}",
        name.to_string_lossy(),
        std::process::id()
    );
    Ok(path.with_file_name(name))
}

/// One directory whose fsyncs are shared: everybody who waits while one is running is served by the next one.
#[derive(Debug)]
pub struct SharedSync {
    path: PathBuf,
    directory: File,
    progress: Mutex<Progress>,
    /// Who waits for an fsync of an even number, and who for one of an odd number: at most two numbers are waited for.
    finished: [Condvar; 2],
}

#[derive(Debug, Default)]
struct Progress {
    started: u64,
    done: u64,
    is_running: bool,
    /// Set by the first failure. What a failed fsync has lost, a second one may call safe: so none is trusted again.
    broken: Option<i32>,
}

impl SharedSync {
    /// Opens the directory.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MountError> {
        let path = path.as_ref().to_owned();
        let directory = File::open(&path).map_err(|source| MountError::call("open", &path, source))?;
        Ok(SharedSync {
            path,
            directory,
            progress: Mutex::default(),
            finished: [Condvar::new(), Condvar::new()],
        })
    }

    /// Returns once all changes that the caller has made to the directory are durable. Blocks.
    ///
    /// # Errors
    /// When the disk fails; from then on always.
    pub fn sync(&self) -> Result<(), MountError> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        // A running fsync may have begun before the caller's change: only one that starts from now on counts.
        let wanted = progress.started + 1;
        loop {
            if let Some(code) = progress.broken {
                return Err(self.error(io::Error::from_raw_os_error(code)));
            }
            if progress.done >= wanted {
                return Ok(());
            }
            if progress.is_running {
                progress = self
                    .waiting_for(wanted)
                    .wait(progress)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            progress.is_running = true;
            progress.started += 1;
            let mine = progress.started;
            drop(progress);
            let result = self.directory.sync_all();
            progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.is_running = false;
            match result {
                Ok(()) => progress.done = mine,
                Err(error) => progress.broken = Some(error.raw_os_error().unwrap_or(nix::libc::EIO)),
            }
            self.waiting_for(mine).notify_all();
            // Whoever came meanwhile needs one more: one of them runs it, and the others sleep on.
            match progress.broken {
                None => self.waiting_for(mine + 1).notify_one(),
                Some(_) => self.waiting_for(mine + 1).notify_all(),
            }
        }
    }

    fn waiting_for(&self, number: u64) -> &Condvar {
        let [even, odd] = &self.finished;
        if number.is_multiple_of(2) { even } else { odd }
    }

    fn error(&self, source: io::Error) -> MountError {
        MountError::call("fsync the directory", &self.path, source)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn content_is_replaced_and_no_temporary_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["record"]);
    }

    #[test]
    fn a_directory_in_the_way_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        fs::create_dir(&path).unwrap();
        assert!(write(&path, b"one").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn write_new_keeps_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        write_new(&path, b"one").unwrap();
        assert!(write_new(&path, b"two").unwrap_err().is_exists());
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn many_waiters_share_fsyncs() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Arc::new(SharedSync::open(dir.path()).unwrap());
        let threads: Vec<_> = (0..16)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || (0..50).for_each(|_| shared.sync().unwrap()))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let progress = shared.progress.lock().unwrap();
        assert_eq!(progress.started, progress.done);
        assert!(
            progress.started >= 50,
            "each thread needs at least its own sequence of 50"
        );
        assert!(progress.started <= 16 * 50);
    }
}
