//! Unpacking one layer into a directory that overlayfs can use, trusting nothing in it.
//!
//! Every entry is made relative to its opened parent directory, which is reached without following any symlink. So a
//! layer can't write through a link it made itself. Links may *point* anywhere: that is for the container to follow,
//! inside its own root.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, fsetxattr, linkat, makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat,
    utimensat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

/// Prefix of names that hide what lower layers have.
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// Hides everything lower layers have in its directory.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// How overlayfs knows such a directory.
pub(crate) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// Extended attributes in pax headers.
const PAX_XATTR: &str = "SCHILY.xattr.";

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// `sha256:` and the digest of the uncompressed tar.
    pub(crate) diff_id: String,
    /// Bytes of all files.
    pub(crate) size_bytes: u64,
    /// The file system doesn't take overlayfs's marks (it is an overlay itself, say), so that whiteouts lie there
    /// under their names of the archive: only good for copying.
    pub(crate) has_plain_whiteouts: bool,
}

/// Passes bytes on and hashes them.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// Unpacks the uncompressed tar `stream` into the existing, empty directory `into`.
pub(crate) fn unpack(stream: impl Read, into: &Path) -> io::Result<Unpacked> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, into, flags, Mode::empty())?;
    let mut tar = tar::Archive::new(Hashing {
        inner: stream,
        hash: Sha256::new(),
    });
    let mut size_bytes = 0;
    let mut has_plain_whiteouts = false;
    // Times of directories change while things are made in them: set last, deepest first.
    let mut directories = Vec::new();
    for entry in tar.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_pax_global_extensions() {
            continue;
        }
        let path = inner_path(&entry.path()?)?;
        let explained =
            |error: io::Error| io::Error::new(error.kind(), format!("entry {}: {error}", path.display()));
        match whiteout(&root, &path).map_err(explained)? {
            Some(mark) => has_plain_whiteouts |= mark == Mark::Plain,
            None => size_bytes += place(&root, &path, &mut entry).map_err(explained)?,
        }
        if entry.header().entry_type().is_dir() {
            directories.push((path.clone(), entry.header().mtime().unwrap_or(0)));
        }
    }
    for (path, mtime) in directories.into_iter().rev() {
        if let Some((parent, name)) = parent_of(&root, &path, false)? {
            set_time(&parent, &name, mtime)?;
        }
    }
    let mut stream = tar.into_inner();
    // The digest covers what follows the last entry too.
    io::copy(&mut stream, &mut io::sink())?;
    Ok(Unpacked {
        diff_id: format!("sha256:{}", hex::encode(stream.hash.finalize())),
        size_bytes,
        has_plain_whiteouts,
    })
}

/// The path below the layer's root. A leading slash is common and harmless; going up is neither.
fn inner_path(path: &Path) -> io::Result<PathBuf> {
    let mut inner = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => inner.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other(format!(
                    "entry {} leads out of the layer",
                    path.display()
                )));
            }
        }
    }
    Ok(inner)
}

/// The opened parent directory and the last name; `None` for the root itself. With `make`, missing parents are made.
fn parent_of(root: &OwnedFd, path: &Path, make: bool) -> io::Result<Option<(OwnedFd, OsString)>> {
    let Some(name) = path.file_name() else {
        return Ok(None);
    };
    let parent = path.parent().unwrap_or(Path::new(""));
    let open = |dir: &Path| {
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(
            root,
            dir,
            flags,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
    };
    let opened = match open(parent) {
        Err(Errno::NOENT) if make => {
            let mut reached = PathBuf::new();
            for part in parent.components() {
                let above = open(&reached)?;
                reached.push(part);
                match mkdirat(&above, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            open(parent)
        }
        result => result,
    };
    match opened {
        Ok(dir) => Ok(Some((dir, name.to_owned()))),
        Err(Errno::LOOP) => Err(io::Error::other(
            "it goes through a symbolic link of the same layer",
        )),
        Err(errno) => Err(errno.into()),
    }
}

/// How a whiteout was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Overlayfs,
    Plain,
}

/// Writes a whiteout, if the entry is one.
fn whiteout(root: &OwnedFd, path: &Path) -> io::Result<Option<Mark>> {
    let Some(hidden) = path
        .file_name()
        .and_then(|name| name.as_bytes().strip_prefix(WHITEOUT))
    else {
        return Ok(None);
    };
    let Some((dir, name)) = parent_of(root, path, true)? else {
        return Ok(None);
    };
    let marked = if name.as_bytes() == OPAQUE {
        openat(
            &dir,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(|dir| fsetxattr(&dir, OPAQUE_XATTR, b"y", XattrFlags::empty()))
    } else {
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(io::Error::other("it hides no proper name"));
        }
        let hidden = OsStr::from_bytes(hidden);
        mknodat(
            &dir,
            hidden,
            FileType::CharacterDevice,
            Mode::from_raw_mode(0),
            makedev(0, 0),
        )
    };
    match marked {
        Ok(()) => Ok(Some(Mark::Overlayfs)),
        Err(Errno::PERM | Errno::NOTSUP) => {
            write_file(&dir, &name, &mut io::empty())?;
            Ok(Some(Mark::Plain))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Makes one entry; returns the bytes it takes.
fn place<R: Read>(root: &OwnedFd, path: &Path, entry: &mut tar::Entry<'_, R>) -> io::Result<u64> {
    let Some((dir, name)) = parent_of(root, path, true)? else {
        return Ok(0); // the root directory itself keeps the mode it was made with
    };
    let header = entry.header().clone();
    let kind = header.entry_type();
    let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
    clear_place(&dir, &name, kind.is_dir())?;
    let device = || -> io::Result<u64> {
        let number = |part: Option<u32>| part.ok_or_else(|| io::Error::other("its device number is missing"));
        Ok(makedev(
            number(header.device_major()?)?,
            number(header.device_minor()?)?,
        ))
    };
    let mut size = 0;
    if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
        size = write_file(&dir, &name, entry)?;
    } else if kind.is_dir() {
        match mkdirat(&dir, &name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    } else if kind.is_symlink() {
        symlinkat(target(entry)?.as_os_str(), &dir, &name)?;
    } else if kind.is_hard_link() {
        return link(root, &dir, &name, &target(entry)?).map(|()| 0);
    } else if kind.is_character_special() {
        mknodat(&dir, &name, FileType::CharacterDevice, mode, device()?)?;
    } else if kind.is_block_special() {
        mknodat(&dir, &name, FileType::BlockDevice, mode, device()?)?;
    } else if kind.is_fifo() {
        mknodat(&dir, &name, FileType::Fifo, mode, 0)?;
    } else {
        return Err(io::Error::other("its kind is not known"));
    }
    set_attributes(&dir, &name, &header, mode)?;
    if kind.is_file() {
        set_xattrs(&dir, &name, entry)?;
    }
    Ok(size)
}

/// A later entry of a name replaces an earlier one; a directory stays one.
fn clear_place(dir: &OwnedFd, name: &OsStr, keep_directory: bool) -> io::Result<()> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            if keep_directory {
                Ok(())
            } else {
                Err(io::Error::other("it replaces a directory of the same layer"))
            }
        }
        Ok(_) => Ok(unlinkat(dir, name, AtFlags::empty())?),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn write_file(dir: &OwnedFd, name: &OsStr, entry: &mut impl Read) -> io::Result<u64> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(openat(dir, name, flags, Mode::from_raw_mode(0o600))?);
    io::copy(entry, &mut file)
}

fn target<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<PathBuf> {
    let target = entry
        .link_name()?
        .ok_or_else(|| io::Error::other("the link has no target"))?;
    Ok(target.into_owned())
}

fn link(root: &OwnedFd, dir: &OwnedFd, name: &OsStr, target: &Path) -> io::Result<()> {
    let (from, from_name) = parent_of(root, &inner_path(target)?, false)?
        .ok_or_else(|| io::Error::other("it links to the root of the layer"))?;
    Ok(linkat(&from, &from_name, dir, name, AtFlags::empty())?)
}

/// Owner first: changing it takes set-user-id bits away.
fn set_attributes(dir: &OwnedFd, name: &OsStr, header: &tar::Header, mode: Mode) -> io::Result<()> {
    let number =
        |value: u64| u32::try_from(value).map_err(|_| io::Error::other("its owner is no proper number"));
    let (uid, gid) = (
        Uid::from_raw(number(header.uid()?)?),
        Gid::from_raw(number(header.gid()?)?),
    );
    chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if !header.entry_type().is_symlink() {
        // Not a symlink: it was just made here, in a directory nobody else can reach.
        chmodat(dir, name, mode, AtFlags::empty())?;
    }
    set_time(dir, name, header.mtime().unwrap_or(0))
}

fn set_time(dir: &OwnedFd, name: &OsStr, seconds: u64) -> io::Result<()> {
    let time = Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(0),
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// File capabilities are what matters here; an attribute the file system doesn't take is an error.
fn set_xattrs<R: Read>(dir: &OwnedFd, name: &OsStr, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
    let mut wanted = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        if let Some(key) = extension.key().ok().and_then(|key| key.strip_prefix(PAX_XATTR)) {
            // Overlayfs's own attributes would let a layer reach into others.
            if !key.starts_with("trusted.") {
                wanted.push((key.to_owned(), extension.value_bytes().to_vec()));
            }
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let file = openat(
        dir,
        name,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    for (key, value) in wanted {
        fsetxattr(&file, &key, &value, XattrFlags::empty())
            .map_err(|errno| io::Error::other(format!("set attribute {key}: {errno}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
