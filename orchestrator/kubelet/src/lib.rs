//! The node agent: pods, volumes, plugin registration.
//!
//! The kubelet talks to the Kubernetes API, to CSI drivers over their sockets and to a container runtime through its
//! trait; it never imports the API server. Start reading at [`run`], then `pods/decide.rs` (what happens to a pod) and
//! `volumes/decide.rs` (what happens to a volume). Everything else gathers what these two see or does what they say.

#![forbid(unsafe_code)]

mod config;
mod csi;
pub mod explain;
mod inotify;
mod node;
mod objects;
mod paths;
mod plugins;
mod pods;
mod server;
mod start;
#[cfg(test)]
mod testing;
mod volumes;
mod wiring;

pub use config::{Config, ServingIdentity, Timings};
#[cfg(feature = "simulated")]
pub use start::simulated;
pub use start::{Error, run};
