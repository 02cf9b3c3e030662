//! From flags to the settings of each sidecar. Pure, but for the environment that upstream reads, too.

use std::time::Duration;

use anyhow::{Context as _, bail};
use moorline_runtime::goflag::Values;
use moorline_runtime::lease::Timings;
use moorline_runtime::{Backoff, Throttle};
use moorline_sidecars::attacher::AttacherConfig;
use moorline_sidecars::health_monitor::HealthMonitorConfig;
use moorline_sidecars::provisioner::ProvisionerConfig;
use moorline_sidecars::resizer::ResizerConfig;
use moorline_sidecars::snapshotter::SnapshotterConfig;
use moorline_volume_controllers::snapshot;

use super::election::{ElectionConfig, own_namespace};

/// A switch that every sidecar has, and that is on here unless asked for.
pub(crate) const RELEASE: &str = "ReleaseLeaderElectionOnExit";

/// The switch of modification by class.
pub(crate) const ATTRIBUTES_CLASS: &str = "VolumeAttributesClass";

/// The switch of group snapshots.
pub(crate) const GROUPS: &str = "CSIVolumeGroupSnapshot";

/// The switch of sources in other namespaces.
pub(crate) const CROSS_NAMESPACE: &str = "CrossNamespaceVolumeDataSource";

/// The throttle that `--kube-api-qps` and `--kube-api-burst` ask for.
pub(crate) fn throttle(values: &Values) -> Option<Throttle> {
    Throttle::new(values.float("kube-api-qps"), values.uint("kube-api-burst"))
}

/// The address of metrics and health.
///
/// # Errors
/// Both the old and the new flag are given.
pub(crate) fn http_endpoint(values: &Values) -> anyhow::Result<String> {
    let (new, old) = (values.text("http-endpoint"), values.text("metrics-address"));
    match (new, old) {
        ("", old) => Ok(old.to_owned()),
        (new, "") => Ok(new.to_owned()),
        _ => bail!("only one of --metrics-address and --http-endpoint can be set"),
    }
}

/// The election that the flags ask for, if any; `lock` is the program's own name of it.
///
/// # Errors
/// The times don't fit together.
pub(crate) fn election(values: &Values, lock: String) -> anyhow::Result<Option<ElectionConfig>> {
    if !values.flag("leader-election") {
        return Ok(None);
    }
    let timings = timings([
        values.duration("leader-election-lease-duration"),
        values.duration("leader-election-renew-deadline"),
        values.duration("leader-election-retry-period"),
    ])?;
    Ok(Some(ElectionConfig {
        lock,
        namespace: election_namespace(values),
        timings,
        labels: values.labels("leader-election-labels"),
        releases: values
            .gates("feature-gates")
            .get(RELEASE)
            .copied()
            .unwrap_or(true),
    }))
}

/// Namespace of Lease and ledger.
pub(crate) fn election_namespace(values: &Values) -> String {
    values
        .some_text("leader-election-namespace")
        .unwrap_or_else(own_namespace)
}

/// Lease duration, renew deadline and retry period, if they fit together.
///
/// # Errors
/// They don't.
pub(crate) fn timings(
    [lease_duration, renew_deadline, retry_period]: [Duration; 3],
) -> anyhow::Result<Timings> {
    if lease_duration < Duration::from_secs(1) || lease_duration <= renew_deadline {
        bail!(
            "leader election: the lease duration ({lease_duration:?}) must be at least a second, and above the renew deadline ({renew_deadline:?})"
        );
    }
    if retry_period.is_zero() || renew_deadline <= retry_period.mul_f64(1.2) {
        bail!(
            "leader election: the renew deadline ({renew_deadline:?}) must be above 1.2 times the retry period ({retry_period:?}), and that above 0"
        );
    }
    Ok(Timings {
        lease_duration,
        renew_deadline,
        retry_period,
    })
}

/// Refuses gates that the program doesn't know, and says which known ones change nothing.
///
/// # Errors
/// An unknown gate.
pub(crate) fn check_gates(values: &Values, known: &[&str], used: &[&str]) -> anyhow::Result<()> {
    for (gate, value) in values.gates("feature-gates") {
        if !known.contains(&gate.as_str()) {
            bail!(
                "--feature-gates: unknown gate {gate}; there are {}",
                known.join(", ")
            );
        }
        if !used.contains(&gate.as_str()) {
            tracing::warn!(gate, value, "The gate has no effect here");
        }
    }
    Ok(())
}

fn retry_interval(values: &Values) -> anyhow::Result<Backoff> {
    let (min, max) = (
        values.duration("retry-interval-start"),
        values.duration("retry-interval-max"),
    );
    if min.is_zero() || max < min {
        bail!(
            "--retry-interval-start ({min:?}) must be above 0, and --retry-interval-max ({max:?}) not below it"
        );
    }
    Ok(Backoff { min, max })
}

fn workers(values: &Values, flag: &str) -> anyhow::Result<usize> {
    match values.uint(flag) {
        0 => bail!("--{flag} must be above 0"),
        workers => Ok(workers),
    }
}

/// How much of a UID names keep; `None` for all of it, dashes included.
fn uuid_length(values: &Values, flag: &str) -> anyhow::Result<Option<usize>> {
    match values.int(flag) {
        -1 => Ok(None),
        length @ 0.. => Ok(Some(
            usize::try_from(length).with_context(|| format!("--{flag}"))?,
        )),
        _ => bail!("--{flag} must be -1, or the number of characters to keep"),
    }
}

/// The name of this node, which upstream takes from the environment.
fn node_name() -> anyhow::Result<String> {
    std::env::var("NODE_NAME")
        .ok()
        .filter(|name| !name.is_empty())
        .context("--node-deployment needs NODE_NAME in the environment")
}

/// Settings of the provisioner, without capacity.
///
/// # Errors
/// A value that can't be used.
pub(crate) fn provisioner(values: &Values) -> anyhow::Result<ProvisionerConfig> {
    let prefix = values.text("volume-name-prefix");
    if prefix.is_empty() {
        bail!("--volume-name-prefix must not be empty");
    }
    let gates = values.gates("feature-gates");
    let mut config = ProvisionerConfig::new(values.text("csi-address"));
    config.timeout = values.duration("timeout");
    config.worker_threads = workers(values, "worker-threads")?;
    config.retry_interval = retry_interval(values)?;
    config.volume_name_prefix = prefix.to_owned();
    config.volume_name_uuid_length = uuid_length(values, "volume-name-uuid-length")?;
    config.default_fs_type = values.some_text("default-fstype");
    config.extra_create_metadata = values.flag("extra-create-metadata");
    config.topology = gates.get("Topology").copied().unwrap_or(true);
    config.cross_namespace_sources = gates.get(CROSS_NAMESPACE).copied().unwrap_or(false);
    config.strict_topology = values.flag("strict-topology");
    config.immediate_topology = values.flag("immediate-topology");
    config.controller_publish_readonly = values.flag("controller-publish-readonly");
    config.prevent_volume_mode_conversion = values.flag("prevent-volume-mode-conversion");
    if values.flag("node-deployment") {
        node_deployment(values, &mut config)?;
    }
    config.ledger_namespace = Some(
        values
            .some_text("ledger-namespace")
            .unwrap_or_else(|| election_namespace(values)),
    );
    Ok(config)
}

fn node_deployment(values: &Values, config: &mut ProvisionerConfig) -> anyhow::Result<()> {
    if values.flag("leader-election") {
        bail!("--node-deployment and --leader-election exclude each other: each node has its own volumes");
    }
    let (min, max) = (
        values.duration("node-deployment-base-delay"),
        values.duration("node-deployment-max-delay"),
    );
    if min.is_zero() || max < min {
        bail!(
            "--node-deployment-base-delay ({min:?}) must be above 0, and --node-deployment-max-delay ({max:?}) not below it"
        );
    }
    config.node_name = Some(node_name()?);
    config.node_immediate_binding = values.flag("node-deployment-immediate-binding");
    config.node_bid_interval = Backoff { min, max };
    Ok(())
}

/// Settings of the attacher.
///
/// # Errors
/// A value that can't be used.
pub(crate) fn attacher(values: &Values) -> anyhow::Result<AttacherConfig> {
    let mut config = AttacherConfig::new(values.text("csi-address"));
    config.timeout = values.duration("timeout");
    config.worker_threads = workers(values, "worker-threads")?;
    config.retry_interval = retry_interval(values)?;
    config.default_fs_type = values.text("default-fstype").to_owned();
    Ok(config)
}

/// Settings of the resizer.
///
/// # Errors
/// A value that can't be used.
pub(crate) fn resizer(values: &Values) -> anyhow::Result<ResizerConfig> {
    let mut config = ResizerConfig::new(values.text("csi-address"));
    config.timeout = values.duration("timeout");
    config.workers = workers(values, "workers")?;
    config.retry_interval = retry_interval(values)?;
    config.extra_modify_metadata = values.flag("extra-modify-metadata");
    let gates = values.gates("feature-gates");
    config.modifies = gates.get(ATTRIBUTES_CLASS).copied().unwrap_or(true);
    Ok(config)
}

/// Settings of the snapshotter.
///
/// # Errors
/// A value that can't be used.
pub(crate) fn snapshotter(values: &Values) -> anyhow::Result<SnapshotterConfig> {
    let prefixes = ["snapshot-name-prefix", "groupsnapshot-name-prefix"];
    for flag in prefixes {
        if values.text(flag).is_empty() {
            bail!("--{flag} must not be empty");
        }
    }
    let [prefix, group_prefix] = prefixes.map(|flag| values.text(flag));
    let mut config = SnapshotterConfig::new(values.text("csi-address"));
    config.timeout = values.duration("timeout");
    config.worker_threads = workers(values, "worker-threads")?;
    config.retry_interval = retry_interval(values)?;
    config.snapshot_name_prefix = prefix.to_owned();
    config.snapshot_name_uuid_length = uuid_length(values, "snapshot-name-uuid-length")?;
    config.serves_groups = values.gates("feature-gates").get(GROUPS).copied().unwrap_or(true);
    config.group_snapshot_name_prefix = group_prefix.to_owned();
    config.group_snapshot_name_uuid_length = uuid_length(values, "groupsnapshot-name-uuid-length")?;
    config.extra_create_metadata = values.flag("extra-create-metadata");
    if values.flag("node-deployment") {
        if values.flag("leader-election") {
            bail!(
                "--node-deployment and --leader-election exclude each other: each node has its own snapshots"
            );
        }
        config.node_name = Some(node_name()?);
    }
    Ok(config)
}

/// Settings of the health monitor.
///
/// # Errors
/// A value that can't be used.
pub(crate) fn health_monitor(values: &Values) -> anyhow::Result<HealthMonitorConfig> {
    let interval = |flag: &str| match values.duration(flag) {
        Duration::ZERO => bail!("--{flag} must be above 0"),
        interval => Ok(interval),
    };
    let mut config = HealthMonitorConfig::new(values.text("csi-address"));
    config.timeout = values.duration("timeout");
    config.list_volumes_interval = interval("list-volumes-interval")?;
    config.monitor_interval = interval("monitor-interval")?;
    config.worker_threads = workers(values, "worker-threads")?;
    config.watches_nodes = values.flag("enable-node-watcher");
    Ok(config)
}

/// Settings of the snapshot controller.
///
/// # Errors
/// A value that can't be used.
pub(crate) fn snapshot_controller(values: &Values) -> anyhow::Result<snapshot::Config> {
    Ok(snapshot::Config {
        worker_threads: workers(values, "worker-threads")?,
        retry_interval: retry_interval(values)?,
        prevent_volume_mode_conversion: values.flag("prevent-volume-mode-conversion"),
        is_distributed: values.flag("enable-distributed-snapshotting"),
        serves_groups: values.gates("feature-gates").get(GROUPS).copied().unwrap_or(true),
    })
}

#[cfg(test)]
mod tests {
    use moorline_runtime::goflag;

    use super::super::tables::Program;
    use super::*;

    fn read(program: Program, words: &[&str]) -> Values {
        goflag::parse(program.flags(), words.iter().map(|word| (*word).to_owned())).unwrap()
    }

    #[test]
    fn defaults_of_the_flags_are_those_of_the_settings() {
        let (ours, own) = (
            provisioner(&read(Program::Provisioner, &["--ledger-namespace=ns"])).unwrap(),
            ProvisionerConfig::new("/run/csi/socket"),
        );
        let own = ProvisionerConfig {
            ledger_namespace: Some("ns".into()),
            ..own
        };
        assert_eq!(format!("{ours:?}"), format!("{own:?}"));
        let (ours, own) = (
            attacher(&read(Program::Attacher, &[])).unwrap(),
            AttacherConfig::new("/run/csi/socket"),
        );
        assert_eq!(format!("{ours:?}"), format!("{own:?}"));
        let (ours, own) = (
            resizer(&read(Program::Resizer, &[])).unwrap(),
            ResizerConfig::new("/run/csi/socket"),
        );
        assert_eq!(format!("{ours:?}"), format!("{own:?}"));
        let words = [
            "--feature-gates=VolumeAttributesClass=false",
            "--extra-modify-metadata",
        ];
        let config = resizer(&read(Program::Resizer, &words)).unwrap();
        assert!(!config.modifies && config.extra_modify_metadata);
        let (ours, own) = (
            snapshotter(&read(Program::Snapshotter, &[])).unwrap(),
            SnapshotterConfig::new("/run/csi/socket"),
        );
        assert_eq!(format!("{ours:?}"), format!("{own:?}"));
        let (ours, own) = (
            health_monitor(&read(Program::HealthMonitor, &[])).unwrap(),
            HealthMonitorConfig::new("/run/csi/socket"),
        );
        assert_eq!(format!("{ours:?}"), format!("{own:?}"));
        let words = ["--enable-node-watcher", "--monitor-interval=0s"];
        let config = health_monitor(&read(Program::HealthMonitor, &words[..1])).unwrap();
        assert!(config.watches_nodes);
        let error = health_monitor(&read(Program::HealthMonitor, &words)).unwrap_err();
        assert_eq!(error.to_string(), "--monitor-interval must be above 0");
        let words = [
            "--feature-gates=CSIVolumeGroupSnapshot=false",
            "--groupsnapshot-name-prefix=x",
            "--groupsnapshot-name-uuid-length=3",
        ];
        let config = snapshotter(&read(Program::Snapshotter, &words)).unwrap();
        let named = (
            config.group_snapshot_name_prefix.as_str(),
            config.group_snapshot_name_uuid_length,
        );
        assert_eq!((config.serves_groups, named), (false, ("x", Some(3))));
        let config = snapshot_controller(&read(Program::SnapshotController, &words[..1])).unwrap();
        assert!(!config.serves_groups);
        let (ours, own) = (
            snapshot_controller(&read(Program::SnapshotController, &[])).unwrap(),
            snapshot::Config::default(),
        );
        assert_eq!(format!("{ours:?}"), format!("{own:?}"));
    }

    #[test]
    fn what_can_not_be_used_is_refused_with_the_reason() {
        let cases: &[(&[&str], &str)] = &[
            (&["--node-deployment", "--leader-election"], "exclude each other"),
            (
                &["--node-deployment", "--node-deployment-max-delay=1s"],
                "not below it",
            ),
            (
                &["--volume-name-prefix="],
                "--volume-name-prefix must not be empty",
            ),
            (&["--volume-name-uuid-length=-2"], "must be -1, or the number"),
            (&["--worker-threads=0"], "--worker-threads must be above 0"),
            (&["--retry-interval-max=500ms"], "not below it"),
        ];
        for (words, expected) in cases {
            let error = provisioner(&read(Program::Provisioner, words))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{words:?}: {error}");
        }
        let cases: &[(&[&str], &str)] = &[
            (
                &["--snapshot-name-prefix="],
                "--snapshot-name-prefix must not be empty",
            ),
            (
                &["--groupsnapshot-name-prefix="],
                "--groupsnapshot-name-prefix must not be empty",
            ),
            (&["--node-deployment", "--leader-election"], "exclude each other"),
            (&["--worker-threads=0"], "--worker-threads must be above 0"),
        ];
        for (words, expected) in cases {
            let error = snapshotter(&read(Program::Snapshotter, words))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{words:?}: {error}");
        }
        let both = read(Program::Attacher, &["--metrics-address=:1", "--http-endpoint=:2"]);
        assert!(http_endpoint(&both).is_err());
        let unknown = read(Program::Attacher, &["--feature-gates=Topology=true"]);
        let error = check_gates(&unknown, Program::Attacher.gates(), &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("unknown gate Topology"), "{error}");
    }

    #[test]
    fn elections() {
        let none = election(&read(Program::Attacher, &[]), "lock".into()).unwrap();
        assert!(none.is_none());
        let words = [
            "--leader-election",
            "--leader-election-namespace=ns",
            "--leader-election-labels=a:b",
            "--feature-gates=ReleaseLeaderElectionOnExit=false",
        ];
        let config = election(&read(Program::Attacher, &words), "lock".into())
            .unwrap()
            .unwrap();
        assert_eq!((config.namespace.as_str(), config.releases), ("ns", false));
        assert_eq!(config.timings, Timings::default());
        let seconds = |numbers: [u64; 3]| timings(numbers.map(Duration::from_secs)).is_ok();
        assert!(seconds([15, 10, 5]) && seconds([6, 4, 1]));
        assert!(
            !seconds([10, 10, 5]) && !seconds([15, 5, 5]) && !seconds([15, 10, 0]) && !seconds([0, 0, 0])
        );
    }
}
