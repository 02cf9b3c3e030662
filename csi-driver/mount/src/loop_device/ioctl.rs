//! The loop driver's ioctls, as `linux/loop.h` numbers them. The only place that speaks them.

use std::{fs::File, io, os::fd::AsRawFd as _};

use nix::libc::{self, c_int, c_ulong};

use super::AttachOptions;

const LOOP_CLR_FD: c_ulong = 0x4C01;
const LOOP_SET_STATUS64: c_ulong = 0x4C04;
const LOOP_GET_STATUS64: c_ulong = 0x4C05;
const LOOP_SET_CAPACITY: c_ulong = 0x4C07;
const LOOP_SET_DIRECT_IO: c_ulong = 0x4C08;
const LOOP_CONFIGURE: c_ulong = 0x4C0A;
const LOOP_CTL_ADD: c_ulong = 0x4C80;
const LOOP_CTL_GET_FREE: c_ulong = 0x4C82;

pub(super) const FLAG_READ_ONLY: u32 = 1;
pub(super) const FLAG_AUTOCLEAR: u32 = 4;
pub(super) const FLAG_DIRECT_IO: u32 = 16;
const NAME_BYTES_MAX: usize = 64;

/// The kernel's `struct loop_info64`.
#[repr(C)]
#[derive(Clone)]
pub(super) struct LoopInfo {
    pub(super) lo_device: u64,
    pub(super) lo_inode: u64,
    lo_rdevice: u64,
    lo_offset: u64,
    lo_sizelimit: u64,
    lo_number: u32,
    lo_encrypt_type: u32,
    lo_encrypt_key_size: u32,
    pub(super) lo_flags: u32,
    lo_file_name: [u8; NAME_BYTES_MAX],
    lo_crypt_name: [u8; NAME_BYTES_MAX],
    lo_encrypt_key: [u8; 32],
    lo_init: [u64; 2],
}

const EMPTY: LoopInfo = LoopInfo {
    lo_device: 0,
    lo_inode: 0,
    lo_rdevice: 0,
    lo_offset: 0,
    lo_sizelimit: 0,
    lo_number: 0,
    lo_encrypt_type: 0,
    lo_encrypt_key_size: 0,
    lo_flags: 0,
    lo_file_name: [0; NAME_BYTES_MAX],
    lo_crypt_name: [0; NAME_BYTES_MAX],
    lo_encrypt_key: [0; 32],
    lo_init: [0; 2],
};

/// The kernel's `struct loop_config`.
#[repr(C)]
pub(super) struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

// The layouts are the kernel's interface: a slip here would corrupt memory.
const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

/// Everything that [`configure`] sets in one step. `backing` must stay open until then.
pub(super) fn config(backing: &File, name: &[u8], options: AttachOptions) -> LoopConfig {
    let mut info = EMPTY;
    let flags = [
        (options.read_only, FLAG_READ_ONLY),
        (options.autoclear, FLAG_AUTOCLEAR),
        (options.direct_io, FLAG_DIRECT_IO),
    ];
    info.lo_flags = flags
        .iter()
        .filter(|(wanted, _)| *wanted)
        .fold(0, |all, (_, flag)| all | flag);
    // For `losetup` to show; one byte is left for the nul.
    let length = name.len().min(NAME_BYTES_MAX - 1);
    info.lo_file_name[..length].copy_from_slice(&name[..length]);
    LoopConfig {
        fd: u32::try_from(backing.as_raw_fd()).expect("an open descriptor is not negative"),
        block_size: options.block_size,
        info,
        reserved: [0; 8],
    }
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

#[expect(
    unsafe_code,
    reason = "ioctl(2) has no safe wrapper for a request whose answer is its return value"
)]
pub(super) fn free_device(control: &File) -> io::Result<c_int> {
    // SAFETY: the descriptor is open; this request takes no argument and writes no memory.
    check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) })
}

#[expect(
    unsafe_code,
    reason = "ioctl(2) has no safe wrapper for a request whose answer is its return value"
)]
pub(super) fn new_device(control: &File) -> io::Result<c_int> {
    const ANY_NUMBER: c_int = -1;
    // SAFETY: the descriptor is open; the argument is a plain number and no memory is written.
    check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_ADD as _, ANY_NUMBER) })
}

#[expect(
    unsafe_code,
    reason = "ioctl(2) has no safe wrapper for driver-specific structs"
)]
pub(super) fn configure(device: &File, config: &LoopConfig) -> io::Result<()> {
    // SAFETY: the descriptor is open; the kernel only reads `config`, a live value of the layout asserted above.
    check(unsafe {
        libc::ioctl(
            device.as_raw_fd(),
            LOOP_CONFIGURE as _,
            std::ptr::from_ref(config),
        )
    })
    .map(drop)
}

#[expect(
    unsafe_code,
    reason = "ioctl(2) has no safe wrapper for driver-specific structs"
)]
pub(super) fn status(device: &File) -> io::Result<LoopInfo> {
    let mut info = EMPTY;
    // SAFETY: the descriptor is open; the kernel writes at most `info`, a live value of the layout asserted above, all
    // of whose bit patterns are valid.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &raw mut info) })?;
    Ok(info)
}

#[expect(
    unsafe_code,
    reason = "ioctl(2) has no safe wrapper for driver-specific structs"
)]
pub(super) fn set_status(device: &File, info: &LoopInfo) -> io::Result<()> {
    // SAFETY: the descriptor is open; the kernel only reads `info`, a live value of the layout asserted above.
    check(unsafe {
        libc::ioctl(
            device.as_raw_fd(),
            LOOP_SET_STATUS64 as _,
            std::ptr::from_ref(info),
        )
    })
    .map(drop)
}

#[expect(
    unsafe_code,
    reason = "ioctl(2) has no safe wrapper for requests without an argument"
)]
pub(super) fn set_capacity(device: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open; this request takes no argument and writes no memory.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY as _) }).map(drop)
}

#[expect(
    unsafe_code,
    reason = "ioctl(2) has no safe wrapper for requests without an argument"
)]
pub(super) fn clear(device: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open; this request takes no argument and writes no memory.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD as _) }).map(drop)
}

#[expect(
    unsafe_code,
    reason = "ioctl(2) has no safe wrapper for a request whose argument is a number"
)]
pub(super) fn set_direct_io(device: &File, on: bool) -> io::Result<()> {
    // SAFETY: the descriptor is open; the argument is a plain number and no memory is written.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_DIRECT_IO as _, c_ulong::from(on)) }).map(drop)
}
