//! From flags to the exit code.

use std::{
    error::Error,
    future::Future,
    io,
    process::ExitCode,
    sync::{Arc, OnceLock},
};

use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing_subscriber::EnvFilter;

use super::{
    LogFormat, Parsed,
    args::Config,
    http::{self, State},
    parse,
};
use crate::{
    Driver, DriverInfo, EndpointError, OperationMetrics, ServeError, TlsError, driver::DriverBuilder,
};

type BoxError = Box<dyn Error + Send + Sync>;

/// The flags were wrong.
const EXIT_USAGE: u8 = 2;
/// Operations were still running.
const EXIT_GRACE_EXCEEDED: u8 = 3;

#[derive(Debug, Error)]
enum RunError {
    #[error("listen for signals")]
    Signals(#[source] io::Error),
    #[error("serve metrics on {address}")]
    Metrics {
        address: std::net::SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("start the driver")]
    Start(#[source] BoxError),
    #[error("use TLS")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// A driver's whole `main`: reads the flags, sets logging up, lets `build` put the driver together, serves it, and
/// drains on SIGTERM or SIGINT. While `build` runs, `/healthz` says that the driver is starting.
pub fn main<A, Build, Built, E>(info: DriverInfo, build: Build) -> ExitCode
where
    A: clap::Args,
    Build: FnOnce(DriverBuilder, A) -> Built,
    Built: Future<Output = Result<DriverBuilder, E>>,
    E: Into<BoxError>,
{
    let Parsed { config, own } = match parse::<A>(&info, std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(answer) => {
            // Help and version are such answers too. Nobody is left to hear that they can't be printed.
            answer.print().ok();
            let code = u8::try_from(answer.exit_code()).unwrap_or(EXIT_USAGE);
            return ExitCode::from(code);
        }
    };
    set_up_logging(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "The runtime can't be started");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(info, config, |builder| build(builder, own)));
    // Threads that are still blocked in the kernel must not keep the process.
    runtime.shutdown_background();
    code
}

fn set_up_logging(config: &Config) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(config.log_filter));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let result = match config.log_format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    // A program around this one has set its own up: that is the one to use.
    result.ok();
}

async fn run<Built, E>(
    info: DriverInfo,
    config: Config,
    build: impl FnOnce(DriverBuilder) -> Built,
) -> ExitCode
where
    Built: Future<Output = Result<DriverBuilder, E>>,
    E: Into<BoxError>,
{
    let (stop, end) = (CancellationToken::new(), CancellationToken::new());
    let tasks = TaskTracker::new();
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return failed(&error),
    };
    let serving = serve(info, config, build, &stop, &end, &tasks);
    tokio::pin!(serving);
    let result = tokio::select! {
        result = &mut serving => result,
        number = signals.next() => {
            tracing::info!(signal = number, "Draining; a second signal ends at once");
            stop.cancel();
            tokio::select! {
                biased;
                result = &mut serving => result,
                number = signals.next() => {
                    tracing::warn!(signal = number, "Ended by a second signal");
                    return ExitCode::from(128 + number);
                }
            }
        }
    };
    end.cancel();
    tasks.close();
    tasks.wait().await;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Serve(error @ ServeError::GraceExceeded { .. })) => {
            tracing::error!(%error, "The driver was not drained");
            ExitCode::from(EXIT_GRACE_EXCEEDED)
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &RunError) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    tracing::error!(error = text, "The driver has failed");
    ExitCode::FAILURE
}

async fn serve<Built, E>(
    info: DriverInfo,
    config: Config,
    build: impl FnOnce(DriverBuilder) -> Built,
    stop: &CancellationToken,
    end: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<(), RunError>
where
    Built: Future<Output = Result<DriverBuilder, E>>,
    E: Into<BoxError>,
{
    let mut registry = Registry::default();
    let metrics = OperationMetrics::register(&mut registry, &info.name);
    let state = Arc::new(State {
        registry,
        started: OnceLock::new(),
        stop: stop.clone(),
    });
    if let Some(address) = config.metrics_address {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| RunError::Metrics { address, source })?;
        tracing::info!(address = %listener.local_addr().unwrap_or(address), "Serving metrics");
        tasks.spawn(http::serve(listener, Arc::clone(&state), end.clone()));
    }
    let driver_name = info.name.clone();
    let building = build(Driver::builder(info).metrics(metrics));
    let builder = tokio::select! {
        built = building => built.map_err(|error| RunError::Start(error.into()))?,
        // Nothing is served yet, so that nothing is running: a driver recovers after a kill as well.
        () = stop.cancelled() => return Ok(()),
    };
    let listener = match &config.tls {
        Some(files) => config.endpoint.listen_tls(files.load()?).await?,
        None => config.endpoint.listen().await?,
    };
    // The first value stays; this is the only place that sets one.
    state.started.set(builder.shared_readiness()).ok();
    tracing::info!(driver.name = driver_name, endpoint = %config.endpoint, tls = config.tls.is_some(), "Driver is listening");
    let driver = builder.build();
    driver.serve(listener, config.grace_period, stop.clone()).await?;
    tracing::info!("Driver has stopped");
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, RunError> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).map_err(RunError::Signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(RunError::Signals)?,
        })
    }

    /// The number of the next signal.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 15,
            _ = self.interrupt.recv() => 2,
        }
    }
}
