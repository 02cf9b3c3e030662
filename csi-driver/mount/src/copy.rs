//! Copies of files and of whole directories.
//!
//! Cheapest first: [`reflink`] lets both files share their blocks, [`sparse`] copies what is data and leaves holes
//! holes, [`tree()`] does either for each file of a directory and carries everything else along. Nothing here is fsynced:
//! the caller does that, once, before it writes down that the copy is whole.

use std::{fs::File, ops::ControlFlow, os::unix::fs::FileExt as _};

use rustix::io::Errno;

use crate::{
    MountError,
    error::path_of,
    extents::{ByteRange, data_ranges},
};

mod attributes;
mod tree;

pub use tree::{CopiedTree, tree};

/// After so many bytes the caller hears of it, and may stop. Small enough to stop soon on a slow disk.
const STEP_BYTES: u64 = 8 << 20;
/// Where the kernel can't copy by itself.
const BUFFER_BYTES: usize = 1 << 20;

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyProgress {
    /// Bytes worked off: data copied or shared, holes passed over.
    pub bytes: u64,
    /// Files, directories and other things finished; for a single file 0.
    pub entries: u64,
    /// What [`Self::bytes`] will be at the end; not known for a tree.
    pub bytes_total: Option<u64>,
}

/// What a copy of one file was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Length of the file.
    pub size_bytes: u64,
    /// What was copied of it; the rest are holes.
    pub data_bytes: u64,
}

/// Lets `to` share all blocks of `from`, at once and whatever the size; what was in `to` before is gone. False when the
/// filesystem can't, or they are on different ones: `to` is as before then.
///
/// # Errors
/// When `to` is not writable, or there is no room for the metadata.
pub fn reflink(from: &File, to: &File) -> Result<bool, MountError> {
    let size = |file: &File| {
        rustix::fs::fstat(file)
            .map(|seen| seen.st_size)
            .map_err(|errno| MountError::call("look at", path_of(file), errno))
    };
    match rustix::fs::ioctl_ficlone(to, from) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::NOSYS | Errno::INVAL) => return Ok(false),
        Err(errno) => return Err(MountError::call("share blocks with", path_of(to), errno)),
    }
    // The clone overwrites, but does not shorten.
    let wanted = size(from)?;
    if size(to)? > wanted {
        rustix::fs::ftruncate(to, u64::try_from(wanted).unwrap_or(0))
            .map_err(|errno| MountError::call("shorten", path_of(to), errno))?;
    }
    Ok(true)
}

/// Copies the data of the regular file `from` over `to`, which ends up as long and with the same holes; what was in `to`
/// before is gone. `progress` hears of each step. Moves the cursor of `from`.
///
/// # Errors
/// `is_cancelled` when `progress` broke it off, `is_no_space` when the room ran out: `to` is half-made then. A file that
/// is cut off while it is copied is an error.
pub fn sparse(
    from: &File,
    to: &File,
    progress: &mut dyn FnMut(CopyProgress) -> ControlFlow<()>,
) -> Result<Copied, MountError> {
    let size_bytes = regular_size(from)?;
    regular_size(to)?;
    let resize = |bytes| {
        rustix::fs::ftruncate(to, bytes)
            .map_err(|errno| MountError::call("set the length of", path_of(to), errno))
    };
    resize(0)?;
    resize(size_bytes)?;
    let mut data_bytes = 0;
    let mut tell = |bytes| {
        let seen = CopyProgress {
            bytes,
            entries: 0,
            bytes_total: Some(size_bytes),
        };
        match progress(seen) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(cancelled(from)),
        }
    };
    let mut copier = Copier::new(from, to);
    for range in data_ranges(from) {
        let range = range?;
        // What is appended while we copy is not part of it.
        let end = range.end().min(size_bytes);
        let mut offset = range.offset;
        while offset < end {
            let length = STEP_BYTES.min(end - offset);
            copier.copy(ByteRange { offset, length })?;
            offset += length;
            data_bytes += length;
            tell(offset)?;
        }
    }
    tell(size_bytes)?;
    Ok(Copied {
        size_bytes,
        data_bytes,
    })
}

fn cancelled(file: &File) -> MountError {
    MountError::Cancelled {
        action: "copying",
        path: path_of(file),
    }
}

fn regular_size(file: &File) -> Result<u64, MountError> {
    let seen = file
        .metadata()
        .map_err(|source| MountError::call("look at", path_of(file), source))?;
    if !seen.is_file() {
        return Err(MountError::BadPath {
            path: path_of(file),
            why: "is not a regular file",
        });
    }
    Ok(seen.len())
}

/// Copies ranges inside the kernel as long as it can, then through a buffer.
struct Copier<'a> {
    from: &'a File,
    to: &'a File,
    /// Empty until it is needed.
    buffer: Vec<u8>,
}

impl<'a> Copier<'a> {
    fn new(from: &'a File, to: &'a File) -> Self {
        Copier {
            from,
            to,
            buffer: Vec::new(),
        }
    }

    fn copy(&mut self, range: ByteRange) -> Result<(), MountError> {
        let mut offset = range.offset;
        while offset < range.end() {
            let length = usize::try_from(range.end() - offset).unwrap_or(usize::MAX);
            let copied = match self.step(offset, length) {
                Ok(0) => Err(Errno::IO.into()), // The source has been cut off.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(0),
                result => result,
            };
            let copied = copied.map_err(|source| MountError::call("copy to", path_of(self.to), source))?;
            offset += u64::try_from(copied).unwrap_or(0);
        }
        Ok(())
    }

    fn step(&mut self, offset: u64, length: usize) -> Result<usize, std::io::Error> {
        if self.buffer.is_empty() {
            let (mut read_at, mut write_at) = (offset, offset);
            match rustix::fs::copy_file_range(
                self.from,
                Some(&mut read_at),
                self.to,
                Some(&mut write_at),
                length,
            ) {
                // Old kernels cannot between filesystems, and some filesystems cannot at all.
                Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    self.buffer = vec![0; BUFFER_BYTES];
                }
                result => return Ok(result?),
            }
        }
        let part = length.min(self.buffer.len());
        let read = self.from.read_at(&mut self.buffer[..part], offset)?;
        self.to.write_all_at(&self.buffer[..read], offset)?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
