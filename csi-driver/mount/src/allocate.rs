//! Blocks behind a file: reserving them all, giving some back, counting them.

use std::{fs::File, os::unix::fs::MetadataExt as _};

use rustix::{fs::FallocateFlags, io::Errno};

use crate::{MountError, error::path_of, extents::ByteRange};

/// A file's blocks are counted in these, whatever the filesystem's own unit is.
const STAT_BLOCK_BYTES: u64 = 512;

/// Makes sure that the first `bytes` of `file` have blocks of their own, so that writing there never runs out of room.
/// A shorter file becomes so long; what is written stays; a longer file keeps its length.
///
/// Where the room does not suffice the file gets its old length back and nothing beyond it stays reserved. Holes below
/// the old length may have got blocks: somebody may be writing there meanwhile, so they are not taken back.
///
/// # Errors
/// `is_no_space` when there is not enough room or quota; `is_unsupported` where the filesystem can't reserve.
pub fn reserve(file: &File, bytes: u64) -> Result<(), MountError> {
    let error = |errno: Errno| MountError::call("reserve blocks for", path_of(file), errno);
    if bytes == 0 {
        return Ok(());
    }
    let before = rustix::fs::fstat(file).map_err(error)?;
    let size_before = u64::try_from(before.st_size).unwrap_or(0);
    refuse_hopeless(file, bytes).map_err(error)?;
    let Err(errno) = fallocate(file, FallocateFlags::empty(), 0, bytes) else {
        return Ok(());
    };
    // ext4 and xfs keep what they got before the room ended, even without having made the file longer.
    rustix::fs::ftruncate(file, size_before)
        .map_err(|second| MountError::call("undo the reservation of blocks for", path_of(file), second))?;
    Err(error(errno))
}

/// Most reservations that can't be met are seen before anything is touched.
fn refuse_hopeless(file: &File, bytes: u64) -> Result<(), Errno> {
    let room = rustix::fs::fstatvfs(file)?;
    let available = room.f_bavail.saturating_mul(room.f_frsize);
    let allocated = stat_bytes(&rustix::fs::fstat(file)?);
    if bytes.saturating_sub(allocated) > available {
        return Err(Errno::NOSPC);
    }
    Ok(())
}

fn stat_bytes(seen: &rustix::fs::Stat) -> u64 {
    u64::try_from(seen.st_blocks)
        .unwrap_or(0)
        .saturating_mul(STAT_BLOCK_BYTES)
}

/// Gives the blocks of `range` back; it reads as zeroes afterwards. The file's length does not change.
///
/// # Errors
/// `is_unsupported` where the filesystem can't.
pub fn punch(file: &File, range: ByteRange) -> Result<(), MountError> {
    if range.length == 0 {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, flags, range.offset, range.length)
        .map_err(|errno| MountError::call("punch a hole into", path_of(file), errno))
}

/// A signal may interrupt it; what was done stays done, so that the next attempt has less to do.
fn fallocate(file: &File, flags: FallocateFlags, offset: u64, length: u64) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, flags, offset, length))
}

/// Bytes of disk that the file takes, shared ones included.
///
/// # Errors
/// When it can't be looked at.
pub fn allocated_bytes(file: &File) -> Result<u64, MountError> {
    let seen = file
        .metadata()
        .map_err(|source| MountError::call("look at", path_of(file), source))?;
    Ok(seen.blocks().saturating_mul(STAT_BLOCK_BYTES))
}
