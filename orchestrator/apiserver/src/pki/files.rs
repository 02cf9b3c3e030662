//! Reads and durably writes the PKI's files. It knows nothing of what is in them.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::PkiError;

/// Reads a text file; a missing file is `None`.
pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Makes the directory, for its owner alone.
pub(super) fn make_dir(dir: &Path) -> Result<(), PkiError> {
    let step = |source| PkiError::Write {
        path: dir.to_owned(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(step)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(step)
}

/// Replaces the file's content so that after a crash there is the old or the new one, never a part.
pub(super) fn write(path: &Path, content: &str, mode: u32) -> Result<(), PkiError> {
    let step = |source| PkiError::Write {
        path: path.to_owned(),
        source,
    };
    let temporary = path.with_extension("tmp");
    match std::fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(step(source)),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(step)?;
    file.write_all(content.as_bytes()).map_err(step)?;
    file.sync_all().map_err(step)?;
    std::fs::rename(&temporary, path).map_err(step)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(step)
}
