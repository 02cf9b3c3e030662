//! The `moorline` command: a whole cluster in one process, and the parts of it one by one.
//!
//! [`cluster::Cluster`] wires the parts together over `kube::Client`, the driver's socket and the kubelet's registration
//! directory; nothing else passes between them. [`main`] is the command line.

pub mod args;
pub mod cluster;
pub mod demo;
pub mod down;
pub mod image;
pub mod privilege;
pub mod sidecars;
pub mod state_dir;
pub mod telemetry;
pub mod up;

mod defaults;
mod driver;
mod image_socket;
mod signals;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::args::{Args, Command};

/// Parses the command line, runs it, and says by the exit code how it ended: 0 well, 1 failed, 2 wrong usage.
pub fn main() -> ExitCode {
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

fn run(args: Args) -> anyhow::Result<ExitCode> {
    // A driver's work is done by the kernel, on blocking threads; between them and its callers there is one socket, and
    // a second thread at it costs more in wake-ups than it does.
    let mut runtime = match args.command {
        Command::Driver(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime
        .enable_all()
        .thread_name("moorline")
        .build()
        .context("start the async runtime")?;
    let outcome = runtime.block_on(async {
        match args.command {
            Command::Up(up) => up::run(up).await,
            Command::Demo(demo) => demo::run(demo).await,
            Command::Down(down) => down::run(down).await,
            Command::Image(image) => image::run(image).await,
            Command::Driver(driver) => driver::run(*driver).await,
            Command::Sidecars(sidecars) => sidecars::run(sidecars).await,
        }
    });
    // Blocking threads that hang in the kernel must not keep a finished command alive.
    runtime.shutdown_background();
    outcome
}
