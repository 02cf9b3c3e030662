//! What can go wrong at the runtime's interface, and which kind of failure each one is.

use std::path::PathBuf;
use std::time::Duration;

use crate::container::ContainerId;
use crate::sandbox::SandboxId;

/// What a caller may conclude from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The same call will fail again until somebody changes what it was asked for or the machine.
    Final,
    /// Worth trying again later; nothing is half done that a repeated call wouldn't repair.
    Retry,
    /// A broken invariant.
    Bug,
}

/// Why a sandbox or container call failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Containers need rights this process doesn't have.
    #[error("running containers needs {missing}: start moorline as root or give it these rights")]
    NotPermitted {
        /// What is missing, in words.
        missing: String,
    },
    /// The state directory belongs to another process.
    #[error("state directory {} is used by process {pid}", path.display())]
    StateDirectoryInUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, 0 when unknown.
        pid: u32,
    },
    /// No such sandbox.
    #[error("sandbox {0} is not known")]
    SandboxNotFound(SandboxId),
    /// The sandbox was stopped or its shim died.
    #[error("sandbox {0} is not ready")]
    SandboxNotReady(SandboxId),
    /// No such container.
    #[error("container {0} is not known")]
    ContainerNotFound(ContainerId),
    /// Exec in a container that doesn't run.
    #[error("container {0} is not running")]
    ContainerNotRunning(ContainerId),
    /// The request can't be met as it stands.
    #[error("{what}: {why}")]
    Invalid {
        /// The part of the request.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The container's process could not be set up or started.
    #[error("start container {id}: {why}")]
    StartFailed {
        /// The container.
        id: ContainerId,
        /// What the OCI library or the kernel said.
        why: String,
    },
    /// A command in a container took too long and was killed.
    #[error("command timed out after {} ms", timeout.as_millis())]
    ExecTimeout {
        /// The time it was given.
        timeout: Duration,
    },
    /// A command could not be started in a container.
    #[error("exec in container {id}: {why}")]
    ExecFailed {
        /// The container.
        id: ContainerId,
        /// What the OCI library or the kernel said.
        why: String,
    },
    /// The pod's shim process could not be started or doesn't answer.
    #[error("shim of sandbox {sandbox_id}: {why}")]
    Shim {
        /// The sandbox.
        sandbox_id: SandboxId,
        /// What happened.
        why: String,
    },
    /// The image is not usable.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A system call failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried, as the beginning of a sentence.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A record on disk doesn't say what we write there.
    #[error("record {} is damaged: {why}", path.display())]
    DamagedRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A task of the runtime ended without an answer.
    #[error("{0} ended without an answer")]
    Lost(&'static str),
}

impl RuntimeError {
    /// What a caller may conclude.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotPermitted { .. }
            | Self::StateDirectoryInUse { .. }
            | Self::Invalid { .. }
            | Self::SandboxNotFound(_)
            | Self::ContainerNotFound(_)
            | Self::ContainerNotRunning(_)
            | Self::StartFailed { .. }
            | Self::ExecFailed { .. } => ErrorClass::Final,
            Self::SandboxNotReady(_)
            | Self::ExecTimeout { .. }
            | Self::Shim { .. }
            | Self::Image(_)
            | Self::Io { .. } => ErrorClass::Retry,
            Self::DamagedRecord { .. } | Self::Lost(_) => ErrorClass::Bug,
        }
    }
}

/// Why an image call failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The store doesn't hold it, and there is no registry to pull from.
    #[error("image {image} is not on this machine: load it with `moorline image load FILE`{}", hint(*.host_image))]
    NotPresent {
        /// The full name looked for.
        image: String,
        /// The built-in image was asked for, which is off.
        host_image: bool,
    },
    /// The reference can't be read.
    #[error("image name {name:?}: {why}")]
    InvalidName {
        /// As given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A container is made of it.
    #[error("image {image} is used by container {container_id}")]
    InUse {
        /// The image.
        image: String,
        /// One of its users.
        container_id: ContainerId,
    },
    /// The archive is damaged, hostile, or of an unknown form.
    #[error("image archive {}: {why}", archive.display())]
    BadArchive {
        /// The file.
        archive: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A system call failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried, as the beginning of a sentence.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A record on disk doesn't say what we write there.
    #[error("record {} is damaged: {why}", path.display())]
    DamagedRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A task of the store ended without an answer.
    #[error("{0} ended without an answer")]
    Lost(&'static str),
}

fn hint(host_image: bool) -> &'static str {
    if host_image {
        ", or start moorline with --host-image to use the machine's own files"
    } else {
        ""
    }
}
