//! `livenessprobe`: asks a driver over a fresh connection whether it is alive.
//!
//! Fresh, because only that notices a socket file that is gone while an old connection lives on.

use std::time::Duration;

use crate::connection::{AddressError, DriverConnection};
use crate::discovery::probe;
use crate::metrics::SidecarMetrics;
use crate::rpc_class::describe;

/// Why a driver isn't taken for alive.
#[derive(Debug, thiserror::Error)]
pub enum LivenessError {
    /// The driver's address is wrong.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No answer, or a refusal.
    #[error("probe driver: {0}")]
    Probe(String),
    /// The driver answered that it isn't ready.
    #[error("driver is not ready")]
    NotReady,
}

/// One check of the driver, for a health endpoint.
///
/// # Errors
/// Uncertain: the driver isn't there, doesn't answer in time, refuses, or isn't ready.
pub async fn check(csi_address: &str, probe_timeout: Duration) -> Result<(), LivenessError> {
    check_observed(csi_address, probe_timeout, SidecarMetrics::default()).await
}

/// The same, with the call seen in `metrics`.
///
/// # Errors
/// As [`check`].
pub async fn check_observed(
    csi_address: &str,
    probe_timeout: Duration,
    metrics: SidecarMetrics,
) -> Result<(), LivenessError> {
    let connection = DriverConnection::observed(csi_address, metrics)?;
    match probe(&connection, probe_timeout).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(LivenessError::NotReady),
        Err(status) => Err(LivenessError::Probe(describe(&status))),
    }
}
