//! The mount table of this process, parsed from `/proc/self/mountinfo` as proc(5) describes it.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{Read as _, Seek as _},
    os::{
        fd::AsFd as _,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::MountError;

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Unique as long as the mount exists, reused afterwards.
    pub mount_id: u32,
    /// The mount this one sits on; itself at the root of the tree.
    pub parent_id: u32,
    /// Major and minor number of the filesystem (`st_dev` of its files).
    pub device: (u32, u32),
    /// Which directory or file of the filesystem appears here: `/`, or what was bound.
    pub root: PathBuf,
    /// Where it appears.
    pub mount_point: PathBuf,
    /// Per-mount options, such as `ro,noatime`.
    pub options: String,
    /// Optional fields, such as `shared:7` or `master:3`.
    pub optional_fields: Vec<String>,
    /// Filesystem type, such as `ext4`.
    pub fs_type: String,
    /// The device, or whatever the filesystem calls its source.
    pub source: OsString,
    /// Options of the filesystem itself.
    pub super_options: String,
}

impl MountEntry {
    /// Is this mount read-only, by itself or because its filesystem is?
    pub fn is_read_only(&self) -> bool {
        has_option(&self.options, "ro") || has_option(&self.super_options, "ro")
    }

    /// The peer group in which mounts below this one are shared, if they are.
    pub fn peer_group(&self) -> Option<u32> {
        self.optional_number("shared:")
    }

    /// The peer group from which this mount receives, if it is a slave.
    pub fn master(&self) -> Option<u32> {
        self.optional_number("master:")
    }

    fn optional_number(&self, prefix: &str) -> Option<u32> {
        self.optional_fields
            .iter()
            .find_map(|field| field.strip_prefix(prefix)?.parse().ok())
    }
}

fn has_option(options: &str, wanted: &str) -> bool {
    options.split(',').any(|option| option == wanted)
}

/// The mount table now, in the kernel's order: of several mounts on one path the last one is on top.
///
/// # Errors
/// When procfs is not there or does not look as documented.
pub fn read() -> Result<Vec<MountEntry>, MountError> {
    let bytes = fs::read(MOUNTINFO).map_err(|source| MountError::call("read", MOUNTINFO, source))?;
    parse(bytes)
}

/// The mount table, read again only when the kernel says that it has changed: as fresh as [`read`] each time, and much
/// cheaper where most calls mount nothing. It stays with the mount namespace of the first call. The kernel says nothing
/// when options change, of a mount or a filesystem: who asks for these takes [`read`].
///
/// # Errors
/// As [`read`].
pub fn current() -> Result<Arc<Vec<MountEntry>>, MountError> {
    static FOLLOWED: Mutex<Option<Followed>> = Mutex::new(None);
    // Nothing in it is half-changed while a panic passes.
    let mut followed = FOLLOWED.lock().unwrap_or_else(PoisonError::into_inner);
    // After an error it starts anew: a table that could not be read must not be told as one that has not changed.
    let mut now = match followed.take() {
        Some(followed) => followed,
        None => Followed::open()?,
    };
    let entries = now.entries()?;
    *followed = Some(now);
    Ok(entries)
}

/// A mount table that is followed.
#[derive(Debug)]
struct Followed {
    file: File,
    text: Vec<u8>,
    entries: Arc<Vec<MountEntry>>,
}

impl Followed {
    fn open() -> Result<Self, MountError> {
        let file = File::open(MOUNTINFO).map_err(|source| MountError::call("open", MOUNTINFO, source))?;
        let mut followed = Followed {
            file,
            text: Vec::with_capacity(16 << 10),
            entries: Arc::default(),
        };
        followed.read()?;
        Ok(followed)
    }

    fn entries(&mut self) -> Result<Arc<Vec<MountEntry>>, MountError> {
        // Asking comes first: a change after it makes the next call read again, at worst once too often.
        if self.has_changed()? {
            self.read()?;
        }
        Ok(Arc::clone(&self.entries))
    }

    fn has_changed(&self) -> Result<bool, MountError> {
        let flags = PollFlags::POLLPRI | PollFlags::POLLERR;
        let mut polled = [PollFd::new(self.file.as_fd(), flags)];
        poll(&mut polled, PollTimeout::ZERO)
            .map_err(|errno| MountError::call("poll", MOUNTINFO, std::io::Error::from(errno)))?;
        // Flags that are not known are no reason to trust what was read before.
        Ok(polled[0].revents().is_none_or(|seen| seen.intersects(flags)))
    }

    fn read(&mut self) -> Result<(), MountError> {
        self.text.clear();
        let read = self
            .file
            .rewind()
            .and_then(|()| self.file.read_to_end(&mut self.text));
        read.map_err(|source| MountError::call("read", MOUNTINFO, source))?;
        self.entries = Arc::new(parse(&self.text)?);
        Ok(())
    }
}

/// Parses the text of a mountinfo file.
///
/// # Errors
/// Names the first line that lacks a field.
pub fn parse(text: impl AsRef<[u8]>) -> Result<Vec<MountEntry>, MountError> {
    text.as_ref()
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            parse_line(line).map_err(|missing| MountError::BadMountinfo {
                line: String::from_utf8_lossy(line).into_owned(),
                missing,
            })
        })
        .collect()
}

/// The mounts whose mount point is `path` or lies below it, deepest and topmost first: the order to unmount in.
pub fn at_or_below<'a>(entries: &'a [MountEntry], path: &Path) -> Vec<&'a MountEntry> {
    let mut found: Vec<_> = entries
        .iter()
        .filter(|entry| entry.mount_point.starts_with(path))
        .collect();
    found.reverse();
    found.sort_by_key(|entry| std::cmp::Reverse(entry.mount_point.components().count()));
    found
}

fn parse_line(line: &[u8]) -> Result<MountEntry, &'static str> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mount_id = number(fields.next()).ok_or("the mount id")?;
    let parent_id = number(fields.next()).ok_or("the parent id")?;
    let device = device(fields.next()).ok_or("the device")?;
    let root = PathBuf::from(unescape(fields.next().ok_or("the root")?));
    let mount_point = PathBuf::from(unescape(fields.next().ok_or("the mount point")?));
    let options = text(fields.next().ok_or("the options")?);
    let mut optional_fields = Vec::new();
    loop {
        match fields.next() {
            Some(b"-") => break,
            Some(field) => optional_fields.push(text(field)),
            None => return Err("the separator"),
        }
    }
    Ok(MountEntry {
        mount_id,
        parent_id,
        device,
        root,
        mount_point,
        options,
        optional_fields,
        fs_type: text(fields.next().ok_or("the filesystem type")?),
        source: unescape(fields.next().ok_or("the source")?),
        super_options: text(fields.next().ok_or("the super options")?),
    })
}

fn number(field: Option<&[u8]>) -> Option<u32> {
    std::str::from_utf8(field?).ok()?.parse().ok()
}

fn device(field: Option<&[u8]>) -> Option<(u32, u32)> {
    let (major, minor) = std::str::from_utf8(field?).ok()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn text(field: &[u8]) -> String {
    unescape(field).to_string_lossy().into_owned()
}

/// Undoes the kernel's octal escapes (`\040` is a space). Anything else after a backslash stays as it is.
fn unescape(field: &[u8]) -> OsString {
    if !field.contains(&b'\\') {
        return OsStr::from_bytes(field).to_owned();
    }
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, octal(tail)) {
            (b'\\', Some(byte)) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            _ => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(plain)
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digits = digits.get(..3)?;
    let mut value = 0u16;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        value = value * 8 + u16::from(digit - b'0');
    }
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests;
