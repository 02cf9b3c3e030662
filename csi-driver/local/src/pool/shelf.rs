//! A directory of things that each have a directory, a record and a second copy of it, and come and go by one rename.
//!
//! ```text
//! <shelf>/<id>/record         the durable record, written last
//! <shelf>/<id>/record.copy    the same bytes; read when the record is damaged
//! <shelf>/<id>/...            the data, as the backend keeps it
//! <shelf>/.new-<id>           being made: not there yet
//! <shelf>/.del-<id>           being removed: not there any more
//! ```
//! An acknowledged state stands in both copies: the second copy is written first, the record itself decides. What is
//! durable elsewhere gets its second copy when it is not any more.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use moorline_driver_sdk::{DriverError, ErrorKind};
use moorline_mount::durable::{self, SharedSync};

use super::{PoolError, make_directory, remove, spares::Spares};
use crate::{failpoint, ids::is_id, record::RecordError};

pub(super) const RECORD_FILE: &str = "record";
pub(super) const COPY_FILE: &str = "record.copy";
pub(crate) const NEW_PREFIX: &str = ".new-";
pub(crate) const GONE_PREFIX: &str = ".del-";

/// The failpoints of one shelf.
#[derive(Debug)]
pub(super) struct Points {
    pub(super) after_directory: &'static str,
    pub(super) after_data: &'static str,
    pub(super) after_copy_of_record: &'static str,
    pub(super) after_record: &'static str,
    pub(super) after_rename: &'static str,
    pub(super) after_sync: &'static str,
    pub(super) gone_after_rename: &'static str,
    pub(super) gone_after_sync: &'static str,
    pub(super) gone_after_removal: &'static str,
}

/// One kind of things in a pool.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(super) noun: &'static str,
    pub(super) path: PathBuf,
    pub(super) sync: SharedSync,
    points: &'static Points,
}

/// How a making went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// Now.
    New,
    /// By an earlier try that was not sure of its success.
    Before,
}

impl Shelf {
    pub(super) fn open(
        noun: &'static str,
        path: PathBuf,
        points: &'static Points,
    ) -> Result<Self, PoolError> {
        make_directory(&path)?;
        let sync = SharedSync::open(&path)?;
        Ok(Shelf {
            noun,
            path,
            sync,
            points,
        })
    }

    /// Where all of them are.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file that holds a thing's record.
    pub(crate) fn record_path(&self, id: &str) -> PathBuf {
        self.directory(id).join(RECORD_FILE)
    }

    /// Where a thing's record and data are.
    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.path.join(id)
    }

    /// Where it is while it is being made.
    pub(super) fn new_directory(&self, id: &str) -> PathBuf {
        self.path.join(format!("{NEW_PREFIX}{id}"))
    }

    /// Where it is while it is being removed.
    pub(super) fn gone_directory(&self, id: &str) -> PathBuf {
        self.path.join(format!("{GONE_PREFIX}{id}"))
    }

    /// Makes a thing: `fill` puts its data into a directory that becomes the thing's own at the end, and gives its record.
    /// On an error nothing is left, or it is said that something is.
    pub(crate) fn create(
        &self,
        id: &str,
        fill: impl FnOnce(&Path) -> Result<Vec<u8>, DriverError>,
    ) -> Result<Made, DriverError> {
        if self.directory(id).exists() {
            self.make_durable()?;
            return Ok(Made::Before);
        }
        self.prepare(id, fill)?;
        self.commit(id)?;
        // From here on it may survive a crash, so that an error is no longer final.
        failpoint::hit(self.points.after_rename).map_err(|error| uncertain("make it durable", error))?;
        self.make_durable()?;
        failpoint::hit(self.points.after_sync).map_err(|error| uncertain("answer", error))?;
        Ok(Made::New)
    }

    /// The first half of [`Shelf::create`]: all but the rename. What it leaves is removed at the next start.
    pub(crate) fn prepare(
        &self,
        id: &str,
        fill: impl FnOnce(&Path) -> Result<Vec<u8>, DriverError>,
    ) -> Result<(), DriverError> {
        self.prepare_with(id, make_directory, fill, |new, record| {
            // Not yet durable: it is there for damage that happens later than that.
            let copy = new.join(COPY_FILE);
            fs::write(&copy, record).map_err(PoolError::io("write", &copy))?;
            failpoint::hit(self.points.after_copy_of_record)?;
            durable::write_new(new.join(RECORD_FILE), record)?;
            Ok(durable::sync_directory(new)?)
        })
    }

    /// As [`Shelf::prepare`], for what is durable elsewhere, which is its second copy as well. The directory may be a spare
    /// one, with an old record and an empty data directory in it.
    pub(super) fn prepare_undurably(
        &self,
        id: &str,
        spares: &Spares,
        fill: impl FnOnce(&Path) -> Result<Vec<u8>, DriverError>,
    ) -> Result<(), DriverError> {
        let place = |new: &Path| {
            if spares.take(new)? {
                return Ok(());
            }
            make_directory(new)
        };
        self.prepare_with(id, place, fill, |new, record| {
            let path = new.join(RECORD_FILE);
            let mut options = fs::File::options();
            // Without truncating: a filesystem may take that for a replacement, and write it out at once.
            let opened = options
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path);
            let written = opened.and_then(|mut file| {
                file.write_all(record)?;
                if file.metadata()?.len() != record.len() as u64 {
                    file.set_len(record.len() as u64)?;
                }
                Ok(())
            });
            written.map_err(PoolError::io("write", path))
        })
    }

    fn prepare_with(
        &self,
        id: &str,
        place: impl FnOnce(&Path) -> Result<(), PoolError>,
        fill: impl FnOnce(&Path) -> Result<Vec<u8>, DriverError>,
        write: impl FnOnce(&Path, &[u8]) -> Result<(), PoolError>,
    ) -> Result<(), DriverError> {
        let new = self.new_directory(id);
        let made = self.remove_new(id).map_err(DriverError::from).and_then(|()| {
            place(&new)?;
            failpoint::hit(self.points.after_directory)?;
            let record = fill(&new)?;
            failpoint::hit(self.points.after_data)?;
            write(&new, &record)?;
            failpoint::hit(self.points.after_record)?;
            Ok(())
        });
        let Err(error) = made else {
            return Ok(());
        };
        Err(match self.remove_new(id) {
            Ok(()) => error,
            Err(left) => uncertain("undo the creation", error).caused_by(left),
        })
    }

    /// The second half of [`Shelf::create`], but for [`Shelf::make_durable`].
    pub(crate) fn commit(&self, id: &str) -> Result<(), DriverError> {
        let path = self.directory(id);
        let moved = fs::rename(self.new_directory(id), &path);
        let Err(error) = moved else {
            return Ok(());
        };
        let error = DriverError::from(PoolError::io("move what is new to", &path)(error));
        Err(match self.remove_new(id) {
            Ok(()) => error,
            Err(left) => uncertain("undo the creation", error).caused_by(left),
        })
    }

    /// Removes what a try to make the thing has left.
    pub(crate) fn remove_new(&self, id: &str) -> Result<(), PoolError> {
        remove::all(&self.new_directory(id))
    }

    /// Returns once all that has come and gone by now is durable; an error is not final.
    pub(crate) fn make_durable(&self) -> Result<(), DriverError> {
        self.sync
            .sync()
            .map_err(|error| uncertain("make it durable", error))
    }

    /// Removes a thing and its data. Succeeds when it is not there. After an error another try goes on.
    pub(crate) fn delete(&self, id: &str) -> Result<(), PoolError> {
        self.take_away(id)?;
        self.remove_gone(id)
    }

    /// The first half of [`Shelf::delete`]: from now on it is not there any more, durably. Succeeds when it was not there.
    pub(crate) fn take_away(&self, id: &str) -> Result<(), PoolError> {
        if !self.move_away(id)? {
            return Ok(());
        }
        self.sync.sync()?;
        self.is_away()
    }

    /// The first half of [`Shelf::take_away`]: not durable yet. Says whether there is anything to be made durable.
    pub(super) fn move_away(&self, id: &str) -> Result<bool, PoolError> {
        let path = self.directory(id);
        if !path.exists() {
            // An earlier try may have got this far.
            return Ok(self.gone_directory(id).exists());
        }
        remove::refuse_mounts_below(&path)?;
        // What an earlier try has left under that name would be in the way.
        self.remove_gone(id)?;
        fs::rename(&path, self.gone_directory(id)).map_err(PoolError::io("take away", &path))?;
        failpoint::hit(self.points.gone_after_rename)?;
        Ok(true)
    }

    /// It is away, durably.
    pub(super) fn is_away(&self) -> Result<(), PoolError> {
        failpoint::hit(self.points.gone_after_sync)
    }

    /// Makes what is in a thing's place durable there.
    pub(super) fn make_durable_in_place(&self, id: &str) -> Result<(), PoolError> {
        let path = self.directory(id);
        for entry in fs::read_dir(&path).map_err(PoolError::io("list", &path))? {
            let entry = entry.map_err(PoolError::io("list", &path))?.path();
            let synced = fs::File::open(&entry).and_then(|opened| opened.sync_all());
            synced.map_err(PoolError::io("fsync", entry))?;
        }
        durable::sync_directory(&path)?;
        Ok(self.sync.sync()?)
    }

    /// The second half of [`Shelf::delete`].
    pub(crate) fn remove_gone(&self, id: &str) -> Result<(), PoolError> {
        let gone = self.gone_directory(id);
        if !gone.exists() {
            return Ok(());
        }
        remove::all(&gone)?;
        failpoint::hit(self.points.gone_after_removal)
    }

    /// Replaces the record, the second copy first.
    pub(crate) fn update(&self, id: &str, record: &[u8]) -> Result<(), PoolError> {
        let directory = self.directory(id);
        durable::replace(directory.join(COPY_FILE), record)?;
        failpoint::hit("update::after_copy_of_record")?;
        durable::write(directory.join(RECORD_FILE), record)?;
        failpoint::hit("update::after_record")
    }

    /// Reads the record, or its second copy if it is damaged.
    pub(crate) fn read<T>(
        &self,
        id: &str,
        parse: impl Fn(&str, &[u8]) -> Result<T, RecordError>,
    ) -> Result<T, PoolError> {
        if !is_id(id) {
            return Err(self.not_there(id));
        }
        let path = self.directory(id);
        let bytes = match fs::read(path.join(RECORD_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => {
                return Err(self.not_there(id));
            }
            other => other,
        };
        let parsed = bytes
            .map_err(|error| self.record_error(id, error))
            .and_then(|bytes| parse(id, &bytes).map_err(|error| self.record_error(id, error)));
        parsed.or_else(|error| {
            let copy = fs::read(path.join(COPY_FILE)).ok();
            copy.and_then(|bytes| parse(id, &bytes).ok()).ok_or(error)
        })
    }

    pub(super) fn not_there(&self, id: &str) -> PoolError {
        PoolError::NotThere {
            noun: self.noun,
            id: id.to_owned(),
        }
    }

    pub(super) fn record_error(
        &self,
        id: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> PoolError {
        PoolError::Record {
            noun: self.noun,
            id: id.to_owned(),
            source: source.into(),
        }
    }
}

/// Writes the second copy of a record that was made without one; not durable yet. What is there already is as new, or
/// newer. A thing that has gone needs none.
pub(super) fn write_copy(directory: &Path) {
    let path = directory.join(COPY_FILE);
    let written = fs::read(directory.join(RECORD_FILE)).and_then(|record| {
        let mut options = fs::File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&record).inspect_err(|_| {
            fs::remove_file(&path).ok(); // A torn one is put right by the next start, too.
        })
    });
    match written {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists
            ) =>
        {
            // The record itself serves.
            tracing::warn!(path = %path.display(), %error, "A second copy of the record can't be written; the next start tries again");
        }
        _ => {}
    }
}

pub(super) fn uncertain(
    what: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> DriverError {
    DriverError::new(ErrorKind::Uncertain, what).caused_by(source)
}
