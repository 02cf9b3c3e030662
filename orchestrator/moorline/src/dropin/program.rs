//! What each drop-in does, once its flags are read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use moorline_runtime::Informers;
use moorline_runtime::goflag::Values;
use moorline_runtime::health::Answer;
use moorline_sidecars::discovery::discover_name;
use moorline_sidecars::node_driver_registrar::{self as registrar, RegistrarConfig, RegistrationCheckError};
use moorline_sidecars::provisioner::CapacityConfig;
use moorline_sidecars::{
    DiscoveryError, DriverConnection, SidecarMetrics, attacher, health_monitor, livenessprobe, provisioner,
    resizer, snapshotter,
};
use tokio_util::sync::CancellationToken;

use super::election::lead;
use super::endpoint::Endpoint;
use super::tables::Program;
use super::{api, owner, settings, snapshot_controller};

/// Serves until `stop`.
///
/// # Errors
/// Settings that can't be used, a driver that refuses discovery, a lost Lease.
pub(super) async fn serve(program: Program, values: Values, stop: CancellationToken) -> anyhow::Result<()> {
    tracing::info!(
        program = program.name(),
        version = env!("CARGO_PKG_VERSION"),
        "Starting"
    );
    match program {
        Program::Provisioner
        | Program::Attacher
        | Program::Resizer
        | Program::Snapshotter
        | Program::HealthMonitor => controller(program, values, stop).await,
        Program::SnapshotController => snapshot_controller::serve(values, stop).await,
        Program::Registrar => register(values, stop).await,
        Program::Livenessprobe => probe(values, stop).await,
    }
}

/// A sidecar that works on API objects.
async fn controller(program: Program, values: Values, stop: CancellationToken) -> anyhow::Result<()> {
    let used: &[&str] = match program {
        Program::Provisioner => &[settings::RELEASE, "Topology", settings::CROSS_NAMESPACE],
        Program::Resizer => &[settings::RELEASE, settings::ATTRIBUTES_CLASS],
        Program::Snapshotter => &[settings::RELEASE, settings::GROUPS],
        _ => &[settings::RELEASE],
    };
    settings::check_gates(&values, program.gates(), used)?;
    check(program, &values)?;
    let address = settings::http_endpoint(&values)?;
    let endpoint = Endpoint::new(Some(values.text("metrics-path")));
    endpoint.always_healthy();
    endpoint.listen(&address).await?;
    let metrics = SidecarMetrics::register(&endpoint.metrics);
    let config = api::config(kubeconfig(program, &values).as_deref(), master(program, &values)).await?;
    let client = api::client(config.clone(), settings::throttle(&values))?;
    // Renewals wait for nobody's requests.
    let lease_client = api::client(config, None)?;
    let connection = DriverConnection::observed(values.text("csi-address"), metrics)?;
    let Some(driver_name) = named(&connection, values.duration("timeout"), &stop).await? else {
        return Ok(());
    };
    let election = settings::election(&values, lock(program, &driver_name))?;
    // These outlive the work, so that its last writes are not cut off from what they are decided on.
    let informers_stop = CancellationToken::new();
    let informers = Informers::new(client, informers_stop.clone());
    let ended = lead((lease_client, election), &endpoint, &stop, |stop| {
        work(program, &values, (&connection, informers.clone()), stop)
    })
    .await;
    informers_stop.cancel();
    if ended.is_ok() {
        informers.shutdown().await;
        endpoint.close().await;
    }
    ended
}

/// Finds what is wrong with the flags before anything is waited for.
fn check(program: Program, values: &Values) -> anyhow::Result<()> {
    settings::election(values, String::new())?;
    match program {
        Program::Provisioner => settings::provisioner(values).map(drop),
        Program::Attacher => settings::attacher(values).map(drop),
        Program::Resizer => settings::resizer(values).map(drop),
        Program::Snapshotter => settings::snapshotter(values).map(drop),
        Program::HealthMonitor => settings::health_monitor(values).map(drop),
        Program::SnapshotController | Program::Registrar | Program::Livenessprobe => Ok(()),
    }
}

async fn work(
    program: Program,
    values: &Values,
    (connection, informers): (&DriverConnection, Informers),
    stop: CancellationToken,
) -> anyhow::Result<()> {
    match program {
        Program::Provisioner => {
            let mut config = settings::provisioner(values)?;
            config.capacity = capacity(values, &informers).await?;
            Box::pin(provisioner::run_on(connection, config, informers, stop)).await?;
        }
        Program::Attacher => {
            let config = settings::attacher(values)?;
            Box::pin(attacher::run_on(connection, config, informers, stop)).await?;
        }
        Program::Resizer => {
            let config = settings::resizer(values)?;
            Box::pin(resizer::run_on(connection, config, informers, stop)).await?;
        }
        Program::Snapshotter => {
            let config = settings::snapshotter(values)?;
            Box::pin(snapshotter::run_on(connection, config, informers, stop)).await?;
        }
        Program::HealthMonitor => {
            let config = settings::health_monitor(values)?;
            Box::pin(health_monitor::run_on(connection, config, informers, stop)).await?;
        }
        Program::SnapshotController | Program::Registrar | Program::Livenessprobe => {
            bail!("{} asks no driver to work on objects", program.name())
        }
    }
    Ok(())
}

/// The driver's name, waited for without limit; `None` when stopped.
pub(crate) async fn named(
    connection: &DriverConnection,
    timeout: Duration,
    stop: &CancellationToken,
) -> anyhow::Result<Option<String>> {
    match discover_name(connection, timeout, stop).await {
        Err(DiscoveryError::Stopped) => Ok(None),
        name => name
            .map(Some)
            .with_context(|| format!("discover the driver at {}", connection.path().display())),
    }
}

/// Upstream's name of a sidecar's lock, so that only one of ours and theirs acts.
fn lock(program: Program, driver_name: &str) -> String {
    match program {
        Program::Attacher => format!("external-attacher-leader-{driver_name}"),
        Program::Resizer => format!(
            "external-resizer-{}",
            moorline_runtime::lease::object_name(driver_name)
        ),
        Program::Snapshotter => format!("external-snapshotter-leader-{driver_name}"),
        Program::HealthMonitor => format!("external-health-monitor-leader-{driver_name}"),
        _ => driver_name.replace('/', "-"),
    }
}

/// Upstream's provisioner takes the environment's file, above the flag's.
fn kubeconfig(program: Program, values: &Values) -> Option<PathBuf> {
    let in_environment = std::env::var("KUBECONFIG").ok().filter(|path| !path.is_empty());
    let given = values.some_text("kubeconfig");
    match program {
        Program::Provisioner => in_environment.or(given),
        _ => given,
    }
    .map(PathBuf::from)
}

fn master(program: Program, values: &Values) -> Option<&str> {
    let has_flag = matches!(program, Program::Provisioner | Program::Resizer);
    has_flag
        .then(|| values.text("master"))
        .filter(|master| !master.is_empty())
}

async fn capacity(values: &Values, informers: &Informers) -> anyhow::Result<Option<CapacityConfig>> {
    if !values.flag("enable-capacity") {
        return Ok(None);
    }
    let namespace =
        std::env::var("NAMESPACE").context("--enable-capacity needs NAMESPACE in the environment")?;
    let level = values.int("capacity-ownerref-level");
    let owner = owner::find(informers.client(), &namespace, level).await?;
    Ok(Some(CapacityConfig {
        poll_interval: values.duration("capacity-poll-interval"),
        for_immediate_binding: values.flag("capacity-for-immediate-binding"),
        owner,
        ..CapacityConfig::new(namespace)
    }))
}

/// csi-node-driver-registrar.
async fn register(values: Values, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(kubelet_registration_path) = values.some_text("kubelet-registration-path") else {
        bail!("--kubelet-registration-path is required: the driver's socket as the kubelet sees it");
    };
    if values.text("mode") == "kubelet-registration-probe" {
        return Ok(());
    }
    let port = values.int("health-port");
    let address = match (values.text("http-endpoint"), port) {
        (address, 0) => address.to_owned(),
        ("", port) => format!(":{port}"),
        _ => bail!("only one of --health-port and --http-endpoint can be set"),
    };
    let timeout = values.duration("timeout");
    let config = RegistrarConfig {
        csi_address: values.text("csi-address").to_owned(),
        plugin_registration_dir: PathBuf::from(values.text("plugin-registration-path")),
        kubelet_registration_path,
        timeout,
    };
    let connection = DriverConnection::new(&config.csi_address)?;
    let Some(driver_name) = named(&connection, timeout, &stop).await? else {
        return Ok(());
    };
    let endpoint = Endpoint::new(None);
    registration_health(&endpoint, &config.plugin_registration_dir, driver_name, timeout);
    endpoint.listen(&address).await?;
    registrar::run(config, stop)
        .await
        .context("register the driver with the kubelet")?;
    endpoint.close().await;
    Ok(())
}

/// `/healthz`: whether the registration socket is there and answers.
pub(crate) fn registration_health(endpoint: &Endpoint, dir: &Path, driver_name: String, timeout: Duration) {
    let socket = registrar::socket_path(dir, &driver_name);
    endpoint.site.route("/healthz", move || {
        let (socket, driver_name) = (socket.clone(), driver_name.clone());
        async move {
            match registrar::check(&socket, &driver_name, timeout).await {
                Ok(()) => Answer::of_check(Ok(())),
                Err(error @ RegistrationCheckError::Missing) => {
                    Answer::new(http::StatusCode::NOT_FOUND, error.to_string())
                }
                Err(error) => Answer::of_check(Err(error.to_string())),
            }
        }
    });
}

/// livenessprobe.
async fn probe(values: Values, stop: CancellationToken) -> anyhow::Result<()> {
    let (http, metrics) = (values.text("http-endpoint"), values.text("metrics-address"));
    if !http.is_empty() && (values.text("health-port") != "9808" || !metrics.is_empty()) {
        bail!("--http-endpoint can't be set together with --health-port or --metrics-address");
    }
    let address = match http {
        "" => format!("0.0.0.0:{}", values.text("health-port")),
        http => http.to_owned(),
    };
    let csi_address = values.text("csi-address").to_owned();
    // Together with the health check only at the new flag's address, as upstream.
    let health = Endpoint::new((!http.is_empty()).then(|| values.text("metrics-path")));
    let counted = Endpoint::new(Some(values.text("metrics-path")));
    let of_calls = if http.is_empty() { &counted } else { &health };
    let calls = SidecarMetrics::register(&of_calls.metrics);
    let connection = DriverConnection::observed(&csi_address, calls.clone())?;
    // Until the driver is there nobody listens, and the kubelet's probe fails.
    let timeout = values.duration("probe-timeout");
    if named(&connection, timeout, &stop).await?.is_none() {
        return Ok(());
    }
    liveness_health(&health, csi_address, timeout, calls);
    health.listen(&address).await?;
    counted.listen(metrics).await?;
    stop.cancelled().await;
    health.close().await;
    counted.close().await;
    Ok(())
}

/// `/healthz`: whether the driver answers over a fresh connection.
pub(crate) fn liveness_health(
    endpoint: &Endpoint,
    csi_address: String,
    timeout: Duration,
    calls: SidecarMetrics,
) {
    endpoint.site.route("/healthz", move || {
        let (csi_address, calls) = (csi_address.clone(), calls.clone());
        async move {
            let checked = livenessprobe::check_observed(&csi_address, timeout, calls).await;
            Answer::of_check(checked.map_err(|error| error.to_string()))
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_upstreams() {
        let cases = [
            (Program::Provisioner, "a/b.example", "a-b.example"),
            (
                Program::Attacher,
                "d.example",
                "external-attacher-leader-d.example",
            ),
            (Program::Resizer, "d.example", "external-resizer-d-example"),
            (
                Program::Snapshotter,
                "d.example",
                "external-snapshotter-leader-d.example",
            ),
        ];
        for (program, driver_name, expected) in cases {
            assert_eq!(lock(program, driver_name), expected);
        }
    }
}
