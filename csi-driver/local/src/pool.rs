//! The pool on disk.
//!
//! ```text
//! <pool>/pool.format            which layout this is
//! <pool>/pool.id                which pool this is: records name it
//! <pool>/controller.lock        held by the one controller
//! <pool>/volumes/<id>/          a volume: its record, twice (or once, and in the journal), and its data
//! <pool>/snapshots/<id>/        a snapshot, likewise
//! <pool>/groups/<id>/           a group of snapshots: its record, twice
//! <pool>/frozen/<volume id>     writes to this volume are held up by this driver
//! <pool>/journal                what is durable here and perhaps not yet in its place
//! ```
//! A thing comes into being and goes by one rename, so that at each moment it is there as a whole or not at all; `shelf`
//! has the details, `recover` what a start does with what a crash has left. All functions block.

mod error;
mod frozen;
mod journal;
mod journaled;
mod layout;
mod recover;
mod remove;
mod shelf;
mod spares;

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use moorline_driver_sdk::DriverError;
use moorline_mount::{copy, durable, usage};
use parking_lot::Mutex;
use uuid::Uuid;

pub use self::error::PoolError;
pub(crate) use self::{
    frozen::Marker,
    layout::Layout,
    recover::{Found, Named, Remedy, look_at, named},
    shelf::{GONE_PREFIX, NEW_PREFIX},
    spares::is_spare,
};
use self::{
    journal::{Fate, Journal},
    shelf::{Made, Points, Shelf},
    spares::Spares,
};
use crate::{
    config::{BackendKind, PoolConfig},
    ids::is_id,
    record::Record,
    room::Space,
};

const FORMAT_FILE: &str = "pool.format";
const FORMAT: &str = "moorline-pool 1\n";
const ID_FILE: &str = "pool.id";
const LOCK_FILE: &str = "controller.lock";
const VOLUMES: &str = "volumes";
const SNAPSHOTS: &str = "snapshots";
const GROUPS: &str = "groups";
const FROZEN: &str = "frozen";
const LEASES: &str = "leases";
/// Only root looks into the pool; workloads see a volume through its mount.
const PRIVATE_MODE: u32 = 0o700;

const VOLUME_POINTS: Points = Points {
    after_directory: "create::after_directory",
    after_data: "create::after_data",
    after_copy_of_record: "create::after_copy_of_record",
    after_record: "create::after_record",
    after_rename: "create::after_rename",
    after_sync: "create::after_sync",
    gone_after_rename: "delete::after_rename",
    gone_after_sync: "delete::after_sync",
    gone_after_removal: "delete::after_removal",
};

const SNAPSHOT_POINTS: Points = Points {
    after_directory: "snapshot::after_directory",
    after_data: "snapshot::after_data",
    after_copy_of_record: "snapshot::after_copy_of_record",
    after_record: "snapshot::after_record",
    after_rename: "snapshot::after_rename",
    after_sync: "snapshot::after_sync",
    gone_after_rename: "delete_snapshot::after_rename",
    gone_after_sync: "delete_snapshot::after_sync",
    gone_after_removal: "delete_snapshot::after_removal",
};

const GROUP_POINTS: Points = Points {
    after_directory: "group::after_directory",
    after_data: "group::after_data",
    after_copy_of_record: "group::after_copy_of_record",
    after_record: "group::after_record",
    after_rename: "group::after_rename",
    after_sync: "group::after_sync",
    gone_after_rename: "delete_group::after_rename",
    gone_after_sync: "delete_group::after_sync",
    gone_after_removal: "delete_group::after_removal",
};

/// A pool directory in use.
#[derive(Debug)]
pub(crate) struct Pool {
    name: String,
    id: Uuid,
    root: PathBuf,
    backend: BackendKind,
    pub(crate) volumes: Shelf,
    pub(crate) snapshots: Shelf,
    pub(crate) groups: Shelf,
    can_reflink: bool,
    /// Held by who makes a device as its record says, from reading or writing the record until the device is so: an older
    /// record must not have the last word.
    pub(crate) tuning: Mutex<()>,
    /// Where one process alone has the pool.
    journal: Option<Journal>,
    /// Volumes that are taken away and were never used.
    unused: Mutex<BTreeSet<String>>,
    spares: Spares,
    /// Held for the life of the controller.
    _lock: Option<File>,
}

impl Pool {
    /// Opens the pool, making it if it is not there. With `for_controller` no other controller may have it.
    pub(crate) fn open(config: &PoolConfig, for_controller: bool) -> Result<Self, PoolError> {
        let root = config.directory.as_path();
        make_directory(root)?;
        crate::backend::check_pool(config)?;
        check_format(&root.join(FORMAT_FILE))?;
        let lock = if for_controller { Some(lock(root)?) } else { None };
        let id = read_id(&root.join(ID_FILE), for_controller)?;
        let volumes = Shelf::open("volume", root.join(VOLUMES), &VOLUME_POINTS)?;
        let snapshots = Shelf::open("snapshot", root.join(SNAPSHOTS), &SNAPSHOT_POINTS)?;
        let groups = Shelf::open("group snapshot", root.join(GROUPS), &GROUP_POINTS)?;
        make_directory(&root.join(FROZEN))?;
        durable::sync_directory(root)?;
        let can_reflink = for_controller && probe_reflink(root)?;
        Ok(Pool {
            name: config.name.clone(),
            id,
            root: root.to_owned(),
            backend: config.backend,
            volumes,
            snapshots,
            groups,
            can_reflink,
            tuning: Mutex::new(()),
            journal: None,
            unused: Mutex::default(),
            spares: Spares::default(),
            _lock: lock,
        })
    }

    /// Where controller and node are one process, and no other uses the pool: what is not used yet is durable in a journal.
    pub(crate) fn of_one_process(mut self) -> Self {
        self.journal = Some(Journal::new(&self.root));
        self
    }

    /// Its name in the StorageClass parameter `pool`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What records call it.
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// As [`Pool::id`], also when a controller has given it after this node has started.
    pub(crate) fn known_id(&self) -> Option<Uuid> {
        if !self.id.is_nil() {
            return Some(self.id);
        }
        let id = read_id(&self.root.join(ID_FILE), false).ok();
        id.filter(|id| !id.is_nil())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// How new volumes are stored.
    pub(crate) fn backend(&self) -> BackendKind {
        self.backend
    }

    /// Can its files share blocks? Known to controllers.
    pub(crate) fn can_reflink(&self) -> bool {
        self.can_reflink
    }

    /// Size and free bytes of the pool's filesystem.
    pub(crate) fn space(&self) -> Result<Space, PoolError> {
        let bytes = usage::filesystem(&self.root)?.bytes;
        Ok(Space {
            total_bytes: bytes.total,
            available_bytes: bytes.available,
        })
    }

    /// Where the volume's record and data are.
    pub(crate) fn directory(&self, volume_id: &str) -> PathBuf {
        self.volumes.directory(volume_id)
    }

    /// Makes a volume: `fill` puts its data into a directory that becomes the volume's own at the end. If the volume is
    /// there already, because an earlier try was not sure of its success, its record is returned.
    /// On an error nothing is left, or it is said that something is.
    pub(crate) fn create(
        &self,
        record: Record,
        fill: impl FnOnce(&Path) -> Result<(), DriverError>,
    ) -> Result<Record, DriverError> {
        let bytes = record.to_bytes();
        if let Some(journal) = self.journal_for(&record, &bytes) {
            return self.create_journaled(journal, (record, bytes), fill);
        }
        let made = self.volumes.create(&record.volume_id, |directory| {
            fill(directory)?;
            Ok(bytes)
        })?;
        self.forget_what_was_said(&record.volume_id)
            .map_err(|error| shelf::uncertain("make it durable", error))?;
        match made {
            Made::New => Ok(record),
            Made::Before => Ok(self.load(&record.volume_id)?),
        }
    }

    /// From now on the volume is not there any more, durably; its data still is. Succeeds when it was not there.
    pub(crate) fn take_away(&self, volume_id: &str) -> Result<(), PoolError> {
        if !is_id(volume_id) {
            return Ok(());
        }
        let is_moved = self.volumes.move_away(volume_id)?;
        match &self.journal {
            Some(journal) if is_moved || journal.says_made(volume_id) => {
                // Another one of its name may still be on its way out.
                if is_moved && journal.says_made(volume_id) {
                    self.unused.lock().insert(volume_id.to_owned());
                } else {
                    self.unused.lock().remove(volume_id);
                }
                if journal.is_usable() {
                    journal.gone(volume_id)?;
                } else {
                    self.volumes.sync.sync()?;
                }
                self.volumes.is_away()
            }
            None if is_moved => {
                self.volumes.sync.sync()?;
                self.volumes.is_away()
            }
            _ => Ok(()),
        }
    }

    /// Removes a volume and its data. Succeeds when it is not there. After an error another try goes on.
    #[cfg(test)]
    pub(crate) fn delete(&self, volume_id: &str) -> Result<(), PoolError> {
        self.take_away(volume_id)?;
        self.remove_gone(volume_id)
    }

    /// Replaces the volume's record.
    pub(crate) fn update(&self, record: &Record) -> Result<(), PoolError> {
        self.settle(&record.volume_id)?;
        self.volumes.update(&record.volume_id, &record.to_bytes())
    }

    /// Reads the volume's record from disk.
    pub(crate) fn load(&self, volume_id: &str) -> Result<Record, PoolError> {
        self.volumes.read(volume_id, Record::read_of)
    }
}

/// Removes a thing that nobody uses, if nothing is mounted in it.
pub(crate) fn remove_unused(path: &Path) -> Result<(), PoolError> {
    remove::refuse_mounts_below(path)?;
    remove::all(path)
}

pub(crate) fn make_directory(path: &Path) -> Result<(), PoolError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_MODE)
        .create(path)
        .map_err(PoolError::io("make the directory", path))
}

/// The volumes whose second copy of the record is the pool's journal.
pub(crate) fn promised(root: &Path) -> Result<BTreeSet<String>, PoolError> {
    let fates = Journal::read(root)?.into_iter();
    let made = fates.filter(|(_, fate)| matches!(fate, Fate::Made { .. }));
    Ok(made.map(|(volume_id, _)| volume_id).collect())
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

/// The pool's id. Only a controller gives one to a pool that has none, or whose id was damaged: nodes don't need it.
fn read_id(path: &Path, may_write: bool) -> Result<Uuid, PoolError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(PoolError::io("read", path)(error)),
    };
    match text.trim_end().parse() {
        Ok(id) => Ok(id),
        Err(_) if may_write => {
            let id = Uuid::new_v4();
            durable::write(path, format!("{id}\n").as_bytes())?;
            Ok(id)
        }
        Err(_) => Ok(Uuid::nil()),
    }
}

/// Tries it on two files of one block.
fn probe_reflink(root: &Path) -> Result<bool, PoolError> {
    const PROBE_BYTES: [u8; 4096] = [1; 4096];
    let make = |name: &str| {
        let path = root.join(name);
        let mut options = File::options();
        options.create(true).truncate(true).read(true).write(true);
        let file = options
            .open(&path)
            .map_err(PoolError::io("make the file", &path))?;
        Ok::<_, PoolError>((path, file))
    };
    let (from_path, from) = make(".probe-from")?;
    let (to_path, to) = make(".probe-to")?;
    let can_reflink = io::Write::write_all(&mut &from, &PROBE_BYTES)
        .map_err(PoolError::io("write", &from_path))
        .and_then(|()| Ok(copy::reflink(&from, &to)?));
    for path in [from_path, to_path] {
        fs::remove_file(path).ok(); // The next start makes them anew.
    }
    match can_reflink {
        // A full pool shall open all the same: what is in it can be used and removed.
        Err(error) if error.is_no_space() => Ok(false),
        other => other,
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

#[cfg(test)]
mod tests;
