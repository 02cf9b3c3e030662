//! The pool with its journal: volumes that are made and taken away by one write, and a start that does it again.

use std::{fs, path::Path, sync::Arc};

use moorline_driver_sdk::DriverError;
use moorline_mount::durable;

use super::{
    Pool, PoolError, VOLUME_POINTS,
    journal::{Fate, Journal, RECORD_BYTES_MAX, Seen, Step, step},
    shelf::{COPY_FILE, RECORD_FILE, uncertain, write_copy},
};
use crate::{
    backend::{self, Files, NewData},
    failpoint,
    ids::is_id,
    record::{Content, Record},
};

impl Pool {
    /// The journal, for volumes that it can make again: empty directories.
    pub(super) fn journal_for(&self, record: &Record, bytes: &[u8]) -> Option<&Journal> {
        let is_remade = record.content == Content::Directory
            && record.source.is_none()
            && bytes.len() <= RECORD_BYTES_MAX;
        self.journal
            .as_ref()
            .filter(|journal| is_remade && journal.is_usable())
    }

    /// As [`Pool::create`], with one write that is waited for.
    pub(super) fn create_journaled(
        &self,
        journal: &Journal,
        (record, bytes): (Record, Vec<u8>),
        fill: impl FnOnce(&Path) -> Result<(), DriverError>,
    ) -> Result<Record, DriverError> {
        let volume_id = Arc::clone(&record.volume_id);
        if self.volumes.directory(&volume_id).exists() {
            // An earlier try was not sure of its success.
            journal.write_copy(&volume_id);
            let settled = self
                .volumes
                .make_durable_in_place(&volume_id)
                .and_then(|()| self.forget_what_was_said(&volume_id));
            settled.map_err(|error| uncertain("make it durable", error))?;
            return Ok(self.load(&volume_id)?);
        }
        self.volumes
            .prepare_undurably(&volume_id, &self.spares, |directory| {
                fill(directory)?;
                Ok(bytes.clone())
            })?;
        if let Err(error) = journal.made(&volume_id, &bytes) {
            if journal.is_broken() {
                return Err(uncertain("write the journal", error));
            }
            self.volumes.remove_new(&volume_id)?;
            return Err(error.into());
        }
        let placed = failpoint::hit("create::after_journal").map_err(DriverError::from);
        if let Err(error) = placed.and_then(|()| self.volumes.commit(&volume_id)) {
            // It is made, by the journal: that is taken back.
            let undone = journal
                .gone(&volume_id)
                .and_then(|()| self.volumes.remove_new(&volume_id));
            return Err(match undone {
                Ok(()) => error,
                Err(left) => uncertain("undo the creation", error).caused_by(left),
            });
        }
        journal.in_place(&volume_id);
        failpoint::hit(VOLUME_POINTS.after_rename).map_err(|error| uncertain("answer", error))?;
        Ok(record)
    }

    /// Makes a volume durable in its place, unless it is: before it is used or changed for the first time.
    pub(crate) fn settle(&self, volume_id: &str) -> Result<(), PoolError> {
        match &self.journal {
            Some(journal) if journal.says_made(volume_id) => {
                journal.write_copy(volume_id);
                self.volumes.make_durable_in_place(volume_id)?;
                journal.settled(volume_id)
            }
            _ => Ok(()),
        }
    }

    /// What the journal says of a volume was said of another one of its name, or is durable in its place.
    pub(super) fn forget_what_was_said(&self, volume_id: &str) -> Result<(), PoolError> {
        match &self.journal {
            Some(journal) if journal.says_something(volume_id) => journal.settled(volume_id),
            _ => Ok(()),
        }
    }

    /// Does again what the journal says and the filesystem may have lost; the journal is empty then. For controllers.
    pub(crate) fn replay(&self) -> Result<(), PoolError> {
        let fates = Journal::read(&self.root)?;
        if fates.is_empty() {
            return Journal::clear(&self.root);
        }
        let mut done = 0;
        for (volume_id, fate) in &fates {
            if !is_id(volume_id) {
                tracing::error!(
                    id = volume_id,
                    "The pool's journal speaks of something that is no volume"
                );
                continue;
            }
            let next = step(fate, self.seen(volume_id, fate)?);
            done += usize::from(self.take_step(volume_id, fate, next)?);
        }
        let opened = fs::File::open(&self.root).map_err(PoolError::io("open", &self.root))?;
        rustix::fs::syncfs(&opened).map_err(|errno| PoolError::io("sync", &self.root)(errno.into()))?;
        if done > 0 {
            tracing::warn!(
                pool = self.name(),
                volumes = done,
                "The filesystem had lost what was promised; it is done again"
            );
        }
        Journal::clear(&self.root)
    }

    /// Leaves the pool as one without a journal. A start after a kill does it instead.
    pub(crate) fn rest(&self) -> Result<(), PoolError> {
        self.spares.close()?;
        self.journal.as_ref().map_or(Ok(()), Journal::rest)
    }

    /// The second half of a deletion: the volume was taken away. Succeeds when nothing is left of it.
    pub(crate) fn remove_gone(&self, volume_id: &str) -> Result<(), PoolError> {
        let was_unused = self.unused.lock().remove(volume_id);
        if was_unused && self.spares.keep(&self.volumes.gone_directory(volume_id))? {
            return failpoint::hit(VOLUME_POINTS.gone_after_removal);
        }
        self.volumes.remove_gone(volume_id)
    }

    fn seen(&self, volume_id: &str, fate: &Fate) -> Result<Seen, PoolError> {
        let directory = self.volumes.directory(volume_id);
        match fs::symlink_metadata(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Seen::Nothing),
            Err(error) => return Err(PoolError::io("look at", directory)(error)),
            Ok(_) => {}
        }
        let Ok(bytes) = fs::read(directory.join(RECORD_FILE)) else {
            return Ok(Seen::NoRecord);
        };
        Ok(match fate {
            Fate::Made { record, .. } if *record == bytes => Seen::Same,
            _ if Record::read_of(volume_id, &bytes).is_ok() => Seen::Other,
            _ => Seen::NoRecord,
        })
    }

    /// Says whether anything had been lost.
    fn take_step(&self, volume_id: &str, fate: &Fate, step: Step) -> Result<bool, PoolError> {
        if matches!(step, Step::TakeAway | Step::Replace) {
            self.volumes.move_away(volume_id)?;
        }
        let Fate::Made { record: bytes, .. } = fate else {
            return Ok(step == Step::TakeAway);
        };
        let parsed = Record::read_of(volume_id, bytes);
        let record = parsed.map_err(|error| self.volumes.record_error(volume_id, error))?;
        let new = NewData {
            bytes: record.capacity_bytes,
            provisioning: record.provisioning,
        };
        match step {
            Step::Leave | Step::TakeAway => Ok(false),
            Step::Make | Step::Replace => {
                let fill = |directory: &Path| {
                    let files = Files {
                        directory,
                        content: record.content,
                    };
                    let made = backend::of_content(record.content).make(files, new);
                    made.map_err(|error| error.into_driver_error("make the volume's data again"))?;
                    Ok(bytes.clone())
                };
                let made = self.volumes.create(volume_id, fill);
                made.map_err(|error| self.volumes.record_error(volume_id, error))?;
                Ok(true)
            }
            Step::Complete => self.complete(volume_id, &record, bytes, new),
        }
    }

    fn complete(
        &self,
        volume_id: &str,
        record: &Record,
        bytes: &[u8],
        new: NewData,
    ) -> Result<bool, PoolError> {
        let directory = self.volumes.directory(volume_id);
        let mut was_lost = false;
        if !directory.join(COPY_FILE).exists() && directory.join(RECORD_FILE).exists() {
            // It was made without.
            write_copy(&directory);
        }
        for file in [COPY_FILE, RECORD_FILE] {
            let path = directory.join(file);
            if fs::read(&path).is_ok_and(|found| found == bytes) {
                continue;
            }
            durable::replace(path, bytes)?;
            was_lost = true;
        }
        let files = Files {
            directory: &directory,
            content: record.content,
        };
        let completed = backend::complete_directory(files, new);
        let completed = completed.map_err(|error| {
            let error = error.into_driver_error("make the volume's data again");
            self.volumes.record_error(volume_id, error)
        })?;
        Ok(was_lost | completed)
    }
}
