//! The kubelet's side of CSI: calls to a driver's node service, which drivers are there, what a failure means.

pub(crate) mod capability;
pub(crate) mod client;
pub(crate) mod drivers;
