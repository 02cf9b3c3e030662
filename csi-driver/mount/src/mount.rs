//! Mounting, binding, unmounting and propagation.
//!
//! Mounts are built detached and then moved into place (`fsopen`/`open_tree`, `mount_setattr`, `move_mount`), so that
//! a read-only mount is never visible writable, not even when the process dies half-way. Where a parameter is too long
//! for that interface, mount(2) is used.

use std::{
    ffi::{CString, OsStr},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    },
};

use crate::{
    MountError,
    mount_options::{Attributes, MountOptions},
    mountinfo,
    tool::{monotonic, pause},
};

mod attributes;
mod propagation;

use attributes::set_attributes_of;
pub use attributes::{reconfigure, remount, set_attributes};
pub use propagation::{
    Propagation, ensure_mount_point, make_private, make_shared, make_slave, set_propagation,
};

/// How long a mount may be busy before it is called busy.
const BUSY_PATIENCE: Duration = Duration::from_millis(300);
const BUSY_POLL_INTERVAL: Duration = Duration::from_millis(2);
/// fsconfig(2) takes no string longer than this.
const FSCONFIG_VALUE_BYTES_MAX: usize = 255;

/// How to bind.
#[derive(Clone, Copy, Debug)]
pub struct BindOptions {
    /// Attributes of the new mount; what is not named is inherited from the source.
    pub attributes: Attributes,
    /// Bind the mounts below the source as well.
    pub recursive: bool,
}

impl Default for BindOptions {
    fn default() -> Self {
        BindOptions {
            attributes: Attributes::NONE,
            recursive: false,
        }
    }
}

/// A mount that exists but appears nowhere yet. Dropping it undoes it.
#[derive(Debug)]
pub struct DetachedMount {
    pub(crate) tree: OwnedFd,
}

impl DetachedMount {
    /// Makes the mount appear at `target`, whose last element is not followed if it is a symlink.
    ///
    /// # Errors
    /// When `target` is not there, or not of the right type (directory or file).
    pub fn attach(self, target: impl AsRef<Path>) -> Result<(), MountError> {
        let target = target.as_ref();
        rustix::mount::move_mount(
            &self.tree,
            "",
            CWD,
            target,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(|errno| MountError::call("attach a mount at", target, errno))
    }
}

/// Mounts a filesystem. `source` is a device, or a word the filesystem understands (`tmpfs`, `overlay`).
///
/// # Errors
/// [`MountError::Refused`] carries the kernel's own explanation where it gave one.
pub fn mount(
    source: impl AsRef<OsStr>,
    target: impl AsRef<Path>,
    fs_type: &str,
    options: &[String],
) -> Result<(), MountError> {
    let (source, target) = (source.as_ref(), target.as_ref());
    let options = MountOptions::parse(options)?;
    let is_long = |value: &Option<String>| value.as_ref().is_some_and(|v| v.len() > FSCONFIG_VALUE_BYTES_MAX);
    if source.len() > FSCONFIG_VALUE_BYTES_MAX || options.parameters.iter().any(|(_, value)| is_long(value)) {
        return mount_with_one_call(source, target, fs_type, &options);
    }
    match new_filesystem(source, target, fs_type, &options) {
        Err(error) if error.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => {
            mount_with_one_call(source, target, fs_type, &options)
        }
        detached => detached?.attach(target),
    }
}

/// Makes the mount of a filesystem without a place to appear at; `target` is only for the error's text.
///
/// # Errors
/// As [`mount`].
pub fn new_filesystem(
    source: &OsStr,
    target: &Path,
    fs_type: &str,
    options: &MountOptions,
) -> Result<DetachedMount, MountError> {
    let mut context = None;
    let made = (|| {
        let context = context.insert(rustix::mount::fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC)?);
        rustix::mount::fsconfig_set_string(&*context, "source", source)?;
        // Read-only is told to the filesystem as well, so that it doesn't replay a journal onto a read-only device.
        if options.attributes.is_read_only() {
            rustix::mount::fsconfig_set_flag(&*context, "ro")?;
        }
        for (key, value) in &options.parameters {
            match value {
                Some(value) => rustix::mount::fsconfig_set_string(&*context, key, value.as_str())?,
                None => rustix::mount::fsconfig_set_flag(&*context, key)?,
            }
        }
        rustix::mount::fsconfig_create(&*context)?;
        rustix::mount::fsmount(&*context, FsMountFlags::FSMOUNT_CLOEXEC, options.attributes.set)
    })();
    made.map(|tree| DetachedMount { tree })
        .map_err(|errno: Errno| MountError::Refused {
            source_name: source.to_string_lossy().into_owned(),
            target: target.to_owned(),
            fs_type: fs_type.to_owned(),
            detail: context
                .as_ref()
                .and_then(kernel_messages)
                .unwrap_or_else(|| errno.to_string()),
            source: errno.into(),
        })
}

/// What the kernel wrote about a failed filesystem context: lines such as `e ext4: Unknown parameter 'x'`.
fn kernel_messages(context: &OwnedFd) -> Option<String> {
    let mut buffer = [0u8; 512];
    let mut lines = Vec::new();
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..length]);
        let line = line.trim_start_matches(['e', 'w', 'i']).trim();
        if length == 0 {
            break;
        }
        lines.push(line.to_owned());
    }
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn mount_with_one_call(
    source: &OsStr,
    target: &Path,
    fs_type: &str,
    options: &MountOptions,
) -> Result<(), MountError> {
    let data = CString::new(options.data()).map_err(|_| MountError::BadOption {
        option: options.data(),
        why: "has a nul byte",
    })?;
    let flags = mount_flags(options.attributes.set);
    rustix::mount::mount(source, target, fs_type, flags, data.as_c_str()).map_err(|errno| {
        MountError::Refused {
            source_name: source.to_string_lossy().into_owned(),
            target: target.to_owned(),
            fs_type: fs_type.to_owned(),
            detail: errno.to_string(),
            source: errno.into(),
        }
    })
}

fn mount_flags(attributes: MountAttrFlags) -> MountFlags {
    let pairs = [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
        (MountAttrFlags::MOUNT_ATTR_NODEV, MountFlags::NODEV),
        (MountAttrFlags::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
        (MountAttrFlags::MOUNT_ATTR_NOATIME, MountFlags::NOATIME),
        (MountAttrFlags::MOUNT_ATTR_STRICTATIME, MountFlags::STRICTATIME),
        (MountAttrFlags::MOUNT_ATTR_NODIRATIME, MountFlags::NODIRATIME),
        (MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
    ];
    let wanted = |(attribute, _): &&(MountAttrFlags, MountFlags)| attributes.contains(*attribute);
    pairs
        .iter()
        .filter(wanted)
        .fold(MountFlags::empty(), |flags, (_, flag)| flags | *flag)
}

/// Makes `source` (a directory or a file) appear at `target` as well. Mounts below `source` are left out.
///
/// # Errors
/// When one of the two is missing, or they are not of one type.
pub fn bind(source: impl AsRef<Path>, target: impl AsRef<Path>, read_only: bool) -> Result<(), MountError> {
    let attributes = if read_only {
        Attributes::NONE.read_only()
    } else {
        Attributes::NONE
    };
    let options = BindOptions {
        attributes,
        recursive: false,
    };
    clone_tree(source, options)?.attach(target)
}

/// As [`bind`], with attributes of choice, and with the mounts below when asked for.
///
/// # Errors
/// As [`bind`].
pub fn bind_with(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    options: BindOptions,
) -> Result<(), MountError> {
    clone_tree(source, options)?.attach(target)
}

/// A detached copy of the mount at or around `source`, showing `source`.
///
/// # Errors
/// When `source` is missing or the caller may not mount.
pub fn clone_tree(source: impl AsRef<Path>, options: BindOptions) -> Result<DetachedMount, MountError> {
    let source = source.as_ref();
    clone_tree_at(&CWD, source.as_os_str(), source, OpenTreeFlags::empty(), options)
}

/// As [`clone_tree`], for `name` in an opened directory; `path` is for the error's text.
pub(crate) fn clone_tree_at(
    directory: &impl AsFd,
    name: &OsStr,
    path: &Path,
    how: OpenTreeFlags,
    options: BindOptions,
) -> Result<DetachedMount, MountError> {
    let mut flags = how | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if options.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = rustix::mount::open_tree(directory, name, flags)
        .map_err(|errno| MountError::call("clone the mount of", path, errno))?;
    if options.attributes != Attributes::NONE {
        set_attributes_of(&tree, options.attributes, options.recursive)
            .map_err(|errno| MountError::call("set attributes on a bind of", path, errno))?;
    }
    Ok(DetachedMount { tree })
}

/// Takes away the topmost mount at `target`, whose last element is not followed if it is a symlink.
///
/// # Errors
/// `is_not_mounted` when nothing is mounted there, `is_busy` when it is in use, `is_not_found` when there is no such
/// path.
pub fn unmount(target: impl AsRef<Path>) -> Result<(), MountError> {
    let target = target.as_ref();
    unmount_patiently(target).map_err(|errno| MountError::call("unmount", target, errno))
}

/// Unmounts, waiting a little while it is busy. A process that is being started by another thread has copies of all our
/// descriptors until its exec, and one of them may be the descriptor by which the mount was made.
pub(crate) fn unmount_patiently(target: &Path) -> Result<(), Errno> {
    let limit = monotonic() + BUSY_PATIENCE;
    loop {
        match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
            // Nothing to wait on but time: nobody tells when a descriptor is closed elsewhere.
            Err(Errno::BUSY) if monotonic() < limit => pause(BUSY_POLL_INTERVAL),
            result => return result,
        }
    }
}

/// As [`unmount`], but at once: the mount leaves the tree now and ends when its last user is gone.
///
/// # Errors
/// As [`unmount`], but never busy.
pub fn unmount_lazy(target: impl AsRef<Path>) -> Result<(), MountError> {
    let target = target.as_ref();
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
        .map_err(|errno| MountError::call("lazily unmount", target, errno))
}

/// Is something mounted at exactly this path? A path that is not there, or is a symlink, is no mount point.
///
/// # Errors
/// When the path can't be looked at, for example because a network filesystem below it does not answer.
pub fn is_mount_point(path: impl AsRef<Path>) -> Result<bool, MountError> {
    let path = path.as_ref();
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let seen = match statx(CWD, path, flags, StatxFlags::TYPE) {
        Ok(seen) => seen,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
        Err(errno) => return Err(MountError::call("look at", path, errno)),
    };
    if seen.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    let path = std::path::absolute(path).map_err(|source| MountError::call("look at", path, source))?;
    Ok(mountinfo::read()?.iter().any(|entry| entry.mount_point == path))
}

/// Unmounts everything at `path` and below, deepest first; returns what was unmounted.
///
/// # Errors
/// At the first mount that can't be unmounted; those before it are gone.
pub fn unmount_tree(path: impl AsRef<Path>) -> Result<Vec<PathBuf>, MountError> {
    let entries = mountinfo::read()?;
    let mut unmounted = Vec::new();
    for entry in mountinfo::at_or_below(&entries, path.as_ref()) {
        match unmount(&entry.mount_point) {
            Ok(()) => unmounted.push(entry.mount_point.clone()),
            // Propagation has taken it along with another one.
            Err(error) if error.is_not_mounted() || error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(unmounted)
}

/// The nul byte is the one byte no path may have; every other sequence is somebody's file name.
pub(crate) fn has_nul(path: &Path) -> bool {
    path.as_os_str().as_bytes().contains(&0)
}
