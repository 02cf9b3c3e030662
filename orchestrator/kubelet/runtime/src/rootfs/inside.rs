//! Looking at and changing files below a container's root without being led outside by its symlinks.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, statat, unlinkat,
};
use rustix::io::Errno;

/// Account files are read up to this size.
const TEXT_LIMIT_BYTES: u64 = 1 << 20;

/// The opened root of a container.
#[derive(Debug)]
pub(crate) struct Inside {
    root: OwnedFd,
}

impl Inside {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: openat(CWD, root, flags, Mode::empty())?,
        })
    }

    /// Opens `path` as a process inside would see it: absolute symlinks and `..` stay below the root.
    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// A small text file; empty when there is none.
    pub(crate) fn read_text(&self, path: &Path) -> io::Result<String> {
        // NONBLOCK: a FIFO planted by the image must not stop us.
        let file = match self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
            Err(errno) => return Err(errno.into()),
        };
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        std::fs::File::from(file)
            .take(TEXT_LIMIT_BYTES)
            .read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Makes a directory and those above it, as `mkdir -p` inside would.
    pub(crate) fn make_dirs(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut reached = PathBuf::from("/");
        let mut dir = self.resolve(&reached, OFlags::PATH | OFlags::DIRECTORY)?;
        for part in path.components() {
            let std::path::Component::Normal(name) = part else {
                continue;
            };
            reached.push(name);
            dir = match self.resolve(&reached, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(found) => found,
                Err(Errno::NOENT) => {
                    match mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                    self.resolve(&reached, OFlags::PATH | OFlags::DIRECTORY)?
                }
                Err(errno) => return Err(errno.into()),
            };
        }
        Ok(dir)
    }

    /// Makes sure that `dir/name` is something a file can be bound over: a symlink there (often to a place that
    /// doesn't exist inside) gives way to an empty file.
    pub(crate) fn make_bindable_file(&self, dir: &Path, name: &str) -> io::Result<()> {
        let dir = self.make_dirs(dir)?;
        match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink => return Ok(()),
            Ok(_) => unlinkat(&dir, name, AtFlags::empty())?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&dir, name, flags, Mode::from_raw_mode(0o644))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn symlinks_of_the_image_lead_nowhere_outside() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "outside").unwrap();
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("abs")).unwrap();
        symlink("../../../../../../../..", root.path().join("up")).unwrap();
        let inside = Inside::open(root.path()).unwrap();
        assert_eq!(inside.read_text(Path::new("/abs/secret")).unwrap(), "");
        let up = PathBuf::from("/up")
            .join(outside.path().strip_prefix("/").unwrap())
            .join("secret");
        assert_eq!(inside.read_text(&up).unwrap(), "");
        inside.make_dirs(Path::new("/up/made/here")).unwrap();
        assert!(root.path().join("made/here").is_dir());
    }

    #[test]
    fn text_is_read_and_odd_files_are_empty() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        symlink("/etc/passwd", root.path().join("link")).unwrap();
        let inside = Inside::open(root.path()).unwrap();
        assert!(inside.read_text(Path::new("link")).unwrap().starts_with("root:"));
        assert_eq!(inside.read_text(Path::new("etc")).unwrap(), "");
        assert_eq!(inside.read_text(Path::new("etc/group")).unwrap(), "");
    }

    #[test]
    fn dangling_links_give_way_to_files() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        symlink("../run/resolv.conf", root.path().join("etc/resolv.conf")).unwrap();
        fs::write(root.path().join("etc/hosts"), "kept").unwrap();
        let inside = Inside::open(root.path()).unwrap();
        for name in ["resolv.conf", "hosts", "hostname"] {
            inside.make_bindable_file(Path::new("/etc"), name).unwrap();
            assert!(
                fs::symlink_metadata(root.path().join("etc").join(name))
                    .unwrap()
                    .is_file(),
                "{name}"
            );
        }
        assert_eq!(fs::read_to_string(root.path().join("etc/hosts")).unwrap(), "kept");
    }
}
