//! Loop devices: a file as a block device. What exists is read from the kernel each time, never remembered.

use std::{
    fs::{self, File},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::libc;
use rustix::{fs::FlockOperation, io::Errno};

use crate::{
    MountError,
    tool::{monotonic, pause},
};

mod ioctl;
mod tuning;

pub use tuning::{can_bypass_cache, has_discard, is_direct_io, set_capacity, set_direct_io};

const CONTROL: &str = "/dev/loop-control";
const SYS_BLOCK: &str = "/sys/block";
const LOOP_MAJOR: u32 = 7;
/// Somebody else may take the free device before us, but not again and again.
const ATTACH_ATTEMPTS_MAX: u32 = 64;
const DETACH_POLL_INTERVAL: Duration = Duration::from_millis(2);

/// How to attach.
#[derive(Clone, Copy, Debug)]
pub struct AttachOptions {
    /// Refuse writes.
    pub read_only: bool,
    /// Let the kernel detach the device when its last user closes it. A filesystem mounted from it is a user, a bind
    /// mount of the device node is not.
    pub autoclear: bool,
    /// Bypass the page cache of the backing file.
    pub direct_io: bool,
    /// Logical block size in bytes: 512 to the page size, a power of two.
    pub block_size: u32,
}

impl Default for AttachOptions {
    fn default() -> Self {
        AttachOptions {
            read_only: false,
            autoclear: false,
            direct_io: false,
            block_size: 512,
        }
    }
}

/// A loop device held open: with `autoclear` it stays at least as long as this value.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    file: File,
}

impl LoopDevice {
    /// Its node, such as `/dev/loop7`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Major and minor number: `st_dev` of a filesystem on it, `st_rdev` of its node.
    ///
    /// # Errors
    /// When the node can't be looked at.
    pub fn number(&self) -> Result<(u32, u32), MountError> {
        let seen = self
            .file
            .metadata()
            .map_err(|source| MountError::call("look at", &self.path, source))?;
        Ok((rustix::fs::major(seen.rdev()), rustix::fs::minor(seen.rdev())))
    }

    /// Is `file` what is behind it? One that is not attached has nothing behind it.
    ///
    /// # Errors
    /// When `file` can't be looked at.
    pub fn stands_for(&self, file: impl AsRef<Path>) -> Result<bool, MountError> {
        let file = file.as_ref();
        let seen = fs::metadata(file).map_err(|source| MountError::call("look at", file, source))?;
        // Not attached, or detached while we looked: then it stands for nothing.
        let info = ioctl::status(&self.file).ok();
        Ok(info
            .is_some_and(|info| info.lo_device == kernel_device(seen.dev()) && info.lo_inode == seen.ino()))
    }

    /// Does it refuse writes?
    ///
    /// # Errors
    /// When it has been detached meanwhile.
    pub fn is_read_only(&self) -> Result<bool, MountError> {
        let info = ioctl::status(&self.file).map_err(|source| self.error("read the status of", source))?;
        Ok(info.lo_flags & ioctl::FLAG_READ_ONLY != 0)
    }

    /// From now on the kernel detaches the device when its last user closes it.
    ///
    /// # Errors
    /// When it has been detached meanwhile.
    pub fn set_autoclear(&self, on: bool) -> Result<(), MountError> {
        let mut info =
            ioctl::status(&self.file).map_err(|source| self.error("read the status of", source))?;
        if on {
            info.lo_flags |= ioctl::FLAG_AUTOCLEAR;
        } else {
            info.lo_flags &= !ioctl::FLAG_AUTOCLEAR;
        }
        ioctl::set_status(&self.file, &info).map_err(|source| self.error("set the flags of", source))
    }

    fn error(&self, action: &'static str, source: io::Error) -> MountError {
        MountError::call(action, &self.path, source)
    }
}

/// A loop device that is in use, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopEntry {
    /// Its node, such as `/dev/loop7`.
    pub device: PathBuf,
    /// The file behind it, by the name it has now; ends in ` (deleted)` when it has none any more.
    pub backing_file: PathBuf,
}

/// Attaches `file` to a free loop device.
///
/// # Errors
/// When there is no loop support, no right to use it, or the file can't be opened.
pub fn attach(file: impl AsRef<Path>, options: AttachOptions) -> Result<LoopDevice, MountError> {
    let file = file.as_ref();
    let backing = File::options()
        .read(true)
        .write(!options.read_only)
        .custom_flags(libc::O_CLOEXEC)
        .open(file)
        .map_err(|source| MountError::call("open", file, source))?;
    let control = open_device(Path::new(CONTROL))?;
    let config = ioctl::config(
        &backing,
        file.file_name().map_or(b"", |name| name.as_bytes()),
        options,
    );
    let mut last = None;
    for _ in 0..ATTACH_ATTEMPTS_MAX {
        let (path, device) = reserve(&control)?;
        match ioctl::configure(&device, &config) {
            Ok(()) => {
                unlock(&device);
                return Ok(LoopDevice { path, file: device });
            }
            Err(source) if source.raw_os_error() == Some(libc::EBUSY) => last = Some((path, source)),
            Err(source) => return Err(MountError::call("attach a file to", path, source)),
        }
    }
    let (path, source) = last.unwrap_or_else(|| (CONTROL.into(), Errno::BUSY.into()));
    Err(MountError::call("attach a file to", path, source))
}

/// A free device that nobody else who uses this function is about to take. The kernel tells all who ask at once the same
/// free device, and attaching takes it long: whoever finds it locked by another one gets a new device instead of
/// waiting.
fn reserve(control: &File) -> Result<(PathBuf, File), MountError> {
    let ask = |action: &'static str, answer: io::Result<i32>| {
        let number = answer.map_err(|source| MountError::call(action, CONTROL, source))?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        open_device(&path).map(|device| (path, device))
    };
    let (path, device) = ask("ask for a free loop device of", ioctl::free_device(control))?;
    match rustix::fs::flock(&device, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok((path, device)),
        Err(Errno::WOULDBLOCK) => ask("ask for a new loop device of", ioctl::new_device(control)),
        Err(errno) => Err(MountError::call("lock", path, errno)),
    }
}

/// The lock is for choosing only; a device in use is locked by whom it concerns.
fn unlock(device: &File) {
    rustix::fs::flock(device, FlockOperation::Unlock).ok(); // Closing the descriptor unlocks at the latest.
}

fn open_device(path: &Path) -> Result<File, MountError> {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path)
        .map_err(|source| MountError::call("open", path, source))
}

/// Opens a loop device that is attached already.
///
/// # Errors
/// When there is no such device.
pub fn open(device: impl AsRef<Path>) -> Result<LoopDevice, MountError> {
    let path = device.as_ref().to_owned();
    Ok(LoopDevice {
        file: open_device(&path)?,
        path,
    })
}

/// Opens the loop device with this major and minor number; `None` when the number is no loop device's or there is none.
///
/// # Errors
/// When it may not be opened.
pub fn open_number((major, minor): (u32, u32)) -> Result<Option<LoopDevice>, MountError> {
    if major != LOOP_MAJOR {
        return Ok(None);
    }
    match open(format!("/dev/loop{minor}")) {
        Ok(device) => Ok(Some(device)),
        Err(error) if error.is_not_found() || error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Detaches a device. If somebody has it open, the kernel detaches it when the last one closes it.
/// One that is not attached is fine.
///
/// # Errors
/// When there is no such device or no right to it.
pub fn detach(device: impl AsRef<Path>) -> Result<(), MountError> {
    let path = device.as_ref();
    let opened = open_device(path)?;
    match ioctl::clear(&opened) {
        Err(source) if source.raw_os_error() != Some(libc::ENXIO) => {
            Err(MountError::call("detach", path, source))
        }
        _ => Ok(()),
    }
}

/// All loop devices in use.
///
/// # Errors
/// When sysfs is not there.
pub fn list() -> Result<Vec<LoopEntry>, MountError> {
    let entries = fs::read_dir(SYS_BLOCK).map_err(|source| MountError::call("list", SYS_BLOCK, source))?;
    let mut found = Vec::new();
    for entry in entries {
        let name = entry
            .map_err(|source| MountError::call("list", SYS_BLOCK, source))?
            .file_name();
        if !name.as_bytes().starts_with(b"loop") {
            continue;
        }
        let attribute = Path::new(SYS_BLOCK).join(&name).join("loop/backing_file");
        match fs::read(&attribute) {
            Ok(bytes) => found.push(LoopEntry {
                device: Path::new("/dev").join(&name),
                backing_file: path_of_line(&bytes),
            }),
            // Not attached, or detached while we looked.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOENT | libc::ENXIO | libc::ENODEV)
                ) => {}
            Err(source) => return Err(MountError::call("read", attribute, source)),
        }
    }
    Ok(found)
}

fn path_of_line(bytes: &[u8]) -> PathBuf {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    PathBuf::from(std::ffi::OsStr::from_bytes(line))
}

/// The devices that stand for `file`: compared by the last two elements of its path first, so that few devices are
/// opened (an open device can't go away), then by filesystem and inode. Neither another way to the file nor another
/// file in its place misleads.
///
/// # Errors
/// When `file` can't be looked at.
pub fn find_all_by_backing_file(file: impl AsRef<Path>) -> Result<Vec<LoopDevice>, MountError> {
    let file = file.as_ref();
    let mut found = Vec::new();
    for entry in list()? {
        if !end_alike(&entry.backing_file, file) {
            continue;
        }
        let device = match open(&entry.device) {
            Ok(device) => device,
            Err(error) if error.is_not_found() || error.raw_os_error() == Some(libc::ENXIO) => continue,
            Err(error) => return Err(error),
        };
        if device.stands_for(file)? {
            found.push(device);
        }
    }
    Ok(found)
}

fn end_alike(one: &Path, other: &Path) -> bool {
    let last = |path: &Path| (path.file_name().map(ToOwned::to_owned), directory_name(path));
    last(one) == last(other)
}

fn directory_name(path: &Path) -> Option<std::ffi::OsString> {
    path.parent()?.file_name().map(ToOwned::to_owned)
}

/// Waits until no device stands for `file` any more; false when one still does after `timeout`. The kernel lets a
/// device go only when the last one who looks into it has closed it, and udev likes to look.
///
/// # Errors
/// When `file` can't be looked at.
pub fn wait_until_detached(file: impl AsRef<Path>, timeout: Duration) -> Result<bool, MountError> {
    let file = file.as_ref();
    let limit = monotonic() + timeout;
    loop {
        if find_all_by_backing_file(file)?.is_empty() {
            return Ok(true);
        }
        if monotonic() >= limit {
            return Ok(false);
        }
        // Nothing to wait on but time: the kernel sends no word of this to anybody but udev.
        pause(DETACH_POLL_INTERVAL);
    }
}

/// As [`find_all_by_backing_file`], for where there can be one only.
///
/// # Errors
/// When `file` can't be looked at.
pub fn find_by_backing_file(file: impl AsRef<Path>) -> Result<Option<LoopDevice>, MountError> {
    Ok(find_all_by_backing_file(file)?.pop())
}

/// The kernel reports device numbers in its own 32-bit layout, which the C library's agrees with for all small numbers.
fn kernel_device(device: u64) -> u64 {
    let (major, minor) = (
        u64::from(rustix::fs::major(device)),
        u64::from(rustix::fs::minor(device)),
    );
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Tells the device that its file has grown.
///
/// # Errors
/// When it is not attached.
pub fn refresh_size(device: impl AsRef<Path>) -> Result<(), MountError> {
    let path = device.as_ref();
    let opened = open_device(path)?;
    ioctl::set_capacity(&opened).map_err(|source| MountError::call("refresh the size of", path, source))
}

/// Is this the node of a loop device?
pub fn is_loop_device(path: impl AsRef<Path>) -> bool {
    fs::metadata(path)
        .is_ok_and(|seen| seen.file_type().is_block_device() && rustix::fs::major(seen.rdev()) == LOOP_MAJOR)
}

impl std::os::fd::AsFd for LoopDevice {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl std::os::fd::AsRawFd for LoopDevice {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.file.as_raw_fd()
    }
}
