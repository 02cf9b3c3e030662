//! The reference driver as a program of its own: `moorline driver` with the same flags, in a ninth of the size. It is what a
//! node should run that has no other use for `moorline`.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, error::ErrorKind};
use moorline_driver_local as local;
use moorline_driver_sdk::cli;

/// A CSI driver for node-local volumes.
#[derive(Debug, Parser)]
#[command(name = "moorline-driver", version)]
struct Command {
    #[command(flatten)]
    log: cli::LogArgs,
    #[command(flatten)]
    driver: local::Args,
}

fn main() -> ExitCode {
    let command = Command::parse();
    command.log.set_up();
    let config = match local::Config::try_from(command.driver) {
        Ok(config) => config,
        // Never returns.
        Err(faults) => Command::command()
            .error(ErrorKind::ValueValidation, faults)
            .exit(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("driver")
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => Command::command()
            .error(ErrorKind::Io, format!("start the async runtime: {error}"))
            .exit(),
    };
    let code = runtime.block_on(cli::until_signalled(|stop| local::run(config, stop)));
    // Blocking threads that hang in the kernel must not keep a driver alive that was told to stop.
    runtime.shutdown_background();
    code
}
