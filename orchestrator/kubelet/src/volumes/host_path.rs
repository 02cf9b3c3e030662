//! `hostPath`: checks the path's type, makes it where the type says so. Nothing is mounted and nothing torn down.

use std::fs::Metadata;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::error::VolumeError;

/// Checks or makes `path` according to `kind` (`spec.volumes[].hostPath.type`).
pub(crate) fn set_up(path: &Path, kind: &str) -> Result<(), VolumeError> {
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" => {
            if !path.exists() {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o755)
                    .create(path)
                    .map_err(VolumeError::io("make directory", path))?;
            }
            check(path, "directory", Metadata::is_dir)
        }
        "FileOrCreate" => {
            if !path.exists() {
                std::fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o644)
                    .open(path)
                    .map_err(VolumeError::io("create", path))?;
            }
            check(path, "file", Metadata::is_file)
        }
        "Directory" => check(path, "directory", Metadata::is_dir),
        "File" => check(path, "file", Metadata::is_file),
        "Socket" => check(path, "socket", |metadata| metadata.file_type().is_socket()),
        "CharDevice" => check(path, "character device", |metadata| {
            metadata.file_type().is_char_device()
        }),
        "BlockDevice" => check(path, "block device", |metadata| {
            metadata.file_type().is_block_device()
        }),
        other => Err(VolumeError::Refused(format!(
            "hostPath type {other:?} is not known"
        ))),
    }
}

fn check(path: &Path, what: &str, is_it: impl Fn(&Metadata) -> bool) -> Result<(), VolumeError> {
    let is_good = std::fs::metadata(path).is_ok_and(|metadata| is_it(&metadata));
    if is_good {
        return Ok(());
    }
    Err(VolumeError::Refused(format!(
        "hostPath type check failed: {} is not a {what}",
        path.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_made() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("file"), "x").unwrap();
        std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let cases = [
            ("unchecked", "nothing", "", true),
            ("directory is missing", "new", "Directory", false),
            ("directory is made", "new/deep", "DirectoryOrCreate", true),
            ("directory is there now", "new", "Directory", true),
            ("file is missing", "f", "File", false),
            ("file is made", "f", "FileOrCreate", true),
            ("file is there", "file", "File", true),
            ("file is no directory", "file", "DirectoryOrCreate", false),
            ("directory is no file", "new", "FileOrCreate", false),
            ("socket", "socket", "Socket", true),
            ("file is no socket", "file", "Socket", false),
            ("file is no block device", "file", "BlockDevice", false),
            ("unknown type", "file", "Door", false),
        ];
        for (name, path, kind, is_good) in cases {
            assert_eq!(set_up(&at(path), kind).is_ok(), is_good, "{name}");
        }
        assert!(set_up(Path::new("/dev/null"), "CharDevice").is_ok());
    }
}
