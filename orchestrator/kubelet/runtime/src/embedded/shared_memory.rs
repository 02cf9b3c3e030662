//! `/dev/shm` of pods: directories on the machine's own, because those need no mount that could be left behind.
//!
//! ```text
//! /dev/shm/moorline/<state>.owner         link that names mount namespace and state directory
//! /dev/shm/moorline/<state>-<sandbox>/    the pod's
//! ```
//!
//! What belongs to a state directory that no longer exists is removed by whoever opens one next. Only in the same mount
//! namespace can anybody say that it doesn't exist.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::open::{failed, make_private_dir, remove_dir};
use crate::error::RuntimeError;
use crate::records;
use crate::sandbox::SandboxId;

const TMPFS_MAGIC: i64 = 0x0102_1994;
const OWNER: &str = ".owner";

/// The directories of one state directory.
#[derive(Debug, Clone)]
pub(super) struct SharedMemory {
    parent: PathBuf,
    state_dir: PathBuf,
    /// Names the state directory.
    prefix: String,
    /// Such as `mnt:[4026531841]`.
    namespace: String,
}

impl SharedMemory {
    /// `None` where the machine has no memory at `/dev/shm`; containers then have some of their own each.
    pub(super) fn of(state_dir: &Path) -> Option<Self> {
        let shm = Path::new("/dev/shm");
        let is_tmpfs = rustix::fs::statfs(shm).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC);
        let namespace = fs::read_link("/proc/self/ns/mnt").ok()?.display().to_string();
        is_tmpfs.then(|| Self::below(&shm.join("moorline"), state_dir, namespace))
    }

    fn below(parent: &Path, state_dir: &Path, namespace: String) -> Self {
        let mut prefix = records::sandbox_id(&state_dir.display().to_string(), 0).0;
        prefix.truncate(16);
        Self {
            parent: parent.to_owned(),
            state_dir: state_dir.to_owned(),
            prefix,
            namespace,
        }
    }

    /// The directory of a sandbox.
    pub(super) fn dir(&self, id: &SandboxId) -> PathBuf {
        self.parent.join(format!("{}-{}", self.prefix, &id.0[..16]))
    }

    fn owner(&self) -> PathBuf {
        self.parent.join(format!("{}{OWNER}", self.prefix))
    }

    /// Makes the directory of a sandbox, open to every user of the pod.
    pub(super) fn make(&self, dir: &Path) -> Result<(), RuntimeError> {
        // Another runtime's last pod may take the parent away between any two steps.
        self.try_make(dir).or_else(|_| self.try_make(dir))
    }

    fn try_make(&self, dir: &Path) -> Result<(), RuntimeError> {
        make_private_dir(&self.parent)?;
        self.check_parent()?;
        match symlink(
            format!("{}:{}", self.namespace, self.state_dir.display()),
            self.owner(),
        ) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make link", &self.owner())(error));
            }
            Ok(()) | Err(_) => {}
        }
        fs::create_dir_all(dir).map_err(failed("make directory", dir))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o1777)).map_err(failed("set mode of", dir))
    }

    /// Everybody may make things in `/dev/shm`: what somebody else made under our name is not used.
    fn check_parent(&self) -> Result<(), RuntimeError> {
        let metadata = fs::symlink_metadata(&self.parent).map_err(failed("look at", &self.parent))?;
        let own = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
        if own && metadata.mode() & 0o022 == 0 {
            return Ok(());
        }
        let error = io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it belongs to somebody else: remove it",
        );
        Err(failed("use", &self.parent)(error))
    }

    /// Removes the directory of a sandbox, and with the last one all that was made for it.
    pub(super) fn remove(&self, dir: &Path) -> Result<(), RuntimeError> {
        remove_dir(dir)?;
        if self.names().iter().all(|name| !belongs(name, &self.prefix)) {
            remove_file(&self.owner())?;
        }
        fs::remove_dir(&self.parent).ok(); // others still have theirs in it
        Ok(())
    }

    /// Removes what no sandbox of this state directory has, and what belongs to state directories that are gone.
    pub(super) fn clean(&self, kept: &[&Path]) -> Result<(), RuntimeError> {
        let names = self.names();
        for name in names.iter().filter(|name| belongs(name, &self.prefix)) {
            let dir = self.parent.join(name);
            if !kept.contains(&dir.as_path()) {
                self.remove(&dir)?;
            }
        }
        for (owner, prefix) in names
            .iter()
            .filter_map(|name| Some((name, name.to_str()?.strip_suffix(OWNER)?)))
        {
            let owner = self.parent.join(owner);
            if self.is_gone(&owner) {
                for name in names.iter().filter(|name| belongs(name, prefix)) {
                    remove_dir(&self.parent.join(name))?;
                }
                remove_file(&owner)?;
            }
        }
        fs::remove_dir(&self.parent).ok(); // somebody has his in it
        Ok(())
    }

    /// The state directory an owner names would be seen from here, and isn't there.
    fn is_gone(&self, owner: &Path) -> bool {
        let named = fs::read_link(owner).unwrap_or_default();
        let Some(state_dir) = named
            .to_str()
            .and_then(|named| named.strip_prefix(&format!("{}:", self.namespace)))
        else {
            return false;
        };
        matches!(fs::symlink_metadata(state_dir), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    fn names(&self) -> Vec<OsString> {
        let entries = fs::read_dir(&self.parent).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).collect()
    }
}

fn belongs(name: &OsString, prefix: &str) -> bool {
    name.to_str()
        .and_then(|name| name.strip_prefix(prefix))
        .is_some_and(|rest| rest.starts_with('-'))
}

fn remove_file(path: &Path) -> Result<(), RuntimeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_directory_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let parent = root.path().join("shm");
        let shared = SharedMemory::below(&parent, root.path(), "here".into());
        let dir = shared.dir(&records::sandbox_id("a", 0));
        symlink("/", &parent).unwrap();
        assert!(shared.make(&dir).unwrap_err().to_string().starts_with("use "));
        fs::remove_file(&parent).unwrap();
        fs::create_dir(&parent).unwrap();
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(shared.make(&dir).unwrap_err().to_string().starts_with("use "));
    }

    #[test]
    fn directories_come_and_go_with_their_owners() {
        let root = tempfile::tempdir().unwrap();
        let (parent, one, two) = (
            root.path().join("shm"),
            root.path().join("one"),
            root.path().join("two"),
        );
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        let of = |state: &Path, namespace: &str| SharedMemory::below(&parent, state, namespace.to_owned());
        let (mine, other, far) = (
            of(&one, "here"),
            of(&two, "here"),
            of(&root.path().join("far"), "there"),
        );
        let id = |uid: &str| records::sandbox_id(uid, 0);
        let dirs = [
            mine.dir(&id("a")),
            mine.dir(&id("b")),
            other.dir(&id("a")),
            far.dir(&id("a")),
        ];
        far.make(&dirs[3]).unwrap();
        mine.make(&dirs[0]).unwrap();
        mine.make(&dirs[1]).unwrap();
        other.make(&dirs[2]).unwrap();
        fs::write(dirs[0].join("data"), "x").unwrap();
        let there = || dirs.each_ref().map(|dir| dir.is_dir());
        assert_eq!(
            fs::metadata(&dirs[0]).unwrap().permissions().mode() & 0o7777,
            0o1777
        );
        mine.clean(&[&dirs[0]]).unwrap();
        assert_eq!(
            there(),
            [true, false, true, true],
            "what no sandbox has goes, another's stays"
        );
        fs::remove_dir(&two).unwrap();
        mine.clean(&[&dirs[0]]).unwrap();
        assert_eq!(
            there(),
            [true, false, false, true],
            "what belongs to nobody goes, if that can be known"
        );
        far.remove(&dirs[3]).unwrap();
        assert_eq!(mine.names().len(), 2, "one directory and its owner");
        mine.remove(&dirs[0]).unwrap();
        assert!(!parent.exists());
        mine.clean(&[]).unwrap();
    }
}
