//! A pool to throw away: a filesystem in a sparse file, mounted in a temporary directory, and everything that a driver
//! leaves there undone again with this value, also after a failure.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use moorline_mount::{
    loop_device::{self, AttachOptions},
    mount, mountinfo,
};

use crate::machine;

/// A device whose last user has gone is taken away at once, or a moment later.
const DETACHED: Duration = Duration::from_secs(10);
const DETACH_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What a pool lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolFilesystem {
    /// xfs that can share blocks between files (reflink).
    Xfs,
    /// btrfs.
    Btrfs,
}

impl PoolFilesystem {
    /// The kernel's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// What this machine lacks for it.
    pub fn missing(self) -> Option<String> {
        let (tool, package) = match self {
            Self::Xfs => ("mkfs.xfs", "xfsprogs"),
            Self::Btrfs => ("mkfs.btrfs", "btrfs-progs"),
        };
        (!machine::has_tool(tool)).then(|| format!("{tool} is missing (Debian: {package})"))
    }

    fn make(self, image: &Path) -> anyhow::Result<()> {
        let (tool, flags): (_, &[&str]) = match self {
            Self::Xfs => ("mkfs.xfs", &["-q", "-m", "reflink=1"]),
            Self::Btrfs => ("mkfs.btrfs", &["-q"]),
        };
        let output = Command::new(tool)
            .args(flags)
            .arg("--")
            .arg(image)
            .env("PATH", machine::path_with_sbin())
            .output()
            .with_context(|| format!("start {tool}"))?;
        if !output.status.success() {
            bail!(
                "{tool} {}: {}",
                image.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }
}

/// A temporary directory with a mounted filesystem in it.
#[derive(Debug)]
pub struct ScratchPool {
    dir: Option<tempfile::TempDir>,
    root: PathBuf,
}

impl ScratchPool {
    /// Makes one whose filesystem has this size, which takes real space only as it fills.
    ///
    /// # Errors
    /// When the filesystem can't be made or mounted; nothing is left then.
    pub fn make(filesystem: PoolFilesystem, size_bytes: u64, mount_options: &[&str]) -> anyhow::Result<Self> {
        Self::make_in(&std::env::temp_dir(), filesystem, size_bytes, mount_options)
    }

    /// One that is only a directory, on the filesystem of its parent.
    ///
    /// # Errors
    /// When no directory can be made there.
    pub fn plain(parent: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("moorline-pool-")
            .tempdir_in(parent)
            .with_context(|| format!("make a temporary directory in {}", parent.display()))?;
        let root = dir
            .path()
            .canonicalize()
            .context("resolve the temporary directory")?;
        let pool = Self { dir: Some(dir), root };
        std::fs::create_dir(pool.path()).context("make the pool's directory")?;
        Ok(pool)
    }

    /// As [`ScratchPool::make`], with the image in a directory below `parent`.
    ///
    /// # Errors
    /// As there.
    pub fn make_in(
        parent: &Path,
        filesystem: PoolFilesystem,
        size_bytes: u64,
        mount_options: &[&str],
    ) -> anyhow::Result<Self> {
        // From here on dropping this value cleans up.
        let pool = Self::plain(parent)?;
        let image = pool.root.join("image");
        let file = File::create_new(&image).context("make the image")?;
        file.set_len(size_bytes).context("size the image")?;
        drop(file);
        filesystem.make(&image)?;
        // The mount is the device's user; the device goes with it.
        let options = AttachOptions {
            autoclear: true,
            ..AttachOptions::default()
        };
        let device = loop_device::attach(&image, options)?;
        let mount_options: Vec<String> = mount_options.iter().map(|option| (*option).to_owned()).collect();
        mount::mount(device.path(), pool.path(), filesystem.as_str(), &mount_options)?;
        Ok(pool)
    }

    /// The temporary directory around the pool, for sockets, logs and target paths.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the filesystem is mounted.
    pub fn path(&self) -> PathBuf {
        self.root.join("pool")
    }

    /// What the machine holds below the directory besides the pool itself: nothing, once a driver has undone its work.
    pub fn left_behind(&self) -> Vec<String> {
        let own = [
            format!("mount {}", self.path().display()),
            loop_device::find_by_backing_file(self.root.join("image"))
                .ok()
                .flatten()
                .map(|device| format!("loop device {}", device.path().display()))
                .unwrap_or_default(),
        ];
        let mut held = machine::held_below(&self.root);
        held.retain(|what| !own.contains(what));
        held.into_iter().collect()
    }

    /// Undoes everything and says what could not be undone.
    ///
    /// # Errors
    /// At the first thing that could not.
    pub fn remove(mut self) -> anyhow::Result<()> {
        self.undo()
    }

    fn undo(&mut self) -> anyhow::Result<()> {
        let Some(dir) = self.dir.take() else {
            return Ok(());
        };
        let pool = self.path();
        let mounts = mountinfo::read()?;
        for entry in mountinfo::at_or_below(&mounts, &self.root) {
            if entry.mount_point != pool {
                unmount(&entry.mount_point)?;
            }
        }
        detach_all_below(&pool)?;
        if mount::is_mount_point(&pool)? {
            unmount(&pool)?;
        }
        let image = self.root.join("image");
        if image.exists() && !loop_device::wait_until_detached(&image, DETACHED)? {
            bail!("the loop device of {} is still there", image.display());
        }
        dir.close().context("remove the temporary directory")
    }
}

/// Loop devices of files below `pool`, which keep its filesystem busy.
fn detach_all_below(pool: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + DETACHED;
    loop {
        let mut devices = loop_device::list()?;
        devices.retain(|device| device.backing_file.starts_with(pool));
        if devices.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("loop devices are still in use: {devices:?}");
        }
        for device in devices {
            match loop_device::detach(&device.device) {
                Err(error) if error.raw_os_error() != Some(nix::libc::ENXIO) => return Err(error.into()),
                _ => {}
            }
        }
        std::thread::sleep(DETACH_POLL_INTERVAL);
    }
}

fn unmount(mount_point: &Path) -> anyhow::Result<()> {
    match mount::unmount(mount_point) {
        Ok(()) => Ok(()),
        Err(error) if error.is_not_mounted() || error.is_not_found() => Ok(()),
        Err(error) => {
            // It leaves the tree all the same, so that nothing of the machine's own is in the way later.
            mount::unmount_lazy(mount_point)?;
            Err(error.into())
        }
    }
}

impl Drop for ScratchPool {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            eprintln!("clean up {}: {error:#}", self.root.display());
        }
    }
}
