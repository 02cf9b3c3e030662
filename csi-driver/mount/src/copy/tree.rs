//! A whole directory, copied while others may write to it, and without being led out of it.
//!
//! ```text
//! pending: [enter /] -> [enter b, enter a, leave /] -> [enter b, leave a, leave /] -> ...
//! ```
//!
//! A directory waits as its place in the tree and is opened, when its turn comes, from the root with openat2: beneath,
//! no symlinks, no other mount. So descriptors and stack stay small however deep the tree is, and a directory that has
//! been swapped for a symlink meanwhile is not entered. What is copied is opened once, by O_PATH, looked at, and used
//! through that descriptor. A directory gets its mode and times when everything in it is there.

use std::{
    collections::HashMap,
    ffi::CString,
    fs::File,
    ops::ControlFlow,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    rc::Rc,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, StatxAttributes, StatxFlags},
    io::Errno,
};

use super::{
    CopyProgress,
    attributes::{carry_over, proc_path},
    reflink, sparse,
};
use crate::MountError;

/// Half of what a path can name at all; who makes such a tree does it to hurt.
const DEPTH_MAX: u32 = 1024;
/// One openat2 takes less than PATH_MAX.
const PATH_BYTES_MAX: usize = 2048;

/// What a copy of a tree was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopiedTree {
    /// Files, directories and all the rest, the root included; a file with two names counts twice.
    pub entries: u64,
    /// Bytes that were copied.
    pub data_bytes: u64,
    /// Files that share their blocks with the original now.
    pub reflinked_files: u64,
    /// What was seen in a directory and was gone when its turn came: somebody writes there meanwhile.
    pub vanished: u64,
}

/// Copies everything in the directory `from` into the directory `to`, which is made, or is empty: owners, modes, times,
/// extended attributes and ACLs, symlinks as such, hard links among each other, fifos, sockets and device nodes; files
/// share their blocks where the filesystem can. Neither symlinks nor mounts in `from` are followed.
///
/// # Errors
/// `is_cancelled` when `progress` broke it off, `is_no_space` when the room ran out, [`MountError::BadPath`] when `to`
/// is not empty or something is mounted inside `from`. What has been copied until then stays in `to`.
pub fn tree(
    from: &Path,
    to: &Path,
    progress: &mut dyn FnMut(CopyProgress) -> ControlFlow<()>,
) -> Result<CopiedTree, MountError> {
    let mut copy = TreeCopy {
        from,
        from_root: open_root(from)?,
        to_root: make_root(to)?,
        links: HashMap::new(),
        can_reflink: true,
        done: CopiedTree::default(),
        bytes: 0,
        progress,
    };
    let mut pending = vec![Step::Enter(None)];
    while let Some(step) = pending.pop() {
        match step {
            Step::Enter(place) => copy.enter(place, &mut pending)?,
            Step::Leave(opened) => copy.leave(&opened)?,
        }
    }
    Ok(copy.done)
}

const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = PATH_ONLY.union(OFlags::DIRECTORY);

fn open_root(path: &Path) -> Result<OwnedFd, MountError> {
    rustix::fs::open(path, DIRECTORY, Mode::empty())
        .map_err(|errno| MountError::call("open the directory", path, errno))
}

fn make_root(path: &Path) -> Result<OwnedFd, MountError> {
    match rustix::fs::mkdirat(CWD, path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(MountError::call("make the directory", path, errno)),
    }
    let opened = open_root(path)?;
    let first = list(&opened)
        .and_then(|mut names| names.next().transpose())
        .map_err(|errno| MountError::call("list", path, errno))?;
    if first.is_some() {
        return Err(MountError::BadPath {
            path: path.to_owned(),
            why: "is not empty",
        });
    }
    Ok(opened)
}

/// The names in a directory, without `.` and `..`.
fn list(directory: &OwnedFd) -> Result<impl Iterator<Item = Result<CString, Errno>> + use<>, Errno> {
    let readable = open_again(directory, Path::new("."), OFlags::DIRECTORY)?;
    let mut entries = Dir::new(readable)?;
    Ok(std::iter::from_fn(move || {
        loop {
            match entries.read()? {
                Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Ok(entry) => return Some(Ok(entry.file_name().to_owned())),
                Err(errno) => return Some(Err(errno)),
            }
        }
    }))
}

/// A place below the root; `None` is the root itself. Shares its beginning with its neighbours.
type Place = Option<Rc<Below>>;

#[derive(Debug)]
struct Below {
    parent: Place,
    name: CString,
    depth: u32,
}

fn relative(place: &Place) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    let mut names = Vec::new();
    let mut next = place;
    while let Some(below) = next {
        names.push(std::ffi::OsStr::from_bytes(below.name.to_bytes()));
        next = &below.parent;
    }
    names.iter().rev().collect()
}

enum Step {
    Enter(Place),
    Leave(Place),
}

struct TreeCopy<'a> {
    from: &'a Path,
    from_root: OwnedFd,
    to_root: OwnedFd,
    /// Where the first name of a file with several names was copied to.
    links: HashMap<(u64, u64), (Place, CString)>,
    can_reflink: bool,
    done: CopiedTree,
    /// For progress.
    bytes: u64,
    progress: &'a mut dyn FnMut(CopyProgress) -> ControlFlow<()>,
}

/// A directory in both trees.
struct Pair {
    place: Place,
    from: OwnedFd,
    to: OwnedFd,
}

/// Something of the source, opened without touching it.
struct Entry {
    name: CString,
    opened: OwnedFd,
    seen: Stat,
    path: PathBuf,
}

impl TreeCopy<'_> {
    fn path(&self, place: &Place, name: Option<&CString>) -> PathBuf {
        use std::os::unix::ffi::OsStrExt as _;
        let mut path = self.from.join(relative(place));
        path.extend(name.map(|name| std::ffi::OsStr::from_bytes(name.to_bytes())));
        path
    }

    /// The directory in both trees; `None` when the original is gone or no directory any more.
    fn open(&self, place: &Place) -> Result<Option<Pair>, MountError> {
        let failed = |errno| MountError::call("open the directory", self.path(place, None), errno);
        let from = match open_beneath(&self.from_root, &relative(place)) {
            Ok(from) => from,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if place.is_some() => return Ok(None),
            Err(Errno::XDEV) => return Err(self.is_mounted(place, None)),
            Err(errno) => return Err(failed(errno)),
        };
        let to = open_beneath(&self.to_root, &relative(place)).map_err(failed)?;
        Ok(Some(Pair {
            place: place.clone(),
            from,
            to,
        }))
    }

    fn is_mounted(&self, place: &Place, name: Option<&CString>) -> MountError {
        MountError::BadPath {
            path: self.path(place, name),
            why: "has something mounted on it; unmount it before the copy",
        }
    }

    fn enter(&mut self, place: Place, pending: &mut Vec<Step>) -> Result<(), MountError> {
        let Some(pair) = self.open(&place)? else {
            self.done.vanished += 1;
            return Ok(());
        };
        let failed = |errno| MountError::call("list", self.path(&place, None), errno);
        let names = list(&pair.from).map_err(failed)?;
        pending.push(Step::Leave(place.clone()));
        for name in names {
            let name = name.map_err(|errno| MountError::call("list", self.path(&place, None), errno))?;
            let Some(entry) = self.look(&pair, name)? else {
                self.done.vanished += 1;
                continue;
            };
            if file_type(&entry) == FileType::Directory {
                pending.push(Step::Enter(Some(self.make_directory(&pair, entry)?)));
                continue;
            }
            self.copy_entry(&pair, &entry)?;
            self.finish_entry(&entry.path)?;
        }
        Ok(())
    }

    fn look(&self, pair: &Pair, name: CString) -> Result<Option<Entry>, MountError> {
        let path = self.path(&pair.place, Some(&name));
        let opened = match rustix::fs::openat(&pair.from, &*name, PATH_ONLY, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(MountError::call("open", path, errno)),
        };
        let failed = |errno| MountError::call("look at", &path, errno);
        let attributes = rustix::fs::statx(&opened, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)
            .map_err(failed)?
            .stx_attributes;
        if attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(self.is_mounted(&pair.place, Some(&name)));
        }
        let seen = rustix::fs::fstat(&opened).map_err(failed)?;
        Ok(Some(Entry {
            name,
            opened,
            seen,
            path,
        }))
    }

    fn make_directory(&self, pair: &Pair, entry: Entry) -> Result<Rc<Below>, MountError> {
        let depth = pair.place.as_ref().map_or(0, |below| below.depth) + 1;
        if depth > DEPTH_MAX {
            return Err(MountError::BadPath {
                path: entry.path,
                why: "is nested too deeply to be copied",
            });
        }
        rustix::fs::mkdirat(&pair.to, &*entry.name, Mode::RWXU)
            .map_err(|errno| MountError::call("make a copy of the directory", &entry.path, errno))?;
        Ok(Rc::new(Below {
            parent: pair.place.clone(),
            name: entry.name,
            depth,
        }))
    }

    fn copy_entry(&mut self, pair: &Pair, entry: &Entry) -> Result<(), MountError> {
        let failed = |errno| MountError::call("make a copy of", &entry.path, errno);
        let identity = (entry.seen.st_dev, entry.seen.st_ino);
        if let Some((place, name)) = self.links.get(&identity) {
            return open_beneath(&self.to_root, &relative(place))
                .and_then(|first| {
                    rustix::fs::linkat(first, &**name, &pair.to, &*entry.name, AtFlags::empty())
                })
                .map_err(failed);
        }
        match file_type(entry) {
            FileType::RegularFile => self.copy_file(pair, entry)?,
            FileType::Symlink => rustix::fs::readlinkat(&entry.opened, "", Vec::new())
                .and_then(|leads_to| rustix::fs::symlinkat(&*leads_to, &pair.to, &*entry.name))
                .map_err(failed)?,
            special => rustix::fs::mknodat(
                &pair.to,
                &*entry.name,
                special,
                Mode::RUSR | Mode::WUSR,
                entry.seen.st_rdev,
            )
            .map_err(failed)?,
        }
        let copy = rustix::fs::openat(&pair.to, &*entry.name, PATH_ONLY, Mode::empty()).map_err(failed)?;
        carry_over(&entry.opened, &entry.seen, &copy, &entry.path)?;
        if entry.seen.st_nlink > 1 {
            self.links
                .insert(identity, (pair.place.clone(), entry.name.clone()));
        }
        Ok(())
    }

    fn copy_file(&mut self, pair: &Pair, entry: &Entry) -> Result<(), MountError> {
        let from = open_data(&entry.opened).map_err(|errno| MountError::call("open", &entry.path, errno))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = rustix::fs::openat(&pair.to, &*entry.name, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(|errno| MountError::call("make a copy of the file", &entry.path, errno))?;
        if self.can_reflink && entry.seen.st_size > 0 {
            if reflink(&from, &to)? {
                self.done.reflinked_files += 1;
                self.bytes += u64::try_from(entry.seen.st_size).unwrap_or(0);
                return Ok(());
            }
            // All is on one filesystem: what can't be done once is not tried again.
            self.can_reflink = false;
        }
        let (before, entries) = (self.bytes, self.done.entries);
        let copied = sparse(&from, &to, &mut |part: CopyProgress| {
            (self.progress)(CopyProgress {
                bytes: before + part.bytes,
                entries,
                bytes_total: None,
            })
        })?;
        self.bytes += copied.size_bytes;
        self.done.data_bytes += copied.data_bytes;
        Ok(())
    }

    fn finish_entry(&mut self, path: &Path) -> Result<(), MountError> {
        self.done.entries += 1;
        let seen = CopyProgress {
            bytes: self.bytes,
            entries: self.done.entries,
            bytes_total: None,
        };
        match (self.progress)(seen) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(MountError::Cancelled {
                action: "copying",
                path: path.to_owned(),
            }),
        }
    }

    /// Everything below is there: now nothing changes the directory's times any more.
    fn leave(&mut self, place: &Place) -> Result<(), MountError> {
        let path = self.path(place, None);
        let Some(pair) = self.open(place)? else {
            self.done.vanished += 1;
            return Ok(());
        };
        let seen =
            rustix::fs::fstat(&pair.from).map_err(|errno| MountError::call("look at", &path, errno))?;
        carry_over(&pair.from, &seen, &pair.to, &path)?;
        self.finish_entry(&path)
    }
}

fn file_type(entry: &Entry) -> FileType {
    FileType::from_raw_mode(entry.seen.st_mode)
}

/// Opens a directory below `root`, in pieces that the kernel takes.
fn open_beneath(root: &OwnedFd, relative: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let open =
        |from: &OwnedFd, path: &Path| rustix::fs::openat2(from, path, DIRECTORY, Mode::empty(), resolve);
    let mut reached = open(root, Path::new("."))?;
    let mut part = PathBuf::new();
    for component in relative {
        if part.as_os_str().len() + component.len() > PATH_BYTES_MAX {
            reached = open(&reached, &part)?;
            part.clear();
        }
        part.push(component);
    }
    if part.as_os_str().is_empty() {
        return Ok(reached);
    }
    open(&reached, &part)
}

/// Opens the data of a file that has been opened by O_PATH.
fn open_data(opened: &OwnedFd) -> Result<File, Errno> {
    open_again(opened, &proc_path(opened), OFlags::NONBLOCK).map(File::from)
}

/// Opens for reading, without changing the access time if we may.
fn open_again(directory: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(directory, path, flags, Mode::empty()),
        result => result,
    }
}
