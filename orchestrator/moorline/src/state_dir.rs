//! The directory that holds everything of a cluster: where it is, its layout, and who may use it now.
//!
//! ```text
//! lock                 held with flock by the process that runs the cluster; contains its pid
//! admin.kubeconfig     0600
//! pki/                 certificate authority and keys
//! store/moorline.redb  every object
//! kubelet/             pods, plugins, plugins_registry: the layout of /var/lib/kubelet
//! containers/          shims, bundles, images
//! logs/pods/           container logs in CRI format
//! pool/                the reference driver's volumes
//! ```

use std::{
    env, fs,
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use nix::poll::poll;
use rustix::fs::{FlockOperation, flock};

use crate::{args::StateDirArg, privilege};

/// The longest state directory: the driver's socket below it has to fit into a unix socket address (107 bytes).
const LONGEST_PATH: usize = 107 - "/kubelet/plugins_registry/local.csi.moorline.dev-reg.sock".len();

/// The lock of a dead process is waited for this often and this long.
const LOCK_TRIES: usize = 100;
const LOCK_RETRY_MS: u16 = 20;

/// Paths below a state directory. Knowing them needs no lock.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// The directory that the flags and the environment name; absolute, not made yet.
    pub fn resolve(arg: &StateDirArg) -> anyhow::Result<Self> {
        let root = match &arg.state_dir {
            Some(dir) => dir.clone(),
            None => default_dir(privilege::is_root(), |name| env::var_os(name).map(PathBuf::from))?,
        };
        Self::at(&root)
    }

    /// A state directory at `root`.
    pub fn at(root: &Path) -> anyhow::Result<Self> {
        let root = std::path::absolute(root).with_context(|| format!("make {} absolute", root.display()))?;
        let length = root.as_os_str().len();
        if length > LONGEST_PATH {
            bail!(
                "state directory {} has {length} bytes, at most {LONGEST_PATH} are possible because unix sockets live below \
                 it: choose a shorter path with --state-dir",
                root.display()
            );
        }
        if root.to_str().is_none() {
            bail!(
                "state directory {} is not UTF-8: choose another one with --state-dir",
                root.display()
            );
        }
        Ok(Self { root })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The admin's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("admin.kubeconfig")
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// The file of the embedded store.
    pub fn store_file(&self) -> PathBuf {
        self.root.join("store/moorline.redb")
    }

    /// The kubelet's root.
    pub fn kubelet(&self) -> PathBuf {
        self.root.join("kubelet")
    }

    /// The embedded runtime's state.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Where the running cluster answers `moorline image`.
    pub fn image_socket(&self) -> PathBuf {
        self.root.join("images.sock")
    }

    /// Container logs.
    pub fn pod_logs(&self) -> PathBuf {
        self.root.join("logs/pods")
    }

    /// The reference driver's volumes.
    pub fn pool(&self) -> PathBuf {
        self.root.join("pool")
    }

    /// The directory of a driver's socket.
    pub fn plugin(&self, driver_name: &str) -> PathBuf {
        self.kubelet().join("plugins").join(driver_name)
    }

    /// Makes the directory, private to its owner, and takes it for this process.
    ///
    /// # Errors
    /// When another process holds it, with that process's id; when it can't be made.
    pub fn lock(&self) -> anyhow::Result<StateLock> {
        make_private(&self.root)?;
        for dir in [self.pki(), self.root.join("store")] {
            make_private(&dir)?;
        }
        self.lock_existing()
    }

    /// Takes an existing directory for this process.
    pub fn lock_existing(&self) -> anyhow::Result<StateLock> {
        let path = self.root.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        take(&mut file, &path, self.root())?;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .with_context(|| format!("empty {}", path.display()))?;
        write!(file, "{}", std::process::id()).with_context(|| format!("write {}", path.display()))?;
        Ok(StateLock { _file: file })
    }
}

/// Takes the lock, or says which process holds it.
///
/// A process that was killed while it started a child leaves the lock with that child for a moment, until the child has
/// executed its program; so the lock of a dead process is waited for, shortly.
fn take(file: &mut File, path: &Path, root: &Path) -> anyhow::Result<()> {
    for _ in 0..LOCK_TRIES {
        match flock(&*file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(anyhow!(error).context(format!("lock {}", path.display()))),
        }
        if holder(file, path)?.is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists()) {
            break;
        }
        // Waits without a descriptor to wait for.
        poll(&mut [], LOCK_RETRY_MS).ok();
    }
    let holder = holder(file, path)?.map_or_else(|| "another process".into(), |pid| format!("process {pid}"));
    bail!(
        "state directory {} is in use by {holder}: stop it first, or choose another one with --state-dir",
        root.display()
    )
}

/// The process that wrote its id into the lock file last.
fn holder(file: &mut File, path: &Path) -> anyhow::Result<Option<u32>> {
    let mut text = String::new();
    file.rewind()
        .and_then(|()| file.read_to_string(&mut text))
        .with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().parse().ok())
}

/// Held while a process uses a state directory; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

fn default_dir(is_root: bool, var: impl Fn(&str) -> Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if is_root {
        return Ok(PathBuf::from("/var/lib/moorline"));
    }
    // The XDG rules: a relative path in the variable is to be ignored.
    if let Some(dir) = var("XDG_STATE_HOME").filter(|dir| dir.is_absolute()) {
        return Ok(dir.join("moorline"));
    }
    match var("HOME").filter(|dir| dir.is_absolute()) {
        Some(home) => Ok(home.join(".local/state/moorline")),
        None => bail!("neither XDG_STATE_HOME nor HOME names a directory: give one with --state-dir"),
    }
}

fn make_private(dir: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("make directory {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_follows_user_and_environment() {
        let none = |_: &str| None;
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/u"));
        let xdg = |name: &str| (name == "XDG_STATE_HOME").then(|| PathBuf::from("/x"));
        let relative = |name: &str| Some(PathBuf::from(if name == "HOME" { "/home/u" } else { "x" }));
        assert_eq!(default_dir(true, none).unwrap(), Path::new("/var/lib/moorline"));
        assert_eq!(
            default_dir(false, home).unwrap(),
            Path::new("/home/u/.local/state/moorline")
        );
        assert_eq!(default_dir(false, xdg).unwrap(), Path::new("/x/moorline"));
        assert_eq!(
            default_dir(false, relative).unwrap(),
            Path::new("/home/u/.local/state/moorline")
        );
        assert!(
            default_dir(false, none)
                .unwrap_err()
                .to_string()
                .contains("--state-dir")
        );
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused_before_anything_is_made() {
        let error = StateDir::at(&Path::new("/").join("x".repeat(80)))
            .unwrap_err()
            .to_string();
        assert!(error.contains("shorter path"), "{error}");
    }

    #[test]
    fn a_second_user_is_refused_with_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(&dir.path().join("s")).unwrap();
        let held = state.lock().unwrap();
        let error = state.lock().unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(held);
        state.lock().unwrap();
    }
}
