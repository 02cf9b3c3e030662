//! What every driver's `main` does: flags, logs, metrics, signals, draining, exit codes.
//!
//! ```no_run
//! use std::{process::ExitCode, sync::Arc};
//!
//! use moorline_driver_sdk::{DriverError, DriverInfo, cli};
//!
//! #[derive(clap::Args)]
//! struct Flags {
//!     /// Directory with the volumes
//!     #[arg(long, value_name = "DIR")]
//!     pool: std::path::PathBuf,
//! }
//!
//! fn main() -> ExitCode {
//!     let info = DriverInfo::new("pool.example.com", env!("CARGO_PKG_VERSION"));
//!     cli::main(info, |driver, flags: Flags| async move {
//!         tracing::info!(pool = %flags.pool.display(), "Opening");
//!         Ok::<_, DriverError>(driver)
//!     })
//! }
//! ```
//!
//! A program with a command line and logs of its own takes [`ServingArgs`], and [`LogArgs`] if it has no logs yet, among its flags and serves through [`Starting`],
//! in [`until_signalled`] or under a token of its own.
//!
//! | exit code | meaning |
//! | --- | --- |
//! | 0 | asked to stop, and everything that was running has ended |
//! | 1 | the driver could not start, or failed |
//! | 2 | the flags are wrong |
//! | 3 | operations outlasted the grace period; they were named in the log |
//! | 128 + N | a second signal N came while draining |

mod args;
mod http;
mod run;

pub use args::{LogArgs, LogFormat, NoArgs, Serving, ServingArgs};
use args::{Parsed, parse};
pub use run::{ServingError, Starting, main, until_signalled};
