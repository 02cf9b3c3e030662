//! The pool on disk.
//!
//! ```text
//! <pool>/pool.format            which layout this is
//! <pool>/controller.lock        held by the one controller
//! <pool>/volumes/<id>/record    the durable record, written last
//! <pool>/volumes/<id>/...       the data, as the backend keeps it
//! <pool>/volumes/.new-<id>      a volume being made: not there yet
//! <pool>/volumes/.del-<id>      a volume being removed: not there any more
//! ```
//! A volume comes into being and goes by one rename, so that at each moment it is there as a whole or not at all. What a
//! crash leaves under the two prefixes is removed at the next start. All functions block.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use moorline_driver_sdk::{DriverError, ErrorKind};
use moorline_mount::{
    MountError,
    durable::{self, SharedSync, TEMPORARY_SUFFIX},
    mountinfo, usage,
};
use thiserror::Error;

use crate::{
    catalog::Entry,
    record::{Record, RecordError},
    volume_name::is_volume_id,
};

const FORMAT_FILE: &str = "pool.format";
const FORMAT: &str = "moorline-pool 1\n";
const LOCK_FILE: &str = "controller.lock";
const VOLUMES: &str = "volumes";
const RECORD_FILE: &str = "record";
const NEW_PREFIX: &str = ".new-";
const GONE_PREFIX: &str = ".del-";
/// Only root looks into the pool; workloads see a volume through its mount.
const PRIVATE_MODE: u32 = 0o700;

/// A pool directory in use.
#[derive(Debug)]
pub(crate) struct Pool {
    volumes: PathBuf,
    sync: SharedSync,
    /// Held for the life of the controller.
    _lock: Option<File>,
}

/// Why the pool can't be used.
#[derive(Debug, Error)]
pub enum PoolError {
    /// A file operation failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A durable write or a mount operation failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The directory was laid out by another version.
    #[error("{} holds {found:?}; this driver knows {FORMAT:?} only", path.display())]
    Format {
        /// The format file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// Another controller uses it.
    #[error("another controller uses the pool {}", .0.display())]
    Locked(PathBuf),
    /// There is no such volume.
    #[error("there is no volume {0}")]
    NoSuchVolume(String),
    /// The volume's record can't be used.
    #[error("the record of volume {volume_id}")]
    Record {
        /// Which.
        volume_id: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something is mounted below the volume's own directory, so that removing its files could remove those of others.
    #[error("{} is mounted inside the volume; unmount it first", .0.display())]
    ForeignMount(PathBuf),
}

impl PoolError {
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| PoolError::Io { action, path, source }
    }

    pub(crate) fn is_no_space(&self) -> bool {
        match self {
            PoolError::Io { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                )
            }
            PoolError::Mount(error) => error.is_no_space(),
            _ => false,
        }
    }
}

impl From<PoolError> for DriverError {
    fn from(error: PoolError) -> Self {
        let kind = match &error {
            _ if error.is_no_space() => ErrorKind::ResourceExhausted,
            PoolError::NoSuchVolume(_) => ErrorKind::NotFound,
            PoolError::ForeignMount(_) => ErrorKind::FailedPrecondition,
            _ => ErrorKind::Internal,
        };
        DriverError::new(kind, "use the pool").caused_by(error)
    }
}

impl Pool {
    /// Opens the pool, making it if it is not there. With `for_controller` no other controller may have it.
    pub(crate) fn open(path: &Path, for_controller: bool) -> Result<Self, PoolError> {
        let volumes = path.join(VOLUMES);
        make_directory(path)?;
        make_directory(&volumes)?;
        check_format(&path.join(FORMAT_FILE))?;
        durable::sync_directory(path)?;
        let lock = if for_controller { Some(lock(path)?) } else { None };
        let sync = SharedSync::open(&volumes)?;
        Ok(Pool {
            volumes,
            sync,
            _lock: lock,
        })
    }

    /// Where the volume's record and data are.
    pub(crate) fn directory(&self, volume_id: &str) -> PathBuf {
        self.volumes.join(volume_id)
    }

    /// Size and free bytes of the pool's filesystem.
    pub(crate) fn space(&self) -> Result<usage::Amount, PoolError> {
        Ok(usage::filesystem(&self.volumes)?.bytes)
    }

    /// Makes a volume: `fill` puts its data into a directory that becomes the volume's own at the end. If the volume is
    /// there already, because an earlier try was not sure of its success, its record is returned.
    /// On an error nothing is left, or it is said that something is.
    pub(crate) fn create(
        &self,
        record: &Record,
        fill: impl FnOnce(&Path) -> Result<(), DriverError>,
    ) -> Result<Record, DriverError> {
        let path = self.directory(&record.volume_id);
        if path.exists() {
            self.sync
                .sync()
                .map_err(|error| uncertain("make the volume durable", error))?;
            return Ok(self.load(&record.volume_id)?);
        }
        let new = self.volumes.join(format!("{NEW_PREFIX}{}", record.volume_id));
        let made = remove_all(&new).map_err(DriverError::from).and_then(|()| {
            make_directory(&new)?;
            fill(&new)?;
            durable::write_new(new.join(RECORD_FILE), &record.to_bytes()).map_err(PoolError::from)?;
            durable::sync_directory(&new).map_err(PoolError::from)?;
            Ok(())
        });
        if let Err(error) = made {
            return Err(match remove_all(&new) {
                Ok(()) => error,
                Err(left) => uncertain("undo the creation", error).caused_by(left),
            });
        }
        fs::rename(&new, &path).map_err(PoolError::io("move the new volume to", &path))?;
        // From here on the volume may survive a crash, so that an error is no longer final.
        self.sync
            .sync()
            .map_err(|error| uncertain("make the volume durable", error))?;
        Ok(record.clone())
    }

    /// Removes a volume and its data. Succeeds when it is not there. After an error another try goes on.
    pub(crate) fn delete(&self, volume_id: &str) -> Result<(), PoolError> {
        let path = self.directory(volume_id);
        let gone = self.volumes.join(format!("{GONE_PREFIX}{volume_id}"));
        refuse_mounts_below(&path)?;
        // What an earlier try has left under that name would be in the way.
        remove_all(&gone)?;
        match fs::rename(&path, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(PoolError::io("take away the volume", &path))?,
        }
        self.sync.sync()?;
        remove_all(&gone)
    }

    /// Replaces the volume's record.
    pub(crate) fn update(&self, record: &Record) -> Result<(), PoolError> {
        Ok(durable::write(
            self.directory(&record.volume_id).join(RECORD_FILE),
            &record.to_bytes(),
        )?)
    }

    /// Reads the volume's record from disk.
    pub(crate) fn load(&self, volume_id: &str) -> Result<Record, PoolError> {
        if !is_volume_id(volume_id) {
            return Err(PoolError::NoSuchVolume(volume_id.to_owned()));
        }
        let path = self.directory(volume_id);
        let bytes = match fs::read(path.join(RECORD_FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => {
                return Err(PoolError::NoSuchVolume(volume_id.to_owned()));
            }
            Err(error) => return Err(record_error(volume_id, error)),
        };
        let record = Record::from_bytes(&bytes).map_err(|error| record_error(volume_id, error))?;
        if record.volume_id != volume_id {
            return Err(record_error(volume_id, RecordError::NotARecord));
        }
        Ok(record)
    }

    /// Removes what a crash has left half-made and reads all records. Damaged ones are kept aside, not touched.
    pub(crate) fn recover(&self) -> Result<BTreeMap<String, Entry>, PoolError> {
        let mut volumes = BTreeMap::new();
        for entry in fs::read_dir(&self.volumes).map_err(PoolError::io("list", &self.volumes))? {
            let entry = entry.map_err(PoolError::io("list", &self.volumes))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(NEW_PREFIX) || name.starts_with(GONE_PREFIX) {
                tracing::info!(path = %entry.path().display(), "Removing what a crash has left half-made");
                remove_half_made(&entry.path());
                continue;
            }
            if !is_volume_id(&name) {
                tracing::warn!(path = %entry.path().display(), "Ignoring something in the pool that is no volume");
                continue;
            }
            let found = self.recover_one(&name);
            volumes.insert(name, found);
        }
        self.sync.sync()?;
        Ok(volumes)
    }

    fn recover_one(&self, volume_id: &str) -> Entry {
        remove_temporary_files(&self.directory(volume_id));
        match self.load(volume_id) {
            Ok(record) => Entry::Ready(Arc::new(record)),
            Err(error) => {
                let reason = DriverError::internal("read the volume", error).full_message();
                let path = self.directory(volume_id);
                tracing::error!(volume.id = volume_id, path = %path.display(), reason, "A volume can't be used; its data is left as it is");
                Entry::Damaged { reason }
            }
        }
    }
}

fn uncertain(what: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DriverError {
    DriverError::new(ErrorKind::Uncertain, what).caused_by(source)
}

fn record_error(volume_id: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> PoolError {
    PoolError::Record {
        volume_id: volume_id.to_owned(),
        source: source.into(),
    }
}

fn make_directory(path: &Path) -> Result<(), PoolError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_MODE)
        .create(path)
        .map_err(PoolError::io("make the directory", path))
}

fn check_format(path: &Path) -> Result<(), PoolError> {
    match fs::read_to_string(path) {
        Ok(found) if found == FORMAT => Ok(()),
        Ok(found) => Err(PoolError::Format {
            path: path.to_owned(),
            found,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(durable::write(path, FORMAT.as_bytes())?),
        Err(error) => Err(PoolError::io("read", path)(error)),
    }
}

fn lock(pool: &Path) -> Result<File, PoolError> {
    let path = pool.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(PoolError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PoolError::Locked(pool.to_owned())),
        Err(TryLockError::Error(error)) => Err(PoolError::io("lock", &path)(error)),
    }
}

/// Removes a tree. Symlinks in it are removed, not followed. Nothing there is fine.
fn remove_all(path: &Path) -> Result<(), PoolError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(PoolError::io("remove", path)),
    }
}

/// What can't be removed now is no obstacle: the next try for that volume or the next start will meet it again.
fn remove_half_made(path: &Path) {
    if let Err(error) = refuse_mounts_below(path).and_then(|()| remove_all(path)) {
        tracing::error!(path = %path.display(), %error, "Something half-made can't be removed");
    }
}

fn refuse_mounts_below(path: &Path) -> Result<(), PoolError> {
    let entries = mountinfo::read()?;
    match mountinfo::at_or_below(&entries, path).first() {
        None => Ok(()),
        Some(entry) => Err(PoolError::ForeignMount(entry.mount_point.clone())),
    }
}

/// Leftovers of a record that was being replaced; that they can't be removed harms nobody.
fn remove_temporary_files(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().ends_with(TEMPORARY_SUFFIX) {
            fs::remove_file(entry.path()).ok(); // The next start tries again.
        }
    }
}

#[cfg(test)]
mod tests;
