//! Linux storage primitives: mounts, loop devices, filesystems, sizes, usage. Knows nothing of CSI or Kubernetes.
//!
//! Every function here may block in the kernel: async callers run it on a bounded blocking pool. Mounts and loop
//! devices are observed (`mountinfo`, `statx`, `/sys/block`), never remembered. Paths that come from somebody else are
//! resolved beneath an opened directory, see [`beneath`].
//!
//! | module | for |
//! | --- | --- |
//! | [`mount`] | mount, bind, unmount, propagation, "is this a mount point?" |
//! | [`mount_options`] | the `-o` words, split into per-mount attributes and filesystem parameters |
//! | [`mountinfo`] | the mount table |
//! | [`beneath`] | making, mounting on and removing paths without following symlinks |
//! | [`copy`] | files and trees: shared blocks where the filesystem can, else holes kept and attributes too |
//! | [`extents`] | where a file's data is |
//! | [`allocate`] | reserving and giving back a file's blocks |
//! | [`freeze`] | holding a mounted filesystem still |
//! | [`group`] | giving a directory to a group |
//! | [`loop_device`] | files as block devices |
//! | [`filesystem`] | probe, make, check and grow ext4, xfs and btrfs; new UUIDs for copies |
//! | [`btrfs`] | subvolumes, their snapshots and limits |
//! | [`project_quota`] | limits for plain directories |
//! | [`io_limits`] | how fast a device may be read and written |
//! | [`usage`] | bytes and inodes of a filesystem, size of a block device |
//! | [`durable`] | files that survive a power cut |
//! | [`tool`] | running a filesystem tool with a deadline |

#![cfg(target_os = "linux")]

pub mod allocate;
pub mod beneath;
pub mod btrfs;
pub mod copy;
pub mod durable;
mod error;
pub mod extents;
pub mod filesystem;
pub mod freeze;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod group;
pub mod io_limits;
pub mod loop_device;
pub mod mount;
pub mod mount_options;
pub mod mountinfo;
pub mod project_quota;
#[doc(hidden)]
pub mod superblock;
pub mod tool;
pub mod usage;

pub use error::MountError;

/// Runs the README's example as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
