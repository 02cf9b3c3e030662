//! The error of everything here that is one system call on one path.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// A system call that failed, or a kernel file that could not be understood.
#[derive(Debug, Error)]
pub enum MountError {
    /// A system call failed.
    #[error("{action} {}", path.display())]
    Call {
        /// What was tried, in words.
        action: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// Why the kernel refused.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a mount and said why.
    #[error("mount {source_name} on {} as {fs_type}: {detail}", target.display())]
    Refused {
        /// The device or pseudo source.
        source_name: String,
        /// Where it should have appeared.
        target: PathBuf,
        /// The filesystem type.
        fs_type: String,
        /// The kernel's own words, or the error number's.
        detail: String,
        /// The error number.
        #[source]
        source: io::Error,
    },
    /// A mount option that may not be used here.
    #[error("mount option {option:?} {why}")]
    BadOption {
        /// The option as given.
        option: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A path that does not lead where the caller may go.
    #[error("path {} {why}", path.display())]
    BadPath {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A line of mountinfo that does not follow proc(5).
    #[error("mountinfo line {line:?} lacks {missing}")]
    BadMountinfo {
        /// The line.
        line: String,
        /// The first field that is not there.
        missing: &'static str,
    },
    /// The caller's progress callback asked to stop.
    #[error("{action} {} was cancelled", path.display())]
    Cancelled {
        /// What was going on, in words.
        action: &'static str,
        /// What it was working on.
        path: PathBuf,
    },
}

/// The name by which the kernel knows an open file, for the text of errors only.
pub(crate) fn path_of(file: &impl AsFd) -> PathBuf {
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    std::fs::read_link(&link).unwrap_or_else(|_| link.into())
}

impl MountError {
    pub(crate) fn call(action: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        MountError::Call {
            action,
            path: path.as_ref().to_owned(),
            source: source.into(),
        }
    }

    /// The error number, if the kernel gave one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            MountError::Call { source, .. } | MountError::Refused { source, .. } => source.raw_os_error(),
            MountError::BadOption { .. }
            | MountError::BadPath { .. }
            | MountError::BadMountinfo { .. }
            | MountError::Cancelled { .. } => None,
        }
    }

    fn is(&self, errno: rustix::io::Errno) -> bool {
        self.raw_os_error() == Some(errno.raw_os_error())
    }

    /// There is nothing at that path.
    pub fn is_not_found(&self) -> bool {
        self.is(rustix::io::Errno::NOENT)
    }

    /// Something is there already.
    pub fn is_exists(&self) -> bool {
        self.is(rustix::io::Errno::EXIST)
    }

    /// Somebody still uses it.
    pub fn is_busy(&self) -> bool {
        self.is(rustix::io::Errno::BUSY)
    }

    /// The filesystem below has no room left, or a quota of it is used up.
    pub fn is_no_space(&self) -> bool {
        self.is(rustix::io::Errno::NOSPC) || self.is(rustix::io::Errno::DQUOT)
    }

    /// The kernel or the filesystem can't do this at all.
    pub fn is_unsupported(&self) -> bool {
        self.is(rustix::io::Errno::OPNOTSUPP)
            || self.is(rustix::io::Errno::NOTTY)
            || self.is(rustix::io::Errno::NOSYS)
    }

    /// The caller's own progress callback ended it.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, MountError::Cancelled { .. })
    }

    /// Unmount was asked for something that is not mounted.
    pub fn is_not_mounted(&self) -> bool {
        self.is(rustix::io::Errno::INVAL)
    }

    /// The caller may not do this; usually it is not root.
    pub fn is_permission(&self) -> bool {
        self.is(rustix::io::Errno::PERM) || self.is(rustix::io::Errno::ACCESS)
    }
}
