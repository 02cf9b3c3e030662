//! The state directory: where each thing lies.
//!
//! ```text
//! lock                                   held by the runtime that has the directory open
//! images/                                see `image::store`
//! sandboxes/<id>/record.json             written last: a sandbox directory without it is half made
//!                shim.lock               held by the shim from before its first moment to its last
//!                shim.json               which process the shim is
//!                ctl, shim.log           the shim's control socket, its complaints
//!                hosts, hostname, resolv.conf
//! sandboxes/<id>/containers/<id>/record.json    as configured
//!                                progress.json  written by the shim: started, exited
//!                                rootfs/ upper/ work/ mnt/ oci/ config.json termination-log
//! ```

use std::path::{Path, PathBuf};

use crate::container::ContainerId;
use crate::sandbox::SandboxId;

/// Paths below the state directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    pub(crate) fn sandbox(&self, id: &SandboxId) -> SandboxDir {
        SandboxDir {
            path: self.sandboxes().join(&id.0),
        }
    }
}

/// One sandbox's directory.
#[derive(Debug, Clone)]
pub(crate) struct SandboxDir {
    pub(crate) path: PathBuf,
}

impl SandboxDir {
    pub(crate) fn record(&self) -> PathBuf {
        self.path.join("record.json")
    }

    pub(crate) fn shim_lock(&self) -> PathBuf {
        self.path.join("shim.lock")
    }

    pub(crate) fn shim(&self) -> PathBuf {
        self.path.join("shim.json")
    }

    pub(crate) fn shim_log(&self) -> PathBuf {
        self.path.join("shim.log")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.path.join("containers")
    }

    pub(crate) fn container(&self, id: &ContainerId) -> ContainerDir {
        ContainerDir {
            path: self.containers().join(&id.0),
        }
    }
}

/// One container's directory.
#[derive(Debug, Clone)]
pub(crate) struct ContainerDir {
    pub(crate) path: PathBuf,
}

impl ContainerDir {
    pub(crate) fn record(&self) -> PathBuf {
        self.path.join("record.json")
    }

    pub(crate) fn progress(&self) -> PathBuf {
        self.path.join("progress.json")
    }

    pub(crate) fn termination_log(&self) -> PathBuf {
        self.path.join("termination-log")
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// Where the helper puts copies of mounts, in its own mount namespace only.
    pub(crate) fn staging(&self) -> PathBuf {
        self.path.join("mnt")
    }

    /// The OCI library's own state.
    pub(crate) fn oci(&self) -> PathBuf {
        self.path.join("oci")
    }

    pub(crate) fn outcome(&self) -> PathBuf {
        self.path.join("outcome.json")
    }
}
