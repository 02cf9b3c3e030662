//! The CSI sidecars: provisioner, attacher, resizer, snapshotter, registrar and their kin, as library functions.
//!
//! Each module behaves like the upstream program of its name (`design/sidecars.md`). [`all`] runs the controller
//! sidecars of one driver over one connection. A pure decider and a flat shell in each; start reading at
//! `provisioner/claim.rs`.

#![forbid(unsafe_code)]

pub mod all;
mod api;
pub mod attacher;
mod capability;
mod connection;
pub mod discovery;
mod driver;
pub mod explain;
mod finalizers;
pub mod health_monitor;
pub mod livenessprobe;
mod metrics;
pub mod node_driver_registrar;
mod observed;
pub mod provisioner;
pub mod resizer;
pub mod rpc_class;
mod secrets;
pub mod snapshotter;
#[cfg(test)]
mod testing;

pub use connection::{AddressError, DriverConnection, parse_address};
pub use discovery::{DiscoveryError, DriverFacts};
pub use metrics::SidecarMetrics;
pub use node_driver_registrar as registrar;

/// Why a controller sidecar ended.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// The driver's address is wrong.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The driver refuses to say who it is.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
}

/// The component that events are written in the name of: driver, machine, and a number of this process.
fn recorder_component(driver_name: &str) -> String {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default();
    format!("{driver_name}_{host}_{}", uuid::Uuid::new_v4())
}

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
