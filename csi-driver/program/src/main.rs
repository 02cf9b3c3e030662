//! The reference driver as a program of its own: `moorline driver` with the same flags, in a tenth of the size. It is what a
//! node should run that has no other use for `moorline`.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::{CommandFactory as _, Parser, error::ErrorKind};
use moorline_driver_local as local;
use moorline_driver_sdk::cli::{self, LogFormat};
use tracing_subscriber::EnvFilter;

/// A CSI driver for node-local volumes.
#[derive(Debug, Parser)]
#[command(name = "moorline-driver", version)]
struct Command {
    /// How log lines are written, to standard error.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Log more: -v decisions and their reasons, -vv payloads. RUST_LOG overrides it.
    #[arg(long, short, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(flatten)]
    driver: local::Args,
}

fn main() -> ExitCode {
    let command = Command::parse();
    log(command.log_format, command.verbose);
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

fn log(format: LogFormat, verbose: u8) {
    let filter = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace,h2=info,hyper=info,tower=info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
