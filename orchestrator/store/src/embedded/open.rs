//! Opens and makes the file. What is not certainly a store of ours is refused, never overwritten.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, StorageError, TableError};

use super::tables::{META, META_FORMAT, Tables};

/// The format that this version reads and writes.
const FORMAT: u64 = 1;

/// Why a store could not be opened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or this one, has the store open.
    #[error("store {path} is in use by another process; stop that one first")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else, or was cut off.
    #[error(
        "{path} is not a Moorline store, or is damaged ({found}); it was left as it is: \
         put a copy of the store in its place, or move it away to begin with an empty store"
    )]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// The store was written by another version of Moorline.
    #[error(
        "store {path} has format {found}, this version reads format {FORMAT}; use the version that wrote it"
    )]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        found: u64,
    },
    /// The system refused something.
    #[error("{attempt} {path}")]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The engine refused something.
    #[error("{attempt} {path}")]
    Engine {
        /// What was tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: Box<redb::Error>,
    },
}

/// Opens the store at `path`, or makes an empty one if there is no file.
pub(super) fn open(path: &Path, cache_bytes: usize, check: bool) -> Result<Database, OpenError> {
    if !path.try_exists().map_err(failed("look for", path))? {
        create(path, cache_bytes)?;
    }
    let length = fs::metadata(path).map_err(failed("look at", path))?.len();
    if length == 0 {
        // The engine would take an empty file for a new one. Ours are never empty: see `create`.
        return Err(OpenError::NotAStore {
            path: path.to_owned(),
            found: "the file is empty".to_owned(),
        });
    }
    let database = builder(cache_bytes)
        .set_check_integrity_on_open(check)
        .open(path)
        .map_err(|error| refused(error, path))?;
    check_format(&database, path)?;
    Ok(database)
}

/// Opens a store that this process had open before, after a failure.
pub(super) fn reopen(path: &Path, cache_bytes: usize) -> Result<Database, DatabaseError> {
    builder(cache_bytes).open(path)
}

/// Makes the tables of a new store.
pub(super) fn initialise(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    Tables::open(&write)?.meta.insert(META_FORMAT, FORMAT)?;
    write.commit()?;
    Ok(())
}

fn builder(cache_bytes: usize) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    builder
}

/// Makes the store beside its place and then links it there, so that at no moment a half-made one has its name, and
/// of two processes that do this at once one uses the other's.
fn create(path: &Path, cache_bytes: usize) -> Result<(), OpenError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let temporary = path.with_file_name(name);
    remove_if_there(&temporary)?;
    let database = builder(cache_bytes)
        .create(&temporary)
        .map_err(|error| refused(error, &temporary))?;
    let initialised = initialise(&database);
    initialised.map_err(|source| engine("write the first record of", &temporary, source))?;
    drop(database);
    let linked = match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    };
    remove_if_there(&temporary)?;
    linked.map_err(failed("make", path))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("sync the directory", directory))
}

fn remove_if_there(path: &Path) -> Result<(), OpenError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn check_format(database: &Database, path: &Path) -> Result<(), OpenError> {
    let foreign = |found: &str| OpenError::NotAStore {
        path: path.to_owned(),
        found: found.to_owned(),
    };
    let read = database
        .begin_read()
        .map_err(|error| engine("read", path, error.into()))?;
    let meta = match read.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::Storage(error)) => return Err(engine("read", path, error.into())),
        Err(_other_database) => return Err(foreign("a redb database of another program")),
    };
    let format = meta
        .get(META_FORMAT)
        .map_err(|error| engine("read", path, error.into()))?;
    match format.map(|format| format.value()) {
        Some(FORMAT) => Ok(()),
        Some(found) => Err(OpenError::OtherFormat {
            path: path.to_owned(),
            found,
        }),
        None => Err(foreign("no format record")),
    }
}

fn refused(error: DatabaseError, path: &Path) -> OpenError {
    let damaged = |found: String| OpenError::NotAStore {
        path: path.to_owned(),
        found,
    };
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse {
            path: path.to_owned(),
        },
        DatabaseError::UpgradeRequired(found) => damaged(format!("redb file format {found}")),
        DatabaseError::Storage(StorageError::Corrupted(found)) => damaged(found),
        DatabaseError::Storage(StorageError::Io(error))
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            damaged(error.to_string())
        }
        DatabaseError::Storage(StorageError::Io(source)) => failed("open", path)(source),
        other => engine("open", path, other.into()),
    }
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        attempt,
        path,
        source,
    }
}

fn engine(attempt: &'static str, path: &Path, source: redb::Error) -> OpenError {
    OpenError::Engine {
        attempt,
        path: path.to_owned(),
        source: Box::new(source),
    }
}
