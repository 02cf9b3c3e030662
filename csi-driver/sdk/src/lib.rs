//! What a vendor builds a CSI driver on.
//!
//! A driver implements the traits in [`traits`] that it has something to say about and hands them to
//! [`Driver::builder`]. What it hands over is what it advertises. Everything that all drivers have in common is done
//! here: requests are checked in the specification's terms before the driver sees them, two operations never meet on one
//! volume, work goes on when the caller hangs up, sockets are private, and stopping waits for what is running.
#![doc = include_str!("../EXAMPLE.md")]

mod blocks;
#[cfg(feature = "cli")]
pub mod cli;
pub mod conformance;
pub mod driver;
pub mod endpoint;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod in_flight;
mod look_out;
mod metrics;
pub mod null;
mod operations;
mod readiness;
pub mod request;
mod server;
pub mod snapshot;
#[cfg(test)]
mod testing;
mod tls;
pub mod traits;
pub mod volume;

pub use async_trait::async_trait;
pub use blocks::{BlockKind, BlockRange, BlockSink, CallerGone};
pub use driver::{Driver, DriverInfo, GRACE_PERIOD_DEFAULT, ServeError, ServedElsewhere};
pub use endpoint::{Endpoint, EndpointError, Listener};
pub use error::{DriverError, ErrorKind};
pub use metrics::OperationMetrics;
pub use readiness::ReadySwitch;
pub use tls::{Tls, TlsError, TlsFiles};
