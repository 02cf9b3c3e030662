//! `subPath`: a path inside a volume, resolved without following a symlink out of it, bound to a place of its own.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::error::VolumeError;
use super::vol_data::{entries, make_directory, remove_directory, remove_file};

/// Refuses what could never be inside.
pub(crate) fn validate(sub_path: &str) -> Result<(), VolumeError> {
    let path = Path::new(sub_path);
    if path.is_absolute() {
        return Err(VolumeError::Refused(format!(
            "subPath {sub_path:?} must be a relative path"
        )));
    }
    if path
        .components()
        .any(|component| component == Component::ParentDir)
    {
        return Err(VolumeError::Refused(format!(
            "subPath {sub_path:?} must not contain '..'"
        )));
    }
    Ok(())
}

fn errno(action: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> VolumeError {
    let path = path.to_owned();
    move |errno| VolumeError::io(action, &path)(errno.into())
}

/// Opens `sub_path` below `volume`, making missing directories with the mode of the volume's root. Symlinks are
/// followed as long as they stay inside.
fn open(volume: &Path, sub_path: &str, may_make: bool) -> Result<OwnedFd, VolumeError> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root =
        rustix::fs::open(volume, flags | OFlags::DIRECTORY, Mode::empty()).map_err(errno("open", volume))?;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&root, sub_path, flags, Mode::empty(), inside) {
        Ok(found) => return Ok(found),
        Err(rustix::io::Errno::NOENT) if may_make => {}
        Err(other) => return Err(errno("open", &volume.join(sub_path))(other)),
    }
    let mode = std::fs::metadata(volume).map_err(VolumeError::io("look at", volume))?;
    let (mode, owner, group) = (mode.permissions().mode() & 0o7777, mode.uid(), mode.gid());
    let mut current = root;
    for component in Path::new(sub_path).components() {
        let Component::Normal(name) = component else {
            continue;
        };
        let path = volume.join(sub_path);
        let directory = OFlags::DIRECTORY | OFlags::NOFOLLOW | flags;
        let next = match rustix::fs::openat2(&current, name, directory, Mode::empty(), inside) {
            Err(rustix::io::Errno::NOENT) => {
                match rustix::fs::mkdirat(&current, name, Mode::from_raw_mode(mode & 0o777)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(other) => return Err(errno("make directory", &path)(other)),
                }
                let made = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made =
                    rustix::fs::openat(&current, name, made, Mode::empty()).map_err(errno("open", &path))?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(mode)).map_err(errno("set mode of", &path))?;
                std::os::unix::fs::fchown(&made, Some(owner), Some(group))
                    .map_err(VolumeError::io("set owner of", &path))?;
                made
            }
            other => other.map_err(errno("open", &path))?,
        };
        current = next;
    }
    Ok(current)
}

/// Binds `sub_path` of the volume to `target` and returns it. The binding holds what was found now: exchanging the
/// path for a symlink later changes nothing. Binding the same file again is no change.
pub(crate) fn bind(
    volume: &Path,
    sub_path: &str,
    target: &Path,
    may_make: bool,
) -> Result<PathBuf, VolumeError> {
    validate(sub_path)?;
    let found = open(volume, sub_path, may_make)?;
    let stat = rustix::fs::fstat(&found).map_err(errno("look at", volume))?;
    let failed = |error: moorline_mount::MountError| VolumeError::Mount {
        action: "bind subPath to",
        path: target.to_owned(),
        reason: error.to_string(),
    };
    if moorline_mount::mount::is_mount_point(target).map_err(failed)? {
        let held = rustix::fs::stat(target).map_err(errno("look at", target))?;
        if (held.st_dev, held.st_ino) == (stat.st_dev, stat.st_ino) {
            return Ok(target.to_owned());
        }
        moorline_mount::mount::unmount(target).map_err(failed)?;
    }
    let is_directory = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    if is_directory {
        make_directory(target)?;
    } else {
        if let Some(parent) = target.parent() {
            make_directory(parent)?;
        }
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(target)
            .map_err(VolumeError::io("create", target))?;
    }
    // The descriptor, not the path: nobody can exchange what it stands for.
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    moorline_mount::mount::bind(&source, target, false).map_err(failed)?;
    Ok(target.to_owned())
}

/// Unbinds all subPaths below `directory` (of one volume, or of a pod) and removes their places.
pub(crate) fn clean(directory: &Path) -> Result<(), VolumeError> {
    if std::fs::symlink_metadata(directory).is_err() {
        return Ok(());
    }
    moorline_mount::mount::unmount_tree(directory).map_err(|error| VolumeError::Mount {
        action: "unmount below",
        path: directory.to_owned(),
        reason: error.to_string(),
    })?;
    remove_places(directory)
}

/// Places are empty directories and empty files; anything else stays and is reported.
fn remove_places(path: &Path) -> Result<(), VolumeError> {
    let metadata = std::fs::symlink_metadata(path).map_err(VolumeError::io("look at", path))?;
    if !metadata.is_dir() {
        if metadata.is_file() && metadata.len() > 0 {
            return Err(VolumeError::Refused(format!("{} is not empty", path.display())));
        }
        return remove_file(path);
    }
    for entry in entries(path)? {
        remove_places(&entry)?;
    }
    remove_directory(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::is_root;

    #[test]
    fn paths_out_of_the_volume_are_refused() {
        let cases = [
            ("a", true),
            ("a/b", true),
            ("./a", true),
            ("/etc", false),
            ("../x", false),
            ("a/../../x", false),
        ];
        for (path, is_good) in cases {
            assert_eq!(validate(path).is_ok(), is_good, "{path}");
        }
    }

    #[test]
    fn symlinks_lead_nowhere() {
        let volume = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", volume.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../..", volume.path().join("relative")).unwrap();
        std::fs::create_dir(volume.path().join("inside")).unwrap();
        std::os::unix::fs::symlink("inside", volume.path().join("fine")).unwrap();
        let cases = [
            ("absolute", false),
            ("absolute/passwd", false),
            ("relative", false),
            ("relative/new", false),
            ("fine", true),
            ("inside", true),
            ("new/deep", true),
        ];
        for (path, is_good) in cases {
            assert_eq!(open(volume.path(), path, true).is_ok(), is_good, "{path}");
        }
        assert!(open(volume.path(), "missing", false).is_err());
        assert!(volume.path().join("new/deep").is_dir());
    }

    #[test]
    fn exchanged_path_changes_nothing() {
        if !is_root("exchanged_path_changes_nothing") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("volume");
        std::fs::create_dir_all(volume.join("data")).unwrap();
        std::fs::write(volume.join("data/file"), "mine").unwrap();
        let target = directory.path().join("pod/volume-subpaths/v/c/0");
        bind(&volume, "data", &target, true).unwrap();
        bind(&volume, "data", &target, true).unwrap();
        std::fs::rename(volume.join("data"), volume.join("moved")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("data")).unwrap();
        assert_eq!(std::fs::read_to_string(target.join("file")).unwrap(), "mine");
        let file = directory.path().join("pod/volume-subpaths/v/c/1");
        bind(&volume, "moved/file", &file, true).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
        clean(&directory.path().join("pod/volume-subpaths")).unwrap();
        assert!(!directory.path().join("pod/volume-subpaths").exists());
        assert_eq!(
            std::fs::read_to_string(volume.join("moved/file")).unwrap(),
            "mine"
        );
    }
}
