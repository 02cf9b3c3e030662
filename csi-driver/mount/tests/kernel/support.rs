//! What the root tests share: who may run, and a directory that cleans up after itself, also after a panic.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use moorline_mount::{
    filesystem::{self, FsType},
    loop_device::{self, AttachOptions},
    mount, mountinfo, tool,
};

/// Says on the real stderr, past the test harness's capture, that `test` did not run.
pub(crate) fn skipped(test: &str, reason: &str) {
    writeln!(std::io::stderr(), "skipped: {test}: {reason}").unwrap();
}

/// Says why `test` can't run here, if it can't: not root, or no right to mount, or a tool missing.
pub(crate) fn cannot_run(test: &str, tools: &[&str]) -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        Some("needs root".to_owned())
    } else if let Some(missing) = tools.iter().find(|name| !tool::is_installed(name)) {
        Some(format!("{missing} is not installed"))
    } else if !Path::new("/dev/loop-control").exists() {
        Some("no loop devices".to_owned())
    } else {
        None
    };
    if let Some(reason) = &reason {
        skipped(test, reason);
    }
    reason.is_some()
}

/// A temporary directory; at its end everything mounted below is unmounted and its loop devices are detached.
pub(crate) struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Scratch {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn sparse_file(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.path(name);
        std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        path
    }

    /// A new filesystem on a loop device, mounted at `name`; the device goes with the mount.
    pub(crate) fn filesystem(&self, name: &str, fs_type: FsType, options: &[&str]) -> PathBuf {
        let size = fs_type.size_min_bytes().max(256 << 20);
        let image = self.sparse_file(&format!("{name}.img"), size);
        filesystem::make(&image, fs_type).unwrap();
        self.mount(name, fs_type, options)
    }

    /// Mounts the image of a filesystem made before at `name`.
    pub(crate) fn mount(&self, name: &str, fs_type: FsType, options: &[&str]) -> PathBuf {
        let options: Vec<_> = options.iter().map(|word| (*word).to_owned()).collect();
        let target = self.directory(name);
        let how = AttachOptions {
            autoclear: true,
            ..AttachOptions::default()
        };
        let device = loop_device::attach(self.path(&format!("{name}.img")), how).unwrap();
        mount::mount(device.path(), &target, fs_type.as_str(), &options).unwrap();
        target
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A device whose file lies on a mount below holds that mount.
        self.detach_all();
        // On a busy machine a process that another test is starting may hold our files longer than unmounting waits.
        let unmount = || mount::unmount_tree(self.dir.path()).map(drop);
        let unmounted = (0..50).find_map(|_| unmount().ok());
        if unmounted.is_none() {
            // Nothing is left behind even so, but whoever keeps a mount busy hears of it.
            let entries = mountinfo::read().unwrap_or_default();
            for entry in mountinfo::at_or_below(&entries, self.dir.path()) {
                mount::unmount_lazy(&entry.mount_point).ok(); // One may have taken another along.
            }
        }
        self.detach_all();
        assert!(
            unmounted.is_some() || std::thread::panicking(),
            "the test keeps a mount busy in {}",
            self.dir.path().display()
        );
    }
}

impl Scratch {
    fn detach_all(&self) {
        for entry in loop_device::list().unwrap_or_default() {
            if entry.backing_file.starts_with(self.dir.path()) {
                loop_device::detach(&entry.device).ok(); // Autoclear may have been faster.
            }
        }
    }
}
