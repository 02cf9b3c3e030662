//! Why a volume operation failed, and what that means for what is mounted.

use std::path::{Path, PathBuf};

use crate::csi::client::RpcError;
use crate::csi::drivers::NotRegistered;

/// What is known of a mount after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// It certainly is not there.
    Final,
    /// It may be there, or may come to be: try again, tear down before forgetting.
    Uncertain,
    /// Nothing was tried: what was known stays true.
    Transient,
}

/// A failed volume operation. Texts end up in events.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error(transparent)]
    NotRegistered(#[from] NotRegistered),
    /// Something the operation stands on could not be had.
    #[error("{0}")]
    Missing(String),
    /// What was asked for makes no sense, or not with what is there.
    #[error("{0}")]
    Refused(String),
    #[error("{action} {}: {source}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{action} {}: {reason}", .path.display())]
    Mount {
        action: &'static str,
        path: PathBuf,
        reason: String,
    },
    /// Published, but what comes after publishing failed.
    #[error("{0}")]
    AfterPublish(Box<VolumeError>),
    #[error("{action}: {source}")]
    Api {
        action: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("task of the volume manager ended without an answer")]
    Lost,
}

impl VolumeError {
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Rpc(error) if error.is_final() => Class::Final,
            Self::Rpc(_) | Self::AfterPublish(_) | Self::Lost => Class::Uncertain,
            Self::NotRegistered(_) | Self::Missing(_) | Self::Api { .. } => Class::Transient,
            Self::Refused(_) | Self::Io { .. } | Self::Mount { .. } => Class::Final,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self::Api {
            action,
            source: Box::new(source),
        }
    }
}

#[cfg(feature = "simulated")]
thread_local! {
    static STAYS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// From now on, [`blocking`] does the work at once when called on this thread: simulated time stands still meanwhile.
#[cfg(feature = "simulated")]
pub(crate) fn stay_on_this_thread() {
    STAYS.set(true);
}

/// Runs what may block in the kernel where it blocks nobody else.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    #[cfg(feature = "simulated")]
    if STAYS.get() {
        return work();
    }
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(VolumeError::Lost))
}
