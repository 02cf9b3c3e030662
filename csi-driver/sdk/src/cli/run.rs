//! From flags to the exit code.

use std::{
    error::Error,
    future::Future,
    io,
    num::NonZero,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    runtime::{Handle, RuntimeFlavor},
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing_subscriber::EnvFilter;

use super::{
    LogFormat, Parsed, Serving,
    args::Logging,
    http::{self, State},
    parse,
};
use crate::{
    Driver, DriverInfo, EndpointError, OperationMetrics, ServeError, TlsError, driver::DriverBuilder,
};

type BoxError = Box<dyn Error + Send + Sync>;

/// The flags were wrong.
const EXIT_USAGE: u8 = 2;
/// About as long as it takes to wake a thread on a virtual machine.
const BUSY_POLL_DEFAULT: Duration = Duration::from_micros(50);
/// Operations were still running.
const EXIT_GRACE_EXCEEDED: u8 = 3;

/// Why a driver was not served to its end.
#[derive(Debug, Error)]
pub enum ServingError {
    /// The process can't be told to stop.
    #[error("listen for signals")]
    Signals(#[source] io::Error),
    /// Nothing can listen there.
    #[error("serve metrics on {address}")]
    Metrics {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The driver could not be put together.
    #[error("start the driver")]
    Start(#[source] BoxError),
    /// The certificates can't be used.
    #[error("use TLS")]
    Tls(#[from] TlsError),
    /// The endpoint can't be listened on.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The transport failed, or operations outlasted the grace period.
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
    let Parsed {
        serving,
        logging,
        own,
    } = match parse::<A>(&info, std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(answer) => {
            // Help and version are such answers too. Nobody is left to hear that they can't be printed.
            answer.print().ok();
            let code = u8::try_from(answer.exit_code()).unwrap_or(EXIT_USAGE);
            return ExitCode::from(code);
        }
    };
    set_up_logging(&logging);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "The runtime can't be started");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(until_signalled(|stop| async move {
        let starting = Starting::new(&info.name, serving, Registry::default(), stop.clone()).await?;
        let building = build(Driver::builder(info), own);
        let builder = tokio::select! {
            built = building => built.map_err(|error| ServingError::Start(error.into()))?,
            // Nothing is served yet, so that nothing is running: a driver recovers after a kill as well.
            () = stop.cancelled() => return Ok(()),
        };
        starting.serve(builder).await
    }));
    // Threads that are still blocked in the kernel must not keep the process.
    runtime.shutdown_background();
    code
}

pub(super) fn set_up_logging(logging: &Logging) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(logging.filter));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let result = match logging.format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    // A program around this one has set its own up: that is the one to use.
    result.ok();
}

/// Serves until SIGTERM or SIGINT, which cancel the token that `serve` gets; a second signal ends at once. Logs how it
/// ended; the exit codes are those in the [module's table](super). Sets up no logging: for programs that have their own.
pub async fn until_signalled<Served, E>(serve: impl FnOnce(CancellationToken) -> Served) -> ExitCode
where
    Served: Future<Output = Result<(), E>>,
    E: Into<ServingError>,
{
    let stop = CancellationToken::new();
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return failed(&error),
    };
    // On the heap: the future of a whole driver is large.
    let mut serving = Box::pin(serve(stop.clone()));
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
    match result.map_err(E::into) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ServingError::Serve(error @ ServeError::GraceExceeded { .. })) => {
            tracing::error!(%error, "The driver was not drained");
            ExitCode::from(EXIT_GRACE_EXCEEDED)
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &ServingError) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    tracing::error!(error = text, "The driver has failed");
    ExitCode::FAILURE
}

/// A driver that is being put together: its metrics can be asked for, and `/healthz` says that it is starting. Dropped,
/// it is gone.
#[derive(Debug)]
pub struct Starting {
    driver_name: String,
    serving: Serving,
    metrics: OperationMetrics,
    state: Arc<State>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Ends the tasks.
    end: DropGuard,
}

impl Starting {
    /// Serves metrics, if they are wanted: those of `registry` and those of the calls to come.
    ///
    /// # Errors
    /// When nothing can listen at the address for metrics.
    pub async fn new(
        driver_name: &str,
        serving: Serving,
        mut registry: Registry,
        stop: CancellationToken,
    ) -> Result<Self, ServingError> {
        let metrics = OperationMetrics::register(&mut registry, driver_name);
        let state = Arc::new(State {
            registry,
            started: OnceLock::new(),
            stop: stop.clone(),
        });
        let (tasks, end) = (TaskTracker::new(), CancellationToken::new());
        if let Some(address) = serving.metrics_address {
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|source| ServingError::Metrics { address, source })?;
            tracing::info!(address = %listener.local_addr().unwrap_or(address), "Serving metrics");
            tasks.spawn(http::serve(listener, Arc::clone(&state), end.clone()));
        }
        Ok(Starting {
            driver_name: driver_name.to_owned(),
            serving,
            metrics,
            state,
            stop,
            tasks,
            end: end.drop_guard(),
        })
    }

    /// Listens, serves the driver until it is to stop, and waits for what is running then.
    ///
    /// # Errors
    /// When the endpoint or its certificates can't be used, the transport fails, or operations outlast the grace period.
    pub async fn serve(self, builder: DriverBuilder) -> Result<(), ServingError> {
        let served = self.serve_driver(builder).await;
        drop(self.end);
        self.tasks.close();
        self.tasks.wait().await;
        served
    }

    async fn serve_driver(&self, builder: DriverBuilder) -> Result<(), ServingError> {
        let Serving { endpoint, tls, .. } = &self.serving;
        let listener = match tls {
            Some(files) => endpoint.listen_tls(files.load()?).await?,
            None => endpoint.listen().await?,
        };
        // The first value stays; this is the only place that sets one.
        self.state.started.set(builder.shared_readiness()).ok();
        tracing::info!(driver.name = self.driver_name, %endpoint, tls = tls.is_some(), "Driver is listening");
        let busy_poll = self.serving.busy_poll.unwrap_or_else(|| {
            let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
            busy_poll_default(Handle::current().runtime_flavor(), processors)
        });
        let driver = builder.metrics(self.metrics.clone()).busy_poll(busy_poll).build();
        driver
            .serve(listener, self.serving.grace_period, self.stop.clone())
            .await?;
        tracing::info!("Driver has stopped");
        Ok(())
    }
}

/// Where it costs nobody anything: the thread would sleep, and there is another processor.
fn busy_poll_default(flavor: RuntimeFlavor, processors: usize) -> Duration {
    match flavor {
        RuntimeFlavor::CurrentThread if processors > 1 => BUSY_POLL_DEFAULT,
        _ => Duration::ZERO,
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, ServingError> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).map_err(ServingError::Signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(ServingError::Signals)?,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_out_unasked() {
        let cases = [
            (RuntimeFlavor::CurrentThread, 2, BUSY_POLL_DEFAULT),
            (RuntimeFlavor::CurrentThread, 1, Duration::ZERO),
            (RuntimeFlavor::MultiThread, 8, Duration::ZERO),
        ];
        for (flavor, processors, expected) in cases {
            let name = format!("{flavor:?}, {processors}");
            assert_eq!(busy_poll_default(flavor, processors), expected, "{name}");
        }
    }
}
