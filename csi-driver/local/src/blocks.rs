//! Which blocks of a file hold data, and in which two files differ. Blocks its thread.
//!
//! Where both files lie at the same place on the disk they are the same without reading them; where both are holes, too.
//! All else is read and compared: also where a filesystem doesn't tell places, or two files were copied instead of
//! sharing. So no changed block is ever missed, and none is named that is not changed.

mod sweep;

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use moorline_driver_sdk::{BlockRange, CallerGone};
use moorline_mount::{MountError, extents};
use thiserror::Error;

use self::sweep::{Candidates, Place, Segment};

/// What differs is named in blocks of this size, at least.
const BLOCK_BYTES: u64 = 4096;
/// How much of each file is read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Why ranges could not be found, or given away.
#[derive(Debug, Error)]
pub(crate) enum BlocksError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("{action} {path}")]
    Io {
        action: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    CallerGone(#[from] CallerGone),
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlocksError {
    let path = path.display().to_string();
    move |source| BlocksError::Io { action, path, source }
}

/// Shows `give` the ranges of the file that hold data, from `start` up to `end`.
pub(crate) fn allocated(
    path: &Path,
    start: u64,
    end: u64,
    mut give: impl FnMut(BlockRange) -> Result<(), CallerGone>,
) -> Result<(), BlocksError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    for range in extents::data_ranges_from(&file, start) {
        let range = range?;
        let to = range.end().min(end);
        if range.offset >= to {
            return Ok(());
        }
        give(BlockRange {
            byte_offset: range.offset,
            size_bytes: to - range.offset,
        })?;
    }
    Ok(())
}

/// Shows `give` the ranges in which `target` differs from `base`, from `start` up to `end`, where the target ends. What
/// lies beyond the base's end is zero there. `go_on` is asked now and then.
pub(crate) fn changed(
    [base, target]: [&Path; 2],
    start: u64,
    end: u64,
    go_on: impl Fn() -> bool,
    mut give: impl FnMut(BlockRange) -> Result<(), CallerGone>,
) -> Result<(), BlocksError> {
    let open = |path: &Path| File::open(path).map_err(io_error("open", path));
    let (base_file, target_file) = (open(base)?, open(target)?);
    let start = start - start % BLOCK_BYTES;
    let mut run = Run::default();
    let mut compared_to = start;
    let candidates = Candidates::new(
        segments(&base_file, start),
        segments(&target_file, start),
        start,
        end,
    );
    let mut buffers = [vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]];
    for range in candidates {
        let range = range?;
        // Whole blocks, none twice.
        let mut at = (range.offset - range.offset % BLOCK_BYTES).max(compared_to);
        let stop = range.end().next_multiple_of(BLOCK_BYTES).min(end);
        while at < stop {
            if !go_on() {
                return Err(CallerGone.into());
            }
            let length = usize::try_from(stop - at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let [one, two] = &mut buffers;
            read_at(&base_file, &mut one[..length], at).map_err(io_error("read", base))?;
            read_at(&target_file, &mut two[..length], at).map_err(io_error("read", target))?;
            for (index, (one, two)) in blocks(&one[..length]).zip(blocks(&two[..length])).enumerate() {
                if one != two {
                    let offset = at + u64::try_from(index).unwrap_or(0) * BLOCK_BYTES;
                    run.add(offset, u64::try_from(two.len()).unwrap_or(0), &mut give)?;
                }
            }
            at += u64::try_from(length).unwrap_or(0);
        }
        compared_to = compared_to.max(at);
    }
    run.end(&mut give)
}

fn blocks(bytes: &[u8]) -> std::slice::Chunks<'_, u8> {
    bytes.chunks(usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX))
}

/// Fills the buffer; with zeroes from the end of the file on.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let at = offset + u64::try_from(filled).unwrap_or(0);
        match file.read_at(&mut buffer[filled..], at) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer[filled..].fill(0);
    Ok(())
}

/// Blocks in a row become one range.
#[derive(Default)]
struct Run(Option<BlockRange>);

impl Run {
    fn add(
        &mut self,
        byte_offset: u64,
        size_bytes: u64,
        give: &mut impl FnMut(BlockRange) -> Result<(), CallerGone>,
    ) -> Result<(), BlocksError> {
        if let Some(range) = &mut self.0
            && range.byte_offset + range.size_bytes == byte_offset
        {
            range.size_bytes += size_bytes;
            return Ok(());
        }
        let before = self.0.replace(BlockRange {
            byte_offset,
            size_bytes,
        });
        Ok(before.map_or(Ok(()), give)?)
    }

    fn end(self, give: &mut impl FnMut(BlockRange) -> Result<(), CallerGone>) -> Result<(), BlocksError> {
        Ok(self.0.map_or(Ok(()), give)?)
    }
}

/// Where the file's data lies, as well as its filesystem tells.
fn segments(file: &File, start: u64) -> Box<dyn Iterator<Item = Result<Segment, MountError>> + '_> {
    let mut mapped = extents::mapped_from(file, start).peekable();
    if let Some(Err(error)) = mapped.peek()
        && error.is_unsupported()
    {
        return Box::new(extents::data_ranges_from(file, start).map(|range| {
            range.map(|range| Segment {
                start: range.offset,
                end: range.end(),
                place: Place::Unknown,
            })
        }));
    }
    Box::new(mapped.map(|extent| {
        extent.map(|extent| Segment {
            start: extent.logical,
            end: extent.range().end(),
            place: match () {
                () if extent.is_unwritten => Place::Nowhere,
                () if extent.is_comparable => Place::Disk(extent.physical),
                () => Place::Unknown,
            },
        })
    }))
}

#[cfg(test)]
mod tests;
