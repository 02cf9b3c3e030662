//! Which parts of a file hold data (SEEK_DATA) and where on the disk they lie (FIEMAP).

use std::fs::File;

use rustix::{
    fs::SeekFrom,
    io::Errno,
    ioctl::{Updater, ioctl, opcode},
};

use crate::{MountError, error::path_of};

/// How many extents are asked for at once: the answer is a buffer of some 14 KiB.
const EXTENTS_PER_CALL: usize = 256;

/// Part of a file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// Where it begins.
    pub offset: u64,
    /// How long it is; never zero.
    pub length: u64,
}

impl ByteRange {
    /// The first byte behind it.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// The parts of `file` that are not holes, in order. On a filesystem that knows no holes: all of it. Moves the file's
/// cursor; written data that has not reached the disk counts as data.
pub fn data_ranges(file: &File) -> DataRanges<'_> {
    data_ranges_from(file, 0)
}

/// As [`data_ranges`], from `offset` on; a range that `offset` lies in begins there.
pub fn data_ranges_from(file: &File, offset: u64) -> DataRanges<'_> {
    DataRanges {
        file,
        next: Some(offset),
    }
}

/// See [`data_ranges`].
#[derive(Debug)]
pub struct DataRanges<'a> {
    file: &'a File,
    next: Option<u64>,
}

impl DataRanges<'_> {
    fn find_from(&self, from: u64) -> Result<Option<ByteRange>, Errno> {
        let offset = match rustix::fs::seek(self.file, SeekFrom::Data(from)) {
            Ok(offset) => offset,
            Err(Errno::NXIO) => return Ok(None),
            // No SEEK_DATA here: then everything is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => from,
            Err(errno) => return Err(errno),
        };
        let end = match rustix::fs::seek(self.file, SeekFrom::Hole(offset)) {
            Ok(end) => end,
            // The file has been cut off meanwhile.
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => rustix::fs::seek(self.file, SeekFrom::End(0))?,
            Err(errno) => return Err(errno),
        };
        let length = end.saturating_sub(offset);
        Ok((length > 0).then_some(ByteRange { offset, length }))
    }
}

impl Iterator for DataRanges<'_> {
    type Item = Result<ByteRange, MountError>;

    fn next(&mut self) -> Option<Self::Item> {
        let from = self.next.take()?;
        let found = self.find_from(from);
        if let Ok(Some(range)) = found {
            self.next = Some(range.end());
        }
        found
            .map_err(|errno| MountError::call("find the data of", path_of(self.file), errno))
            .transpose()
    }
}

/// A run of a file that lies in one piece on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file, in bytes.
    pub logical: u64,
    /// Where it begins on the device, in bytes (btrfs: in the filesystem's own address space). Two files whose extents
    /// of one place agree in this hold the same bytes there, as long as [`Self::is_comparable`].
    pub physical: u64,
    /// In bytes.
    pub length: u64,
    /// Do several files (or several places of one) point to it?
    pub is_shared: bool,
    /// Reserved, but not written yet: reads as zeroes.
    pub is_unwritten: bool,
    /// May [`Self::physical`] be compared? Not for data that has no place of its own yet, lies inside metadata, or is
    /// compressed (then several extents begin at one place).
    pub is_comparable: bool,
}

impl Extent {
    /// The part of the file that it stands for.
    pub fn range(&self) -> ByteRange {
        ByteRange {
            offset: self.logical,
            length: self.length,
        }
    }
}

/// All extents of `file`, after what is still in memory has got its place.
///
/// # Errors
/// `is_unsupported` where the filesystem has no FIEMAP.
pub fn mapped(file: &File) -> Result<Vec<Extent>, MountError> {
    mapped_from(file, 0).collect()
}

/// The extents of `file` from the one that holds `offset` on, read from the kernel a few hundred at a time.
pub fn mapped_from(file: &File, offset: u64) -> Extents<'_> {
    Extents {
        file,
        read: Vec::new().into_iter(),
        next: Some(offset),
        is_first: true,
    }
}

/// See [`mapped_from`].
#[derive(Debug)]
pub struct Extents<'a> {
    file: &'a File,
    read: std::vec::IntoIter<Extent>,
    /// Where to read on.
    next: Option<u64>,
    is_first: bool,
}

impl Extents<'_> {
    fn refill(&mut self) -> Result<(), MountError> {
        let Some(start) = self.next.take() else {
            return Ok(());
        };
        let flags = if self.is_first { FLAG_SYNC } else { 0 };
        self.is_first = false;
        let map = fiemap(self.file, start, flags)
            .map_err(|errno| MountError::call("map the extents of", path_of(self.file), errno))?;
        let (extents, is_last) = map.answer();
        if let (Some(last), false) = (extents.last(), is_last) {
            self.next = Some(last.range().end());
        }
        self.read = extents.into_iter();
        Ok(())
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent, MountError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read.len() == 0
            && let Err(error) = self.refill()
        {
            return Some(Err(error));
        }
        self.read.next().map(Ok)
    }
}

const FLAG_SYNC: u32 = 1;
const EXTENT_LAST: u32 = 0x1;
const EXTENT_UNKNOWN: u32 = 0x2;
const EXTENT_DELAYED: u32 = 0x4;
const EXTENT_ENCODED: u32 = 0x8;
const EXTENT_NOT_ALIGNED: u32 = 0x100;
const EXTENT_UNWRITTEN: u32 = 0x800;
const EXTENT_SHARED: u32 = 0x2000;

/// The kernel's `struct fiemap` without its array.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    fm_start: u64,
    fm_length: u64,
    fm_flags: u32,
    fm_mapped_extents: u32,
    fm_extent_count: u32,
    fm_reserved: u32,
}

/// The kernel's `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawExtent {
    fe_logical: u64,
    fe_physical: u64,
    fe_length: u64,
    fe_reserved64: [u64; 2],
    fe_flags: u32,
    fe_reserved: [u32; 3],
}

/// Header and array as the kernel fills them.
#[repr(C)]
struct Map {
    header: Header,
    extents: [RawExtent; EXTENTS_PER_CALL],
}

// The layouts are the kernel's interface: a slip here would corrupt memory.
const _: () = assert!(size_of::<Header>() == 32 && size_of::<RawExtent>() == 56);
const _: () = assert!(std::mem::offset_of!(Map, extents) == 32);
const _: () = assert!(std::mem::offset_of!(RawExtent, fe_flags) == 40);

impl Map {
    /// What the kernel has filled in, and whether that was the end of the file.
    fn answer(&self) -> (Vec<Extent>, bool) {
        let count = usize::try_from(self.header.fm_mapped_extents).unwrap_or(usize::MAX);
        let filled = &self.extents[..count.min(EXTENTS_PER_CALL)];
        let is_last = filled
            .last()
            .is_none_or(|extent| extent.fe_flags & EXTENT_LAST != 0);
        (filled.iter().map(extent_of).collect(), is_last)
    }
}

fn extent_of(raw: &RawExtent) -> Extent {
    let has = |flags: u32| raw.fe_flags & flags != 0;
    Extent {
        logical: raw.fe_logical,
        physical: raw.fe_physical,
        length: raw.fe_length,
        is_shared: has(EXTENT_SHARED),
        is_unwritten: has(EXTENT_UNWRITTEN),
        is_comparable: !has(EXTENT_UNKNOWN | EXTENT_DELAYED | EXTENT_ENCODED | EXTENT_NOT_ALIGNED),
    }
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps FS_IOC_FIEMAP")]
fn fiemap(file: &File, start: u64, flags: u32) -> Result<Box<Map>, Errno> {
    const FIEMAP: rustix::ioctl::Opcode = opcode::read_write::<Header>(b'f', 11);
    const NO_EXTENT: RawExtent = RawExtent {
        fe_logical: 0,
        fe_physical: 0,
        fe_length: 0,
        fe_reserved64: [0; 2],
        fe_flags: 0,
        fe_reserved: [0; 3],
    };
    let mut map = Box::new(Map {
        header: Header {
            fm_start: start,
            fm_length: u64::MAX - start,
            fm_flags: flags,
            fm_mapped_extents: 0,
            fm_extent_count: u32::try_from(EXTENTS_PER_CALL).unwrap_or(0),
            fm_reserved: 0,
        },
        extents: [NO_EXTENT; EXTENTS_PER_CALL],
    });
    // SAFETY: the opcode is FS_IOC_FIEMAP, whose argument is a `struct fiemap` followed by `fm_extent_count` extents;
    // `Map` has that layout (asserted above) and room for exactly as many, and any bit pattern is a valid value of it.
    unsafe { ioctl(file, Updater::<FIEMAP, Map>::new(&mut *map)) }?;
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_told_apart() {
        let seen = |fe_flags| {
            extent_of(&RawExtent {
                fe_logical: 1,
                fe_physical: 2,
                fe_length: 3,
                fe_reserved64: [0; 2],
                fe_flags,
                fe_reserved: [0; 3],
            })
        };
        let cases = [
            ("plain", 0, (false, false, true)),
            ("last", EXTENT_LAST, (false, false, true)),
            ("shared", EXTENT_SHARED, (true, false, true)),
            ("unwritten", EXTENT_UNWRITTEN, (false, true, true)),
            ("delayed", EXTENT_DELAYED | EXTENT_UNKNOWN, (false, false, false)),
            ("compressed", EXTENT_ENCODED | EXTENT_SHARED, (true, false, false)),
            ("inline", 0x200 | EXTENT_NOT_ALIGNED, (false, false, false)),
        ];
        for (name, flags, expected) in cases {
            let extent = seen(flags);
            assert_eq!(
                (extent.is_shared, extent.is_unwritten, extent.is_comparable),
                expected,
                "{name}"
            );
            assert_eq!(
                (extent.logical, extent.physical, extent.length),
                (1, 2, 3),
                "{name}"
            );
        }
    }
}
