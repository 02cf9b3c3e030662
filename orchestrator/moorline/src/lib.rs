//! The `moorline` command: a whole cluster in one process, and the parts of it one by one.
//!
//! [`cluster::Cluster`] wires the parts together over `kube::Client`, the driver's socket and the kubelet's registration
//! directory; nothing else passes between them. [`main`] is the command line.

pub mod args;
pub mod cluster;
pub mod demo;
pub mod diagnose;
pub mod down;
pub mod image;
pub mod privilege;
pub mod sidecars;
pub mod state_dir;
pub mod telemetry;
pub mod up;

mod defaults;
mod driver;
mod dropin;
mod image_socket;
mod signals;

use std::{ffi::OsString, future::Future, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::Parser as _;

use crate::args::{Args, Command};

pub use dropin::run_if_called;

/// Parses the command line, runs it, and says by the exit code how it ended: 0 well, 1 failed, 2 wrong usage.
pub fn main() -> ExitCode {
    // Read by other rules than our own flags, and before them: `-v=5` is no error there.
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = words
        .split_first()
        .and_then(|(verb, rest)| handed_on(verb.to_str()?, rest))
    {
        return code;
    }
    let args = Args::parse();
    telemetry::init(args.log_format, args.verbose, args.command.default_level());
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            telemetry::say_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Commands whose flags are another program's.
fn handed_on(verb: &str, words: &[OsString]) -> Option<ExitCode> {
    match (verb, words.split_first()) {
        ("controllers", _) => Some(dropin::run_controllers(words.to_vec())),
        ("sidecar", Some((name, rest))) if !name.to_string_lossy().starts_with('-') => {
            Some(dropin::run_named(&name.to_string_lossy(), rest.to_vec()))
        }
        _ => None,
    }
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    // A driver's work is done by the kernel, on blocking threads; between them and its callers there is one socket, and
    // a second thread at it costs more in wake-ups than it does.
    let builder = match args.command {
        Command::Driver(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    on_runtime(builder, async {
        match args.command {
            Command::Up(up) => up::run(up).await,
            Command::Demo(demo) => demo::run(demo).await,
            Command::Down(down) => down::run(down).await,
            Command::Diagnose(diagnose) => Box::pin(diagnose::run(diagnose)).await,
            Command::Image(image) => image::run(image).await,
            Command::Driver(driver) => driver::run(*driver).await,
            Command::Sidecars(sidecars) => Box::pin(sidecars::run(*sidecars)).await,
            Command::Sidecar(_) | Command::Controllers(_) => {
                bail!(
                    "our own flags can't stand before this command: put those of the other program behind it"
                )
            }
        }
    })
}

/// Runs a command's future on a runtime of its own.
fn on_runtime(
    mut builder: tokio::runtime::Builder,
    command: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let runtime = builder
        .enable_all()
        .thread_name("moorline")
        .build()
        .context("start the async runtime")?;
    let outcome = runtime.block_on(command);
    // Blocking threads that hang in the kernel must not keep a finished command alive.
    runtime.shutdown_background();
    outcome
}
