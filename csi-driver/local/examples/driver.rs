//! The reference driver on its own, for trying it and for conformance suites: the flags of `moorline driver`.

use anyhow::Context as _;
use clap::Parser;
use moorline_driver_local::{Args, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(about = "A CSI driver for node-local volumes")]
struct Command {
    #[command(flatten)]
    args: Args,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let config = Config::try_from(Command::parse().args).context("check the flags")?;
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let running = moorline_driver_local::run(config, stop.clone());
    tokio::pin!(running);
    tokio::select! {
        ended = &mut running => return ended.context("run the driver"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    running.await.context("run the driver")
}
