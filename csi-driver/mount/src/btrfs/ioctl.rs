//! The ioctls of btrfs, as `linux/btrfs.h` numbers them. The only place that speaks them.

use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::{
    io::Errno,
    ioctl::{Getter, NoArg, Opcode, Setter, Updater, ioctl, opcode},
};

const MAGIC: u8 = 0x94;
pub(super) const FLAG_READ_ONLY: u64 = 1 << 1;
const FLAG_BY_ID: u64 = 1 << 4;
pub(super) const LIMIT_REFERENCED: u64 = 1;
/// As a limit: take it away.
const NO_LIMIT: u64 = u64::MAX;

const RESIZE: Opcode = opcode::write::<VolumeArgumentsV1>(MAGIC, 3);
const SYNC: Opcode = opcode::none(MAGIC, 8);
const SNAP_DESTROY: Opcode = opcode::write::<VolumeArgumentsV1>(MAGIC, 15);
const TREE_SEARCH: Opcode = opcode::read_write::<Search>(MAGIC, 17);
const INO_LOOKUP: Opcode = opcode::read_write::<InodeLookup>(MAGIC, 18);
const SNAP_CREATE_V2: Opcode = opcode::write::<VolumeArguments>(MAGIC, 23);
const SUBVOL_CREATE_V2: Opcode = opcode::write::<VolumeArguments>(MAGIC, 24);
const SUBVOL_GETFLAGS: Opcode = opcode::read::<u64>(MAGIC, 25);
const SUBVOL_SETFLAGS: Opcode = opcode::write::<u64>(MAGIC, 26);
const FS_INFO: Opcode = opcode::read::<FilesystemInfo>(MAGIC, 31);
const QUOTA_CTL: Opcode = opcode::read_write::<QuotaControl>(MAGIC, 40);
const QGROUP_CREATE: Opcode = opcode::write::<QuotaGroupCreate>(MAGIC, 42);
const QGROUP_LIMIT: Opcode = opcode::read::<QuotaGroupLimit>(MAGIC, 43);
const QUOTA_RESCAN_WAIT: Opcode = opcode::none(MAGIC, 46);
const SNAP_DESTROY_V2: Opcode = opcode::write::<VolumeArguments>(MAGIC, 63);

const NAME_BYTES_MAX: usize = 255;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolumeArgumentsV1 {
    fd: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
pub(super) struct VolumeArguments {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    /// Or the subvolume's id in the first eight bytes.
    name: [u8; 4040],
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct InodeLookup {
    tree_id: u64,
    object_id: u64,
    name: [u8; 4080],
}

/// `struct btrfs_ioctl_fs_info_args`; of the rest nothing is used.
#[repr(C)]
struct FilesystemInfo {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    rest: [u64; 124],
}

/// `struct btrfs_ioctl_quota_ctl_args`.
#[repr(C)]
struct QuotaControl {
    command: u64,
    status: u64,
}

/// `struct btrfs_ioctl_qgroup_create_args`.
#[repr(C)]
struct QuotaGroupCreate {
    create: u64,
    id: u64,
}

/// `struct btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
struct QuotaGroupLimit {
    id: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved_referenced: u64,
    reserved_exclusive: u64,
}

/// `struct btrfs_ioctl_search_args`.
#[repr(C)]
struct Search {
    tree_id: u64,
    min_object_id: u64,
    max_object_id: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    /// In: how many at most; out: how many there are.
    items: u32,
    unused: u32,
    unused_more: [u64; 4],
    buffer: [u8; 3992],
}

// The layouts are the kernel's interface: a slip here would corrupt memory.
const _: () = assert!(size_of::<VolumeArgumentsV1>() == 4096 && size_of::<VolumeArguments>() == 4096);
const _: () = assert!(std::mem::offset_of!(VolumeArguments, name) == 56);
const _: () = assert!(size_of::<InodeLookup>() == 4096 && size_of::<FilesystemInfo>() == 1024);
const _: () = assert!(size_of::<QuotaControl>() == 16 && size_of::<QuotaGroupCreate>() == 16);
const _: () = assert!(size_of::<QuotaGroupLimit>() == 48);
const _: () = assert!(size_of::<Search>() == 4096 && std::mem::offset_of!(Search, buffer) == 104);

impl VolumeArguments {
    const EMPTY: Self = VolumeArguments {
        fd: 0,
        transid: 0,
        flags: 0,
        unused: [0; 4],
        name: [0; 4040],
    };

    /// For something by that name in the directory that the request goes to.
    pub(super) fn named(name: &[u8]) -> Result<Self, &'static str> {
        if name.len() > NAME_BYTES_MAX {
            return Err("has a name longer than 255 bytes");
        }
        if name.contains(&0) {
            return Err("has a nul byte");
        }
        let mut arguments = Self::EMPTY;
        arguments.name[..name.len()].copy_from_slice(name);
        Ok(arguments)
    }
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps this request")]
pub(super) fn create(parent: &OwnedFd, arguments: VolumeArguments) -> Result<(), Errno> {
    // SAFETY: the opcode is BTRFS_IOC_SUBVOL_CREATE_V2, whose argument, only read, has the layout asserted above.
    unsafe {
        ioctl(
            parent,
            Setter::<SUBVOL_CREATE_V2, VolumeArguments>::new(arguments),
        )
    }
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps this request")]
pub(super) fn snapshot(
    parent: &OwnedFd,
    source: &OwnedFd,
    read_only: bool,
    mut arguments: VolumeArguments,
) -> Result<(), Errno> {
    arguments.fd = source.as_raw_fd().into();
    arguments.flags = if read_only { FLAG_READ_ONLY } else { 0 };
    // SAFETY: the opcode is BTRFS_IOC_SNAP_CREATE_V2, whose argument, only read, has the layout asserted above; the
    // descriptor in it is borrowed for the whole call.
    unsafe { ioctl(parent, Setter::<SNAP_CREATE_V2, VolumeArguments>::new(arguments)) }
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps this request")]
pub(super) fn destroy(parent: &OwnedFd, arguments: VolumeArguments) -> Result<(), Errno> {
    let mut older = VolumeArgumentsV1 {
        fd: 0,
        name: [0; 4088],
    };
    older.name[..arguments.name.len()].copy_from_slice(&arguments.name);
    // SAFETY: the opcode is BTRFS_IOC_SNAP_DESTROY, whose argument, only read, has the layout asserted above.
    unsafe { ioctl(parent, Setter::<SNAP_DESTROY, VolumeArgumentsV1>::new(older)) }
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps this request")]
pub(super) fn destroy_by_id(filesystem: &OwnedFd, id: u64) -> Result<(), Errno> {
    let mut arguments = VolumeArguments::EMPTY;
    arguments.flags = FLAG_BY_ID;
    arguments.name[..8].copy_from_slice(&id.to_ne_bytes());
    // SAFETY: the opcode is BTRFS_IOC_SNAP_DESTROY_V2, whose argument, only read, has the layout asserted above.
    unsafe {
        ioctl(
            filesystem,
            Setter::<SNAP_DESTROY_V2, VolumeArguments>::new(arguments),
        )
    }
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps this request")]
pub(super) fn flags(subvolume: &OwnedFd) -> Result<u64, Errno> {
    // SAFETY: the opcode is BTRFS_IOC_SUBVOL_GETFLAGS, which fills a u64.
    unsafe { ioctl(subvolume, Getter::<SUBVOL_GETFLAGS, u64>::new()) }
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps this request")]
pub(super) fn set_flags(subvolume: &OwnedFd, flags: u64) -> Result<(), Errno> {
    // SAFETY: the opcode is BTRFS_IOC_SUBVOL_SETFLAGS, which reads a u64.
    unsafe { ioctl(subvolume, Setter::<SUBVOL_SETFLAGS, u64>::new(flags)) }
}

/// The id of the subvolume that `opened` is in.
#[expect(unsafe_code, reason = "neither rustix nor nix wraps this request")]
pub(super) fn subvolume_id(opened: &OwnedFd) -> Result<u64, Errno> {
    let mut lookup = InodeLookup {
        tree_id: 0,
        object_id: super::ROOT_INODE,
        name: [0; 4080],
    };
    // SAFETY: the opcode is BTRFS_IOC_INO_LOOKUP, whose argument has the layout asserted above; any bytes are valid.
    unsafe { ioctl(opened, Updater::<INO_LOOKUP, InodeLookup>::new(&mut lookup)) }?;
    Ok(lookup.tree_id)
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps this request")]
pub(super) fn filesystem_id(opened: &OwnedFd) -> Result<[u8; 16], Errno> {
    let mut info = FilesystemInfo {
        max_id: 0,
        num_devices: 0,
        fsid: [0; 16],
        rest: [0; 124],
    };
    // SAFETY: the opcode is BTRFS_IOC_FS_INFO, whose argument has the size asserted above; any bytes are valid. Unlike
    // its number says, newer kernels also read it, so that it has to be initialised.
    unsafe { ioctl(opened, Updater::<FS_INFO, FilesystemInfo>::new(&mut info)) }?;
    Ok(info.fsid)
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps this request")]
pub(super) fn enable_quota(opened: &OwnedFd, simple: bool) -> Result<(), Errno> {
    const ENABLE: u64 = 1;
    const ENABLE_SIMPLE: u64 = 4;
    let mut control = QuotaControl {
        command: if simple { ENABLE_SIMPLE } else { ENABLE },
        status: 0,
    };
    // SAFETY: the opcode is BTRFS_IOC_QUOTA_CTL, whose argument has the layout asserted above; any bytes are valid.
    unsafe { ioctl(opened, Updater::<QUOTA_CTL, QuotaControl>::new(&mut control)) }
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps this request")]
pub(super) fn wait_for_rescan(opened: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: the opcode is BTRFS_IOC_QUOTA_RESCAN_WAIT, which has no argument.
    unsafe { ioctl(opened, NoArg::<QUOTA_RESCAN_WAIT>::new()) }
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps this request")]
pub(super) fn remove_quota_group(opened: &OwnedFd, id: u64) -> Result<(), Errno> {
    let group = QuotaGroupCreate { create: 0, id };
    // SAFETY: the opcode is BTRFS_IOC_QGROUP_CREATE, whose argument, only read, has the layout asserted above.
    unsafe { ioctl(opened, Setter::<QGROUP_CREATE, QuotaGroupCreate>::new(group)) }
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps this request")]
pub(super) fn set_limit(subvolume: &OwnedFd, bytes: Option<u64>) -> Result<(), Errno> {
    let limit = QuotaGroupLimit {
        id: 0, // The one of the opened subvolume.
        flags: LIMIT_REFERENCED,
        max_referenced: bytes.unwrap_or(NO_LIMIT),
        max_exclusive: 0,
        reserved_referenced: 0,
        reserved_exclusive: 0,
    };
    // SAFETY: the opcode is BTRFS_IOC_QGROUP_LIMIT, whose argument has the layout asserted above. Unlike its number
    // says, it is only read.
    unsafe { ioctl(subvolume, Setter::<QGROUP_LIMIT, QuotaGroupLimit>::new(limit)) }
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps this request")]
pub(super) fn sync(opened: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: the opcode is BTRFS_IOC_SYNC, which has no argument.
    unsafe { ioctl(opened, NoArg::<SYNC>::new()) }
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps this request")]
pub(super) fn grow(mount_point: &OwnedFd) -> Result<(), Errno> {
    let mut arguments = VolumeArgumentsV1 {
        fd: 0,
        name: [0; 4088],
    };
    arguments.name[..3].copy_from_slice(b"max");
    // SAFETY: the opcode is BTRFS_IOC_RESIZE, whose argument, only read, has the layout asserted above.
    unsafe { ioctl(mount_point, Setter::<RESIZE, VolumeArgumentsV1>::new(arguments)) }
}

/// Ids of the subvolumes directly inside of the one with that id, wherever in it they are.
#[expect(unsafe_code, reason = "neither rustix nor nix wraps this request")]
pub(super) fn children(filesystem: &OwnedFd, id: u64) -> Result<Vec<u64>, Errno> {
    const ROOT_TREE: u64 = 1;
    const ROOT_REF: u32 = 156;
    const ITEMS_MAX: u32 = 4096;
    let mut found = Vec::new();
    let mut from = 0;
    loop {
        let mut search = Search {
            tree_id: ROOT_TREE,
            min_object_id: id,
            max_object_id: id,
            min_offset: from,
            max_offset: u64::MAX,
            min_transid: 0,
            max_transid: u64::MAX,
            min_type: ROOT_REF,
            max_type: ROOT_REF,
            items: ITEMS_MAX,
            unused: 0,
            unused_more: [0; 4],
            buffer: [0; 3992],
        };
        // SAFETY: the opcode is BTRFS_IOC_TREE_SEARCH, whose argument has the layout asserted above; any bytes are
        // valid.
        unsafe { ioctl(filesystem, Updater::<TREE_SEARCH, Search>::new(&mut search)) }?;
        let offsets = offsets_of(&search.buffer, search.items);
        let Some(last) = offsets.last().copied() else {
            return Ok(found);
        };
        found.extend(offsets);
        from = last.checked_add(1).ok_or(Errno::RANGE)?;
    }
}

/// The offsets in the keys of the items that a search has found: `struct btrfs_ioctl_search_header` and the item, one
/// after the other.
fn offsets_of(buffer: &[u8], items: u32) -> Vec<u64> {
    const HEADER_BYTES: usize = 32;
    let mut offsets = Vec::new();
    let mut rest = buffer;
    for _ in 0..items {
        let Some((header, tail)) = rest.split_at_checked(HEADER_BYTES) else {
            break;
        };
        let mut offset = [0; 8];
        offset.copy_from_slice(&header[16..24]);
        offsets.push(u64::from_ne_bytes(offset));
        let mut length = [0; 4];
        length.copy_from_slice(&header[28..32]);
        let length = usize::try_from(u32::from_ne_bytes(length)).unwrap_or(usize::MAX);
        rest = tail.get(length..).unwrap_or_default();
    }
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_a_search_are_walked_by_their_lengths() {
        let item = |offset: u64, length: u32| {
            let mut bytes = vec![0; 16];
            bytes.extend(offset.to_ne_bytes());
            bytes.extend(156u32.to_ne_bytes());
            bytes.extend(length.to_ne_bytes());
            bytes.resize(32 + usize::try_from(length).unwrap(), 9);
            bytes
        };
        let buffer = [item(257, 20), item(300, 0), item(301, 5)].concat();
        assert_eq!(offsets_of(&buffer, 3), [257, 300, 301]);
        assert_eq!(offsets_of(&buffer, 1), [257]);
        assert_eq!(offsets_of(&buffer, 100), [257, 300, 301], "more than there is");
        assert_eq!(offsets_of(&buffer[..40], 3), [257], "cut off");
    }

    #[test]
    fn names_are_checked_before_the_kernel_sees_them() {
        assert!(VolumeArguments::named(b"volume").is_ok());
        assert!(VolumeArguments::named(&[b'x'; 256]).is_err());
        assert!(VolumeArguments::named(b"a\0b").is_err());
    }
}
