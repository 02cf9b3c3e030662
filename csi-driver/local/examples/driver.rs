//! The reference driver on its own, for trying it and for conformance suites: the flags of `moorline driver`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use moorline_driver_local::{Args, Config};
use moorline_driver_sdk::cli;

#[derive(Parser)]
#[command(about = "A CSI driver for node-local volumes")]
struct Command {
    #[command(flatten)]
    args: Args,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let config = Config::try_from(Command::parse().args).context("check the flags")?;
    Ok(cli::until_signalled(|stop| moorline_driver_local::run(config, stop)).await)
}
