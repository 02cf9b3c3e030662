//! `moorline sidecars`: several sidecars of one driver in one process, for any Kubernetes: one connection to the driver, one
//! watch per kind, one Lease. What the driver can do decides what there is to do.
//!
//! ```text
//!   controller part: provisioner, attacher, resizer, snapshotter, health-monitor ----> API server (behind the Lease, if asked
//!                    for)
//!   node part:       node-driver-registrar, livenessprobe ----> sockets of this node alone
//! ```

use std::{collections::BTreeSet, future::Future, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use moorline_runtime::{Backoff, Informers, Throttle, goflag::parse_duration};
use moorline_sidecars::{
    DriverConnection, SidecarMetrics,
    all::{self, AllConfig, Part},
    registrar::{self, RegistrarConfig},
};
use tokio_util::sync::CancellationToken;

use crate::dropin::{
    self, api,
    election::{ElectionConfig, lead, own_namespace},
    endpoint::Endpoint,
    settings,
};

/// Flags of `moorline sidecars`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The driver's socket: a path or a unix:// URL.
    #[arg(long, value_name = "ADDRESS", default_value = "/run/csi/socket")]
    csi_address: String,
    /// Sidecars to run, by upstream's names, with or without csi-: provisioner, attacher, resizer, snapshotter,
    /// health-monitor, node-driver-registrar, livenessprobe. Default: the first four, and the registrar where
    /// --plugin-registration-dir is given.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    run: Vec<String>,
    /// Kubeconfig of the cluster. Default: $KUBECONFIG, ~/.kube/config, or the pod's service account.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubelet's plugins_registry directory; given, the driver is registered there.
    #[arg(long, value_name = "DIR")]
    plugin_registration_dir: Option<PathBuf>,
    /// The driver's socket as the kubelet sees it. Default: --csi-address.
    #[arg(long, value_name = "PATH")]
    kubelet_registration_path: Option<String>,
    /// Namespace of the ConfigMaps that hold what is being asked of the driver, so that a restart finds volumes it was
    /// killed over. Must stay the same over restarts. Default: the pod's namespace, or that of the kubeconfig's context.
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    ledger_namespace: Option<String>,
    /// Act only while holding a Lease, so that several replicas can run.
    #[arg(long)]
    leader_election: bool,
    /// Namespace of the Lease. Default: the pod's namespace, else `default`.
    #[arg(long, value_name = "NAMESPACE")]
    leader_election_namespace: Option<String>,
    /// How long others wait for a silent leader.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    leader_election_lease_duration: Duration,
    /// How long a leader tries to renew.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    leader_election_renew_deadline: Duration,
    /// Pause between two tries to get or renew the Lease.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    leader_election_retry_period: Duration,
    /// Address of metrics and health, such as :8080. Default: none.
    #[arg(long, value_name = "ADDRESS", default_value = "")]
    http_endpoint: String,
    /// Path of the metrics.
    #[arg(long, value_name = "PATH", default_value = "/metrics")]
    metrics_path: String,
    /// Requests to the API server per second; 0: as many as it takes.
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0)]
    kube_api_qps: f64,
    /// Requests to the API server at once, where --kube-api-qps is set.
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    kube_api_burst: usize,
    /// Deadline of each call to the driver. Default: each sidecar's own (10s, attacher and health monitor 15s, snapshotter 1m).
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// First pause after a failure; it doubles.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    retry_interval_start: Duration,
    /// Longest pause after failures.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    retry_interval_max: Duration,
    /// Filesystem where neither class nor volume names one.
    #[arg(long, value_name = "TYPE", default_value = "")]
    default_fstype: String,
    /// Tell the driver the names of claim and volume.
    #[arg(long)]
    extra_create_metadata: bool,
    /// Delayed binding asks for the selected node's segment only.
    #[arg(long)]
    strict_topology: bool,
    /// Health monitor: tell claims whose pods are on nodes that fail, too.
    #[arg(long)]
    enable_node_watcher: bool,
    /// Health monitor: between two lists of the driver's volumes, where it lists them.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    list_volumes_interval: Duration,
    /// Health monitor: between two rounds over all volumes, where the driver is asked for each.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    monitor_interval: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| String::from("no duration, such as 15s, 1m30s or 250ms"))
}

/// What of `--run` concerns this node alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct NodeParts {
    registrar: bool,
    livenessprobe: bool,
}

/// Runs the sidecars until a signal ends them.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (parts, node) = selected(&args.run, args.plugin_registration_dir.is_some())?;
    if node.registrar && args.plugin_registration_dir.is_none() {
        bail!("--run=node-driver-registrar needs --plugin-registration-dir, the kubelet's plugins_registry");
    }
    dropin::until_signalled(|stop| serve(args, parts, node, stop)).await
}

/// The parts that a list names.
fn selected(names: &[String], is_node: bool) -> anyhow::Result<(BTreeSet<Part>, NodeParts)> {
    let mut node = NodeParts {
        registrar: is_node,
        livenessprobe: false,
    };
    if names.is_empty() {
        return Ok((Part::DEFAULT.into(), node));
    }
    let mut parts = BTreeSet::new();
    for name in names {
        let name = match name.strip_prefix("csi-").unwrap_or(name) {
            "external-health-monitor-controller" => Part::HealthMonitor.as_str(),
            name => name,
        };
        match (Part::ALL.into_iter().find(|part| part.as_str() == name), name) {
            (Some(part), _) => {
                parts.insert(part);
            }
            (None, "node-driver-registrar") => node.registrar = true,
            (None, "livenessprobe") => node.livenessprobe = true,
            (None, _) => bail!(
                "--run: no sidecar {name:?}; there are provisioner, attacher, resizer, snapshotter, health-monitor, \
                 node-driver-registrar, livenessprobe"
            ),
        }
    }
    Ok((parts, node))
}

async fn serve(
    args: Args,
    parts: BTreeSet<Part>,
    node: NodeParts,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let endpoint = Endpoint::new(Some(&args.metrics_path));
    let metrics = SidecarMetrics::register(&endpoint.metrics);
    if node.livenessprobe {
        let timeout = args.timeout.unwrap_or(PROBE_TIMEOUT);
        dropin::liveness_health(&endpoint, args.csi_address.clone(), timeout, metrics.clone());
    } else {
        endpoint.always_healthy();
    }
    endpoint.listen(&args.http_endpoint).await?;
    let address = args.csi_address.clone();
    // The first that fails ends the other, too.
    let all_stop = stop.child_token();
    let registering = ends_all(&all_stop, register(&args, node, all_stop.clone()));
    let controlling = ends_all(
        &all_stop,
        Box::pin(control(&args, parts, (&endpoint, metrics), all_stop.clone())),
    );
    let (registered, controlled) = futures::future::join(registering, controlling).await;
    endpoint.close().await;
    registered?;
    controlled.with_context(|| format!("serve the driver at {address}"))
}

/// Upstream's default of the liveness probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

async fn ends_all(
    stop: &CancellationToken,
    part: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let ended = part.await;
    if ended.is_err() {
        stop.cancel();
    }
    ended
}

/// The node part.
async fn register(args: &Args, node: NodeParts, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(dir) = args.plugin_registration_dir.clone().filter(|_| node.registrar) else {
        stop.cancelled().await;
        return Ok(());
    };
    let address = args.csi_address.trim_start_matches("unix://").to_owned();
    let config = RegistrarConfig {
        csi_address: args.csi_address.clone(),
        plugin_registration_dir: dir,
        kubelet_registration_path: args.kubelet_registration_path.clone().unwrap_or(address),
        timeout: args.timeout.unwrap_or(crate::driver::CALL_TIMEOUT),
    };
    registrar::run(config, stop)
        .await
        .context("register the driver with the kubelet")
}

/// The controller part.
async fn control(
    args: &Args,
    parts: BTreeSet<Part>,
    (endpoint, metrics): (&Endpoint, SidecarMetrics),
    stop: CancellationToken,
) -> anyhow::Result<()> {
    if parts.is_empty() {
        stop.cancelled().await;
        return Ok(());
    }
    let config = config(args, parts)?;
    let timings = settings::timings([
        args.leader_election_lease_duration,
        args.leader_election_renew_deadline,
        args.leader_election_retry_period,
    ])?;
    let api_config = api::config_of_user(args.kubeconfig.as_deref()).await?;
    let throttle = Throttle::new(args.kube_api_qps, args.kube_api_burst);
    let client = api::client(api_config.clone(), throttle)?;
    let lease_client = api::client(api_config, None)?;
    let connection = DriverConnection::observed(&args.csi_address, metrics)?;
    let mut election = None;
    if args.leader_election {
        // The Lease is named after the driver, which may not be there yet.
        let timeout = config.provisioner.timeout;
        let Some(driver_name) = dropin::named(&connection, timeout, &stop).await? else {
            return Ok(());
        };
        election = Some(ElectionConfig {
            lock: format!("moorline-sidecars-{driver_name}"),
            namespace: args
                .leader_election_namespace
                .clone()
                .unwrap_or_else(own_namespace),
            timings,
            labels: Default::default(),
            releases: true,
        });
    }
    let informers_stop = CancellationToken::new();
    let informers = Informers::new(client, informers_stop.clone());
    let ended = lead((lease_client, election), endpoint, &stop, |stop| async {
        Box::pin(all::run_on(&connection, config, informers.clone(), stop)).await?;
        Ok(())
    })
    .await;
    informers_stop.cancel();
    if ended.is_ok() {
        informers.shutdown().await;
    }
    ended
}

fn config(args: &Args, parts: BTreeSet<Part>) -> anyhow::Result<AllConfig> {
    let retry_interval = Backoff {
        min: args.retry_interval_start,
        max: args.retry_interval_max,
    };
    if retry_interval.min.is_zero() || retry_interval.max < retry_interval.min {
        bail!("--retry-interval-start must be above 0, and --retry-interval-max not below it");
    }
    let mut config = AllConfig::new(args.csi_address.clone());
    config.parts = parts;
    if let Some(timeout) = args.timeout {
        config.provisioner.timeout = timeout;
        config.attacher.timeout = timeout;
        config.resizer.timeout = timeout;
        config.snapshotter.timeout = timeout;
        config.health_monitor.timeout = timeout;
    }
    if args.list_volumes_interval.is_zero() || args.monitor_interval.is_zero() {
        bail!("--list-volumes-interval and --monitor-interval must be above 0");
    }
    config.health_monitor.list_volumes_interval = args.list_volumes_interval;
    config.health_monitor.monitor_interval = args.monitor_interval;
    config.health_monitor.watches_nodes = args.enable_node_watcher;
    config.provisioner.retry_interval = retry_interval;
    config.attacher.retry_interval = retry_interval;
    config.resizer.retry_interval = retry_interval;
    config.snapshotter.retry_interval = retry_interval;
    config.provisioner.default_fs_type = Some(args.default_fstype.clone()).filter(|name| !name.is_empty());
    config.attacher.default_fs_type = args.default_fstype.clone();
    config.provisioner.extra_create_metadata = args.extra_create_metadata;
    config.snapshotter.extra_create_metadata = args.extra_create_metadata;
    config.provisioner.strict_topology = args.strict_topology;
    config.provisioner.ledger_namespace = args.ledger_namespace.clone();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn parts() {
        let select = |list: &str, is_node| {
            let names: Vec<String> = list
                .split(',')
                .filter(|name| !name.is_empty())
                .map(String::from)
                .collect();
            selected(&names, is_node)
        };
        let node = |registrar, livenessprobe| NodeParts {
            registrar,
            livenessprobe,
        };
        let all: BTreeSet<Part> = Part::DEFAULT.into();
        let monitor: BTreeSet<Part> = [Part::HealthMonitor].into();
        let cases = [
            ("health-monitor", false, monitor.clone(), node(false, false)),
            (
                "csi-external-health-monitor-controller",
                false,
                monitor,
                node(false, false),
            ),
            ("", false, all.clone(), node(false, false)),
            ("", true, all, node(true, false)),
            (
                "csi-attacher,resizer",
                false,
                [Part::Attacher, Part::Resizer].into(),
                node(false, false),
            ),
            (
                "node-driver-registrar,livenessprobe",
                false,
                [].into(),
                node(true, true),
            ),
            (
                "csi-node-driver-registrar,provisioner",
                false,
                [Part::Provisioner].into(),
                node(true, false),
            ),
        ];
        for (list, is_node, parts, of_node) in cases {
            assert_eq!(select(list, is_node).unwrap(), (parts, of_node), "{list:?}");
        }
        let error = select("provisoner", false).unwrap_err().to_string();
        assert!(error.contains("no sidecar \"provisoner\""), "{error}");
    }

    #[test]
    fn flags_reach_every_part() {
        let line = Line::parse_from([
            "x",
            "--timeout=30s",
            "--retry-interval-start=2s",
            "--default-fstype=xfs",
            "--strict-topology",
            "--run=provisioner,attacher",
        ]);
        let config = config(&line.args, Part::ALL.into()).unwrap();
        let timeouts = [
            config.provisioner.timeout,
            config.attacher.timeout,
            config.resizer.timeout,
        ];
        assert_eq!(timeouts, [Duration::from_secs(30); 3]);
        assert_eq!(config.resizer.retry_interval.min, Duration::from_secs(2));
        assert_eq!(config.provisioner.default_fs_type.as_deref(), Some("xfs"));
        assert!(config.provisioner.strict_topology);
        assert_eq!(line.args.run, ["provisioner", "attacher"]);
        let defaults = Line::parse_from(["x"]).args;
        assert_eq!(
            super::config(&defaults, Part::ALL.into())
                .unwrap()
                .attacher
                .timeout,
            Duration::from_secs(15)
        );
        assert!(Line::try_parse_from(["x", "--timeout=30"]).is_err());
    }
}
