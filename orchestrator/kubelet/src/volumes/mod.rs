//! The volume manager: what pods want mounted (desired), what is mounted (actual), and the way from one to the other.
//!
//! ```text
//!   pod ──resolve──> desired ─┐
//!                             ├─ decide ──> one action ──> actual
//!   reconstruction ─> actual ─┘
//! ```
//!
//! A mount goes away only after the pod's worker released the pod, that is, when its containers are known to be dead;
//! that a pod is merely not known is never a reason to unmount.

pub(crate) mod actual;
pub(crate) mod atomic_writer;
pub(crate) mod attach;
pub(crate) mod block;
pub(crate) mod csi_mount;
pub(crate) mod decide;
pub(crate) mod desired;
pub(crate) mod error;
pub(crate) mod expand;
pub(crate) mod grow;
pub(crate) mod host_path;
pub(crate) mod local;
pub(crate) mod manager;
#[cfg(test)]
mod manager_tests;
pub(crate) mod ownership;
pub(crate) mod payload;
pub(crate) mod pod_directory;
pub(crate) mod reconcile;
pub(crate) mod reconstruct;
pub(crate) mod report;
pub(crate) mod resolve;
pub(crate) mod spec;
pub(crate) mod stats;
pub(crate) mod subpath;
pub(crate) mod tokens;
pub(crate) mod vol_data;
