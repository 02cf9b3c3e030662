//! What was promised of volumes but need not be durable in its place yet: creations of plain directories, and deletions.
//!
//! A creation would cost an fsync for each of its files and directories. Instead it is written here, with its whole record,
//! in one write and one fdatasync that all callers of the moment share; a deletion likewise. The filesystem brings the
//! directories to the disk in its own time; after a power cut the next start does again what was written here.
//!
//! ```text
//! journal: two areas of one length; each holds the entries of one epoch, one after the other
//! ```
//! When an area is full, the pool's filesystem is synced and the next epoch begins in the other area. So the last two
//! epochs tell all that the filesystem may not have: what is older was synced at the beginning of the younger one. A volume
//! is settled, made durable in its place and forgotten here, before it is used or its record changes for the first time:
//! what the journal may make again holds nothing yet. Until then, or until the journal forgets it, the entry is also the
//! second copy of its record.

mod entries;
mod plan;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use moorline_mount::durable;
use parking_lot::{Condvar, Mutex, MutexGuard};

use self::entries::{Entry, read_areas};
pub(super) use self::plan::{Fate, Seen, Step, plan, step};
use super::{PoolError, VOLUMES, shelf::write_copy};
use crate::blocking::THREADS_MAX;

const FILE: &str = "journal";
/// Of one area. Some nine hundred creations.
const AREA_BYTES: usize = 512 << 10;
/// What an entry has beside its record, and room to spare.
const OVERHEAD_BYTES: usize = 512;
/// Larger records are made durable in their place. With this, all that the threads of this process can have under way, and
/// as much again that is carried over, fits into one area.
pub(super) const RECORD_BYTES_MAX: usize = AREA_BYTES / (2 * THREADS_MAX) - OVERHEAD_BYTES;

/// What the journal says last of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Made,
    Gone,
}

/// The journal of a pool that one process alone uses.
#[derive(Debug)]
pub(super) struct Journal {
    root: PathBuf,
    path: PathBuf,
    state: Mutex<State>,
    written: Condvar,
    /// Held by who writes the second copy of a record.
    copying: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    epoch: u64,
    /// Where the next entry of this epoch goes, from the beginning of its area.
    offset: usize,
    /// Entries that nobody writes yet.
    waiting: Vec<u8>,
    /// Batches: the number of the one that is being collected, and how many are on the disk.
    collecting: u64,
    done: u64,
    is_writing: bool,
    /// Set by the first failure. What a failed fdatasync has lost, a second one may call safe: so none is trusted again.
    broken: Option<i32>,
    /// Of each volume that these two epochs speak of: when last, and what.
    said: BTreeMap<Arc<str>, (u64, Said)>,
    /// Creations that are written but not in their place: they go over into the next epoch.
    open: BTreeMap<Arc<str>, Vec<u8>>,
}

impl State {
    /// The volumes that were made in earlier epochs than this one and are not settled.
    fn made_before(&self, epoch: u64) -> Vec<Arc<str>> {
        let made = self
            .said
            .iter()
            .filter(|(_, (when, what))| *when < epoch && *what == Said::Made);
        made.map(|(volume_id, _)| Arc::clone(volume_id)).collect()
    }
}

impl Journal {
    pub(super) fn new(root: &Path) -> Self {
        Journal {
            root: root.to_owned(),
            path: root.join(FILE),
            state: Mutex::default(),
            written: Condvar::new(),
            copying: Mutex::new(()),
        }
    }

    /// Writes the second copy of a volume's record, which was the journal until now. Not durable yet.
    pub(super) fn write_copy(&self, volume_id: &str) {
        let _copying = self.copying.lock();
        write_copy(&self.root.join(VOLUMES).join(volume_id));
    }

    /// What the last process has written and the filesystem may not have.
    pub(super) fn read(root: &Path) -> Result<BTreeMap<String, Fate>, PoolError> {
        let path = root.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => Ok(plan(read_areas(&bytes, AREA_BYTES))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(PoolError::io("read", path)(error)),
        }
    }

    /// Empties the journal: all that it says is in its place, and durable there.
    pub(super) fn clear(root: &Path) -> Result<(), PoolError> {
        let path = root.join(FILE);
        let opened = match File::options().write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(PoolError::io("open", &path))?,
        };
        if opened.metadata().is_ok_and(|seen| seen.len() == 0) {
            return Ok(());
        }
        opened
            .set_len(0)
            .and_then(|()| opened.sync_all())
            .map_err(PoolError::io("empty", path))
    }

    /// Writes down that a volume is made, with its record; returns once that is durable. [`Journal::in_place`] must follow.
    pub(super) fn made(&self, volume_id: &Arc<str>, record: &[u8]) -> Result<(), PoolError> {
        let entry = Entry::Made {
            volume_id: volume_id.to_string(),
            record: record.to_vec(),
        };
        self.append(&entry, |state| {
            state.open.insert(Arc::clone(volume_id), record.to_vec());
            state
                .said
                .insert(Arc::clone(volume_id), (state.epoch, Said::Made));
        })
    }

    /// The volume that was said to be made is where it belongs.
    pub(super) fn in_place(&self, volume_id: &str) {
        self.state.lock().open.remove(volume_id);
    }

    /// Writes down that a volume is gone, after it was taken away; returns once that is durable.
    pub(super) fn gone(&self, volume_id: &str) -> Result<(), PoolError> {
        let entry = Entry::Gone {
            volume_id: volume_id.to_owned(),
        };
        self.append(&entry, |state| {
            state.open.remove(volume_id);
            state.said.insert(volume_id.into(), (state.epoch, Said::Gone));
        })
    }

    /// Writes down that what was said of a volume does not count any more: it is durable where it belongs.
    pub(super) fn settled(&self, volume_id: &str) -> Result<(), PoolError> {
        let entry = Entry::Settled {
            volume_id: volume_id.to_owned(),
        };
        self.append(&entry, |_| ())?;
        self.state.lock().said.remove(volume_id);
        Ok(())
    }

    /// Can it be written? It is made on demand; a full disk is no trouble for who can do without.
    pub(super) fn is_usable(&self) -> bool {
        let mut state = self.state.lock();
        match self.check(&state).and_then(|()| self.open_file(&mut state)) {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, "The pool's journal can't be made");
                // One that was written has to be heard of.
                state.file.is_some()
            }
        }
    }

    /// Has a write failed, so that nobody knows what a start would find?
    pub(super) fn is_broken(&self) -> bool {
        self.state.lock().broken.is_some()
    }

    /// Would a start after a power cut make this volume again?
    pub(super) fn says_made(&self, volume_id: &str) -> bool {
        matches!(self.state.lock().said.get(volume_id), Some((_, Said::Made)))
    }

    #[cfg(test)]
    pub(super) fn epoch(&self) -> u64 {
        self.state.lock().epoch
    }

    /// Does the journal say anything of this volume?
    pub(super) fn says_something(&self, volume_id: &str) -> bool {
        self.state.lock().said.contains_key(volume_id)
    }

    /// Brings all that is promised to its place, so that the journal is empty and the pool may be changed by others; not
    /// while something is still being made.
    pub(super) fn rest(&self) -> Result<(), PoolError> {
        let mut state = self.state.lock();
        self.check(&state)?;
        if state.file.is_none() || state.is_writing || !state.open.is_empty() || !state.waiting.is_empty() {
            return Ok(());
        }
        for volume_id in state.made_before(u64::MAX) {
            self.write_copy(&volume_id);
        }
        let synced = File::open(&self.root).and_then(|root| Ok(rustix::fs::syncfs(&root)?));
        synced.map_err(PoolError::io("sync", &self.root))?;
        Journal::clear(&self.root)?;
        *state = State::default();
        Ok(())
    }

    /// Makes the file, with its room taken, unless that is done.
    fn open_file(&self, state: &mut State) -> Result<Arc<File>, PoolError> {
        if let Some(file) = &state.file {
            return Ok(Arc::clone(file));
        }
        let make = || {
            let mut options = File::options();
            options.create(true).truncate(true).write(true).mode(0o600);
            let file = options.open(&self.path)?;
            // Written, not only set aside: an fdatasync of what is written over brings nothing but that to the disk.
            file.write_all_at(&vec![0; 2 * AREA_BYTES], 0)?;
            file.sync_all()?;
            Ok(file)
        };
        let file = Arc::new(make().map_err(PoolError::io("make", &self.path))?);
        durable::sync_directory(&self.root)?;
        state.epoch = 1;
        state.offset = 0;
        state.waiting.splice(0..0, Entry::Begin.to_bytes(1));
        state.file = Some(Arc::clone(&file));
        Ok(file)
    }

    fn append(&self, entry: &Entry, note: impl FnOnce(&mut State)) -> Result<(), PoolError> {
        let mut state = self.state.lock();
        self.check(&state)?;
        self.open_file(&mut state)?;
        let bytes = entry.to_bytes(state.epoch);
        state.waiting.extend_from_slice(&bytes);
        note(&mut state);
        let mine = state.collecting;
        while state.done <= mine {
            self.check(&state)?;
            if state.is_writing {
                self.written.wait(&mut state);
            } else {
                self.write_batch(&mut state);
            }
        }
        Ok(())
    }

    fn check(&self, state: &State) -> Result<(), PoolError> {
        match state.broken {
            None => Ok(()),
            Some(code) => Err(PoolError::io("write", &self.path)(io::Error::from_raw_os_error(
                code,
            ))),
        }
    }

    /// Brings what waits to the disk; others collect the next batch meanwhile.
    fn write_batch(&self, state: &mut MutexGuard<'_, State>) {
        state.is_writing = true;
        let batch = std::mem::take(&mut state.waiting);
        state.collecting += 1;
        let is_full = state.offset + batch.len() > AREA_BYTES;
        let written = if is_full {
            self.write_in_next_epoch(state, &batch)
        } else {
            self.write_at(state, &batch)
        };
        state.is_writing = false;
        match written {
            Ok(()) => state.done = state.collecting,
            Err(error) => {
                state.broken = Some(
                    error
                        .raw_os_error()
                        .unwrap_or(rustix::io::Errno::IO.raw_os_error()),
                )
            }
        }
        self.written.notify_all();
    }

    fn write_at(&self, state: &mut MutexGuard<'_, State>, batch: &[u8]) -> io::Result<()> {
        let Some(file) = state.file.clone() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let area = if state.epoch.is_multiple_of(2) {
            AREA_BYTES
        } else {
            0
        };
        let at = u64::try_from(area + state.offset).map_err(io::Error::other)?;
        state.offset += batch.len();
        MutexGuard::unlocked(state, || {
            file.write_all_at(batch, at)?;
            file.sync_data()
        })
    }

    /// Syncs the filesystem, so that the older of the two epochs may be forgotten, and goes on in its place.
    fn write_in_next_epoch(&self, state: &mut MutexGuard<'_, State>, batch: &[u8]) -> io::Result<()> {
        let mut first = Vec::new();
        let next = state.epoch + 1;
        first.extend(Entry::Begin.to_bytes(next));
        for (volume_id, record) in &state.open {
            let entry = Entry::Made {
                volume_id: volume_id.to_string(),
                record: record.clone(),
            };
            first.extend(entry.to_bytes(next));
        }
        // What waits was meant for the epoch that ends; so was what others add until it has ended.
        first.extend(entries::for_epoch(batch, next));
        let forgotten = state.made_before(state.epoch);
        MutexGuard::unlocked(state, || {
            for volume_id in forgotten {
                self.write_copy(&volume_id);
            }
            let opened = File::open(&self.root)?;
            rustix::fs::syncfs(&opened).map_err(io::Error::from)
        })?;
        let last = state.epoch;
        state.epoch = next;
        state.offset = 0;
        let open: Vec<_> = state.open.keys().cloned().collect();
        for volume_id in open {
            state.said.insert(volume_id, (next, Said::Made));
        }
        // What came in while the last epoch ended was noted with its number and is written in the next one.
        state.said.retain(|_, (epoch, _)| *epoch + 1 >= last);
        let waiting = entries::for_epoch(&state.waiting, next);
        state.waiting = waiting;
        if first.len() > AREA_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.write_at(state, &first)
    }
}

#[cfg(test)]
mod tests;
