//! Writes a set of files so that readers see all of the old ones or all of the new ones.
//!
//! ```text
//!   key ──> ..data/key          what readers open
//!   ..data ──> ..<unique>       exchanged by one rename
//!   ..<unique>/key              the files
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use super::error::VolumeError;
use super::vol_data::{entries, file_name};

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// One file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub content: Vec<u8>,
    pub mode: u32,
    /// Owner, where it isn't root.
    pub owner: Option<u32>,
}

/// Files by their path below the volume.
pub(crate) type Payload = BTreeMap<String, File>;

/// Refuses paths that leave the volume or collide with the writer's own names.
pub(crate) fn validate(path: &str) -> Result<(), VolumeError> {
    let refuse = |why: &str| Err(VolumeError::Refused(format!("invalid path {path:?}: {why}")));
    if path.is_empty() {
        return refuse("must not be empty");
    }
    if path.len() > MAX_PATH {
        return refuse("must not be longer than 4096 bytes");
    }
    let mut is_first = true;
    for component in Path::new(path).components() {
        let Component::Normal(name) = component else {
            return refuse("must be relative and not contain '..'");
        };
        if name.len() > MAX_NAME {
            return refuse("a part is longer than 255 bytes");
        }
        if is_first && name.to_string_lossy().starts_with("..") {
            return refuse("must not start with '..'");
        }
        is_first = false;
    }
    Ok(())
}

/// Makes `payload` the content of the volume at `directory`; `finish` may change ownership of the new files before
/// anybody sees them. Returns whether anything had to be written.
pub(crate) fn write(
    directory: &Path,
    payload: &Payload,
    unique: &str,
    finish: impl FnOnce(&Path) -> Result<(), VolumeError>,
) -> Result<bool, VolumeError> {
    for path in payload.keys() {
        validate(path)?;
    }
    let old = std::fs::read_link(directory.join(DATA)).ok();
    if let Some(old) = &old
        && read_back(&directory.join(old)).as_ref() == Some(&contents(payload))
    {
        link_visible(directory, payload)?;
        return Ok(false);
    }
    let new = directory.join(format!("..{unique}"));
    fill(&new, payload)?;
    finish(&new)?;
    let next = directory.join(DATA_NEXT);
    super::vol_data::remove_file(&next)?;
    symlink(file_name(&new), &next).map_err(VolumeError::io("make symlink", &next))?;
    std::fs::rename(&next, directory.join(DATA)).map_err(VolumeError::io("rename", &next))?;
    link_visible(directory, payload)?;
    remove_stale(directory, payload, &file_name(&new))?;
    Ok(true)
}

fn contents(payload: &Payload) -> BTreeMap<String, Vec<u8>> {
    payload
        .iter()
        .map(|(path, file)| (normal(path), file.content.clone()))
        .collect()
}

fn normal(path: &str) -> String {
    let parts: PathBuf = Path::new(path).components().collect();
    parts.to_string_lossy().into_owned()
}

/// All files below `directory`; `None` when it can't be read completely.
fn read_back(directory: &Path) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(current) = todo.pop() {
        for entry in std::fs::read_dir(&current).ok()? {
            let entry = entry.ok()?;
            if entry.file_type().ok()?.is_dir() {
                todo.push(entry.path());
            } else {
                let path = entry
                    .path()
                    .strip_prefix(directory)
                    .ok()?
                    .to_string_lossy()
                    .into_owned();
                files.insert(path, std::fs::read(entry.path()).ok()?);
            }
        }
    }
    Some(files)
}

fn fill(new: &Path, payload: &Payload) -> Result<(), VolumeError> {
    make_open_directory(new)?;
    for (path, file) in payload {
        let target = new.join(path);
        if let Some(parent) = target.parent()
            && parent != new
        {
            let below = parent.strip_prefix(new).map_err(|_| VolumeError::Lost)?;
            let mut current = new.to_owned();
            for part in below.components() {
                current.push(part);
                make_open_directory(&current)?;
            }
        }
        let mut handle = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(file.mode)
            .open(&target)
            .map_err(VolumeError::io("create", &target))?;
        handle
            .write_all(&file.content)
            .map_err(VolumeError::io("write", &target))?;
        // The mode given to open is cut by the umask.
        let permissions = std::fs::Permissions::from_mode(file.mode);
        handle
            .set_permissions(permissions)
            .map_err(VolumeError::io("set mode of", &target))?;
        if let Some(owner) = file.owner {
            std::os::unix::fs::fchown(&handle, Some(owner), None)
                .map_err(VolumeError::io("set owner of", &target))?;
        }
    }
    Ok(())
}

fn make_open_directory(path: &Path) -> Result<(), VolumeError> {
    match std::fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(VolumeError::io("make directory", path)(error)),
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .map_err(VolumeError::io("set mode of", path))
}

fn top_level(payload: &Payload) -> BTreeSet<String> {
    let first = |path: &String| {
        Path::new(path)
            .components()
            .next()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
    };
    payload.keys().filter_map(first).collect()
}

fn link_visible(directory: &Path, payload: &Payload) -> Result<(), VolumeError> {
    for name in top_level(payload) {
        let link = directory.join(&name);
        if std::fs::symlink_metadata(&link).is_ok() {
            continue;
        }
        symlink(Path::new(DATA).join(&name), &link).map_err(VolumeError::io("make symlink", &link))?;
    }
    Ok(())
}

/// Removes links to files that are gone and the directories of earlier contents.
fn remove_stale(directory: &Path, payload: &Payload, current: &str) -> Result<(), VolumeError> {
    let keep = top_level(payload);
    for path in entries(directory)? {
        let name = file_name(&path);
        if name == DATA || name == current || keep.contains(&name) {
            continue;
        }
        let is_directory = std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
        if is_directory && name.starts_with("..") {
            std::fs::remove_dir_all(&path).map_err(VolumeError::io("remove", &path))?;
        } else if !is_directory {
            super::vol_data::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |content: &str| File {
            content: content.as_bytes().to_vec(),
            mode: 0o640,
            owner: None,
        };
        files
            .iter()
            .map(|(path, content)| ((*path).to_owned(), file(content)))
            .collect()
    }

    fn put(directory: &Path, files: &[(&str, &str)], unique: &str) -> bool {
        write(directory, &payload(files), unique, |_| Ok(())).unwrap()
    }

    fn visible(directory: &Path) -> Vec<String> {
        entries(directory)
            .unwrap()
            .iter()
            .map(|path| file_name(path))
            .collect()
    }

    #[test]
    fn content_is_exchanged_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        assert!(put(at, &[("a", "1"), ("sub/b", "2")], "one"));
        assert_eq!(std::fs::read_to_string(at.join("sub/b")).unwrap(), "2");
        let mode = std::fs::metadata(at.join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let held = std::fs::File::open(at.join("a")).unwrap();
        assert!(put(at, &[("a", "3"), ("c", "4")], "two"));
        assert_eq!(std::fs::read_to_string(at.join("a")).unwrap(), "3");
        assert_eq!(
            std::io::read_to_string(held).unwrap(),
            "1",
            "an open file keeps its content"
        );
        assert_eq!(visible(at), ["..data", "..two", "a", "c"]);
    }

    #[test]
    fn equal_content_is_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        assert!(put(directory.path(), &[("a", "1")], "one"));
        assert!(!put(directory.path(), &[("a", "1")], "two"));
        std::fs::remove_file(directory.path().join("a")).unwrap();
        assert!(
            !put(directory.path(), &[("a", "1")], "three"),
            "but a lost link is mended"
        );
        assert_eq!(visible(directory.path()), ["..data", "..one", "a"]);
    }

    #[test]
    fn a_crash_before_the_rename_is_repaired() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), &[("a", "1")], "one");
        fill(&directory.path().join("..half"), &payload(&[("a", "x")])).unwrap();
        symlink("..half", directory.path().join(DATA_NEXT)).unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("a")).unwrap(), "1");
        put(directory.path(), &[("a", "2")], "two");
        assert_eq!(visible(directory.path()), ["..data", "..two", "a"]);
    }

    #[test]
    fn empty_payload_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), &[("a", "1")], "one");
        assert!(put(directory.path(), &[], "two"));
        assert_eq!(visible(directory.path()), ["..data", "..two"]);
    }

    #[test]
    fn paths_stay_inside() {
        let long_name = "x".repeat(256);
        let cases = [
            ("plain", "a", true),
            ("nested", "a/b/c", true),
            ("dots inside", "a/..b", true),
            ("empty", "", false),
            ("absolute", "/a", false),
            ("parent", "a/../b", false),
            ("own name", "..data", false),
            ("starts with dots", "..x/y", false),
            ("long name", long_name.as_str(), false),
        ];
        for (name, path, is_good) in cases {
            assert_eq!(validate(path).is_ok(), is_good, "{name}");
        }
    }
}
