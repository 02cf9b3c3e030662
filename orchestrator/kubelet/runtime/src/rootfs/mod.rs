//! A container's root file system, put together in the mount namespace of the caller.
//!
//! Only the shim's helper calls this, after it has left the machine's mount namespace: nothing mounted here is ever
//! seen, or left behind, outside. All paths given to overlayfs are relative to the directory of unpacked layers,
//! because it takes no more than a page of options and gives `:` and `,` a meaning.

mod copy;
pub(crate) mod inside;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use moorline_mount::MountError;
use moorline_mount::mount::{BindOptions, clone_tree, mount};
use moorline_mount::mount_options::Attributes;
use moorline_mount::mountinfo;

use crate::image::store::plain_mark;
use crate::layout::ContainerDir;
use crate::records::RootSource;

/// What a container made of the machine's own root may write outside its volumes.
const HOST_SCRATCH: &str = "size=256m";

/// Directories of the machine that a container made of its root needs; on mounts of their own they are bound.
const HOST_DIRS: [&str; 10] = [
    "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt", "nix",
];

/// File systems that hold no files of the machine.
const VIRTUAL: [&str; 6] = ["proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2"];

/// Empty directories instead of the machine's: runtime state and people's files are no business of a container.
pub(crate) const HOST_SCRATCH_DIRS: [&str; 4] = ["/tmp", "/run", "/root", "/home"];

/// Why a root file system can't be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootfsError {
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Mount(#[from] MountError),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootfsError {
    let path = path.to_owned();
    move |source| RootfsError::Io { action, path, source }
}

/// Where lower directories are looked up: the image store's unpacked layers, two levels below the state directory.
pub(crate) const LAYERS: &str = "images/l";

/// Mounts the root file system at `dir.rootfs()`. The current directory must be [`LAYERS`] in the state directory
/// `root`.
pub(crate) fn assemble(
    root: &Path,
    dir: &ContainerDir,
    source: &RootSource,
    warnings: &mut Vec<String>,
) -> Result<(), RootfsError> {
    for path in [
        dir.rootfs(),
        dir.path.join("upper"),
        dir.path.join("work"),
        dir.path.join("scratch"),
    ] {
        fs::create_dir_all(&path).map_err(failed("make directory", &path))?;
    }
    match source {
        RootSource::Layers(layers) => merge_layers(root, dir, layers, warnings),
        RootSource::Host { .. } => overlay_host(root, dir),
    }
}

/// By overlayfs where that is possible, by copying otherwise.
fn merge_layers(
    root: &Path,
    dir: &ContainerDir,
    layers: &[PathBuf],
    warnings: &mut Vec<String>,
) -> Result<(), RootfsError> {
    let names: Vec<&str> = layers.iter().filter_map(|layer| layer.to_str()).collect();
    if names.iter().any(|name| Path::new(&plain_mark(name)).exists()) {
        warnings.push("the state directory can't hold overlayfs's whiteouts: layers are copied".to_owned());
    } else {
        let lower: Vec<&str> = names.into_iter().rev().collect();
        match overlay_layers(root, dir, &lower.join(":")) {
            Ok(()) => return Ok(()),
            Err(error) => warnings.push(format!("overlayfs can't be used, layers are copied: {error}")),
        }
    }
    let rootfs = dir.rootfs();
    copy::merge(layers, &rootfs).map_err(failed("copy layers to", &rootfs))
}

/// The upper directory is on disk; `volatile` spares the sync at the end that nobody needs. Where the state directory
/// can't hold an upper directory (it is on an overlay itself, say), memory has to.
fn overlay_layers(root: &Path, dir: &ContainerDir, lower: &str) -> Result<(), RootfsError> {
    let relative = relative_to(root, dir);
    let on_disk =
        overlay(dir, lower, &relative, &["volatile"]).or_else(|_| overlay(dir, lower, &relative, &[]));
    match on_disk {
        Ok(()) => Ok(()),
        Err(first) => {
            mount_scratch(dir)?;
            // The first error is the one that says why the usual way failed.
            Ok(overlay(dir, lower, &relative.join("scratch"), &[]).map_err(|_| first)?)
        }
    }
}

/// Overlayfs refuses an upper directory inside its lower one, so it is on a tmpfs, which is not part of the root file
/// system even where it is mounted in it.
fn overlay_host(root: &Path, dir: &ContainerDir) -> Result<(), RootfsError> {
    mount_scratch(dir)?;
    let relative = relative_to(root, dir).join("scratch");
    match overlay(dir, "/", &relative, &[]) {
        Ok(()) => bind_host_mounts(dir),
        Err(_) => host_without_overlay(dir),
    }
}

fn relative_to(root: &Path, dir: &ContainerDir) -> PathBuf {
    dir.path
        .strip_prefix(root)
        .map_or(dir.path.clone(), |relative| Path::new("../..").join(relative))
}

fn mount_scratch(dir: &ContainerDir) -> Result<(), RootfsError> {
    let scratch = dir.path.join("scratch");
    mount(
        "tmpfs",
        &scratch,
        "tmpfs",
        &[HOST_SCRATCH.to_owned(), "mode=0700".to_owned()],
    )?;
    for name in ["upper", "work"] {
        let path = scratch.join(name);
        fs::create_dir(&path).map_err(failed("make directory", &path))?;
    }
    let upper = scratch.join("upper");
    fs::set_permissions(&upper, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .map_err(failed("set mode of", &upper))
}

fn overlay(dir: &ContainerDir, lower: &str, writable: &Path, extra: &[&str]) -> Result<(), MountError> {
    let mut options = vec![
        format!("lowerdir={lower}"),
        format!("upperdir={}", writable.join("upper").display()),
        format!("workdir={}", writable.join("work").display()),
    ];
    options.extend(extra.iter().map(|option| (*option).to_owned()));
    mount("overlay", dir.rootfs(), "overlay", &options)
}

/// An overlay shows one file system; those mounted in it are bound, read-only.
fn bind_host_mounts(dir: &ContainerDir) -> Result<(), RootfsError> {
    for entry in mountinfo::read()? {
        let Ok(relative) = entry.mount_point.strip_prefix("/") else {
            continue;
        };
        let wanted = relative
            .components()
            .next()
            .is_some_and(|first| is_host_dir(first.as_os_str()));
        if wanted && !VIRTUAL.contains(&entry.fs_type.as_str()) {
            bind_read_only(&entry.mount_point, &dir.rootfs().join(relative))?;
        }
    }
    Ok(())
}

fn is_host_dir(name: &OsStr) -> bool {
    HOST_DIRS.iter().any(|dir| *dir == name)
}

/// Where the machine's root can't be a lower directory: a small root in memory with the directories bound read-only.
fn host_without_overlay(dir: &ContainerDir) -> Result<(), RootfsError> {
    let rootfs = dir.rootfs();
    mount(
        "tmpfs",
        &rootfs,
        "tmpfs",
        &[HOST_SCRATCH.to_owned(), "mode=0755".to_owned()],
    )?;
    for name in HOST_DIRS {
        let (from, to) = (Path::new("/").join(name), rootfs.join(name));
        let Ok(metadata) = fs::symlink_metadata(&from) else {
            continue;
        };
        if metadata.is_symlink() {
            let target = fs::read_link(&from).map_err(failed("read link", &from))?;
            symlink(target, &to).map_err(failed("make link", &to))?;
        } else if metadata.is_dir() {
            fs::create_dir(&to).map_err(failed("make directory", &to))?;
            bind_read_only(&from, &to)?;
        }
    }
    for name in ["proc", "sys", "dev", "tmp", "run", "root", "home", "var", "mnt"] {
        let path = rootfs.join(name);
        fs::create_dir_all(&path).map_err(failed("make directory", &path))?;
    }
    Ok(())
}

fn bind_read_only(from: &Path, to: &Path) -> Result<(), RootfsError> {
    let options = BindOptions {
        attributes: Attributes::NONE.read_only(),
        recursive: true,
    };
    Ok(clone_tree(from, options)?.attach(to)?)
}

#[cfg(test)]
mod tests {
    use moorline_mount::mount::{Propagation, set_propagation};

    use super::*;

    #[test]
    fn host_root_works_without_overlayfs() {
        const NAME: &str = "host_root_works_without_overlayfs";
        let state = tempfile::tempdir().unwrap();
        let dir = ContainerDir {
            path: state.path().join("c"),
        };
        fs::create_dir_all(dir.rootfs()).unwrap();
        // Namespaces belong to threads: what this one mounts goes with it.
        let seen = std::thread::spawn(move || {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_err() {
                return None;
            }
            set_propagation("/", Propagation::Private, true).unwrap();
            host_without_overlay(&dir).unwrap();
            let rootfs = dir.rootfs();
            let refused = fs::write(rootfs.join("usr/moorline-test"), "")
                .unwrap_err()
                .kind();
            fs::write(rootfs.join("tmp/own"), "").unwrap();
            Some((
                rootfs.join("usr/bin").is_dir(),
                rootfs.join("bin/sh").exists(),
                refused,
            ))
        });
        match seen.join().unwrap() {
            None => crate::testing::skipped(NAME, "needs the right to make mount namespaces"),
            Some(seen) => assert_eq!(seen, (true, true, io::ErrorKind::ReadOnlyFilesystem)),
        }
        assert_eq!(fs::read_dir(state.path().join("c/rootfs")).unwrap().count(), 0);
    }
}
