//! The flags of the drop-in programs: upstream's names and defaults, and what becomes of each here.
//!
//! `recorded/` holds upstream's own names and defaults; a test compares.

mod health_monitor;
mod snapshots;

use moorline_runtime::goflag::{Flag, Kind};

const GO_RUNTIME: &str = "it is of Go's runtime";
const GO_LOGGING: &str = "it is of Go's logging";
const ALWAYS_FRESH: &str = "every change is followed by a watch, and nothing is read anew on a timer";

/// Of every program.
const LOGGING: &[Flag] = &[
    Flag::new(
        "v",
        Kind::Int,
        "0",
        "Log more: from 3 on decisions and their reasons, from 5 on payloads",
    ),
    Flag::new(
        "logging-format",
        Kind::Text,
        "text",
        "Form of the log: text or json",
    ),
    Flag::new("vmodule", Kind::Text, "", "Levels by file").ignored(GO_LOGGING),
    Flag::new(
        "log-flush-frequency",
        Kind::Duration,
        "5s",
        "Time between flushes",
    )
    .ignored("log lines are written at once"),
    Flag::new("log-text-split-stream", Kind::Bool, "false", "Two output streams").ignored(GO_LOGGING),
    Flag::new("log-text-info-buffer-size", Kind::Text, "0", "Size of a buffer").ignored(GO_LOGGING),
    Flag::new("log-json-split-stream", Kind::Bool, "false", "Two output streams").ignored(GO_LOGGING),
    Flag::new("log-json-info-buffer-size", Kind::Text, "0", "Size of a buffer").ignored(GO_LOGGING),
    Flag::new(
        "automaxprocs",
        Kind::Bool,
        "",
        "Fit GOMAXPROCS to the container's quota",
    )
    .ignored(GO_RUNTIME),
];

const CSI_ADDRESS: Flag = Flag::new(
    "csi-address",
    Kind::Text,
    "/run/csi/socket",
    "The driver's socket: a path or a unix:// URL",
);
const VERSION: Flag = Flag::new("version", Kind::Bool, "false", "Print the version and end");
const HTTP_ENDPOINT: Flag = Flag::new(
    "http-endpoint",
    Kind::Text,
    "",
    "Address of metrics and health, such as :8080; none without it",
);
const METRICS_PATH: Flag = Flag::new("metrics-path", Kind::Text, "/metrics", "Path of the metrics");
const METRICS_ADDRESS: Flag =
    Flag::new("metrics-address", Kind::Text, "", "Address of the metrics").deprecated("use --http-endpoint");
const KUBECONFIG: Flag = Flag::new(
    "kubeconfig",
    Kind::Text,
    "",
    "Kubeconfig file; without it, the pod's service account",
);
const FEATURE_GATES: Flag = Flag::new("feature-gates", Kind::Gates, "", "Switches, as A=true,B=false");
const MASTER: Flag = Flag::new(
    "master",
    Kind::Text,
    "",
    "URL of the API server, above the kubeconfig's",
);
const RETRY_START: Flag = Flag::new(
    "retry-interval-start",
    Kind::Duration,
    "1s",
    "First pause after a failure; it doubles",
);
const RETRY_MAX: Flag = Flag::new(
    "retry-interval-max",
    Kind::Duration,
    "5m0s",
    "Longest pause after failures",
);

/// Of every program that talks to the API server.
const CLUSTER: &[Flag] = &[
    VERSION,
    KUBECONFIG,
    Flag::new(
        "leader-election",
        Kind::Bool,
        "false",
        "Act only while holding a Lease",
    ),
    Flag::new(
        "leader-election-namespace",
        Kind::Text,
        "",
        "Namespace of the Lease; the pod's without it",
    ),
    Flag::new(
        "leader-election-lease-duration",
        Kind::Duration,
        "15s",
        "How long others wait for a silent leader",
    ),
    Flag::new(
        "leader-election-renew-deadline",
        Kind::Duration,
        "10s",
        "How long a leader tries to renew",
    ),
    Flag::new(
        "leader-election-retry-period",
        Kind::Duration,
        "5s",
        "Pause between two tries",
    ),
    Flag::new(
        "kube-api-qps",
        Kind::Float,
        "5",
        "Requests to the API server per second; 0 for any number",
    ),
    Flag::new(
        "kube-api-burst",
        Kind::Uint,
        "10",
        "Requests to the API server at once",
    ),
    HTTP_ENDPOINT,
    METRICS_PATH,
    FEATURE_GATES,
];

/// Of every such program that also asks a driver.
const CONTROLLER: &[Flag] = &[
    CSI_ADDRESS,
    Flag::new("leader-election-labels", Kind::Labels, "", "Labels of the Lease"),
    METRICS_ADDRESS,
];

const PROVISIONER: &[Flag] = &[
    MASTER,
    RETRY_START,
    RETRY_MAX,
    Flag::new(
        "timeout",
        Kind::Duration,
        "10s",
        "Deadline of each call to the driver",
    ),
    Flag::new(
        "worker-threads",
        Kind::Uint,
        "100",
        "Claims worked on at once, and as many deletions",
    ),
    Flag::new(
        "volume-name-prefix",
        Kind::Text,
        "pvc",
        "Names of volumes begin with it",
    ),
    Flag::new(
        "volume-name-uuid-length",
        Kind::Int,
        "-1",
        "Characters of the claim's UID in names; -1 for all",
    ),
    Flag::new(
        "default-fstype",
        Kind::Text,
        "",
        "Filesystem where the class names none",
    ),
    Flag::new(
        "extra-create-metadata",
        Kind::Bool,
        "false",
        "Tell the driver the names of claim and volume",
    ),
    Flag::new(
        "strict-topology",
        Kind::Bool,
        "false",
        "Delayed binding: only the selected node's segment",
    ),
    Flag::new(
        "immediate-topology",
        Kind::Bool,
        "true",
        "Immediate binding: all segments of the cluster",
    ),
    Flag::new(
        "controller-publish-readonly",
        Kind::Bool,
        "false",
        "Read-only volumes are published read-only",
    ),
    Flag::new(
        "enable-capacity",
        Kind::Bool,
        "false",
        "Publish CSIStorageCapacity objects",
    ),
    Flag::new(
        "capacity-for-immediate-binding",
        Kind::Bool,
        "false",
        "Also for classes with immediate binding",
    ),
    Flag::new(
        "capacity-poll-interval",
        Kind::Duration,
        "1m0s",
        "Pause between two looks at the driver's free space",
    ),
    Flag::new(
        "capacity-ownerref-level",
        Kind::Int,
        "1",
        "Owner of the objects: -1 none, 0 the pod, 1 its owner, 2 that one's",
    ),
    Flag::new("capacity-threads", Kind::Uint, "1", "Objects worked on at once")
        .ignored("objects are written when they change, in parallel"),
    Flag::new(
        "kube-api-capacity-qps",
        Kind::Float,
        "1",
        "Requests for capacity per second",
    )
    .ignored("they count as others do"),
    Flag::new(
        "kube-api-capacity-burst",
        Kind::Uint,
        "5",
        "Requests for capacity at once",
    )
    .ignored("they count as others do"),
    Flag::new(
        "cloning-protection-threads",
        Kind::Uint,
        "1",
        "Clone sources worked on at once",
    )
    .ignored("the workers that make clones protect their sources, too"),
    Flag::new(
        "snapshot-orphan-sweep-interval",
        Kind::Duration,
        "5m0s",
        "Pause between two sweeps of finalizers",
    )
    .ignored("the provisioner leaves no finalizers on snapshots"),
    Flag::new(
        "prevent-volume-mode-conversion",
        Kind::Bool,
        "true",
        "A restore keeps the snapshot's volume mode",
    ),
    Flag::new(
        "node-deployment",
        Kind::Bool,
        "false",
        "One provisioner on each node, for the volumes there; NODE_NAME says which that is",
    ),
    Flag::new(
        "node-deployment-immediate-binding",
        Kind::Bool,
        "true",
        "With --node-deployment: take claims with immediate binding, too",
    ),
    Flag::new(
        "node-deployment-base-delay",
        Kind::Duration,
        "20s",
        "With --node-deployment: first pause before taking such a claim",
    ),
    Flag::new(
        "node-deployment-max-delay",
        Kind::Duration,
        "1m0s",
        "With --node-deployment: longest pause before taking such a claim",
    ),
    Flag::new("enable-pprof", Kind::Bool, "false", "Serve profiles").ignored(GO_RUNTIME),
];

const ATTACHER: &[Flag] = &[
    RETRY_START,
    RETRY_MAX,
    Flag::new(
        "timeout",
        Kind::Duration,
        "15s",
        "Deadline of each call to the driver",
    ),
    Flag::new(
        "worker-threads",
        Kind::Uint,
        "10",
        "Attachments worked on at once, and as many volumes",
    ),
    Flag::new(
        "default-fstype",
        Kind::Text,
        "",
        "Filesystem where the volume names none",
    ),
    Flag::new(
        "resync",
        Kind::Duration,
        "10m0s",
        "Pause between two looks at everything",
    )
    .ignored(ALWAYS_FRESH),
    Flag::new(
        "reconcile-sync",
        Kind::Duration,
        "1m0s",
        "Pause between two comparisons with ListVolumes",
    )
    .ignored("attachments are not compared with ListVolumes yet"),
    Flag::new("max-entries", Kind::Int, "0", "Entries of a page of ListVolumes")
        .ignored("attachments are not compared with ListVolumes yet"),
    Flag::new(
        "max-grpc-log-length",
        Kind::Int,
        "-1",
        "Longest answer in the log",
    )
    .ignored("answers of the driver are not logged"),
];

const RESIZER: &[Flag] = &[
    MASTER,
    RETRY_START,
    RETRY_MAX,
    Flag::new(
        "timeout",
        Kind::Duration,
        "10s",
        "Deadline of each call to the driver",
    ),
    Flag::new(
        "workers",
        Kind::Uint,
        "10",
        "Claims worked on at once, and as many modifications",
    ),
    Flag::new(
        "resync-period",
        Kind::Duration,
        "10m0s",
        "Pause between two looks at everything",
    )
    .ignored(ALWAYS_FRESH),
    Flag::new(
        "handle-volume-inuse-error",
        Kind::Bool,
        "true",
        "Watch pods to learn when a volume is no longer in use",
    )
    .ignored("pods are looked up only when the driver refuses a volume in use"),
    Flag::new(
        "extra-modify-metadata",
        Kind::Bool,
        "false",
        "Tell the driver the names of claim and volume when a volume is modified",
    ),
];

const REGISTRAR: &[Flag] = &[
    VERSION,
    CSI_ADDRESS,
    Flag::new(
        "timeout",
        Kind::Duration,
        "1s",
        "Deadline of each call to the driver",
    ),
    Flag::new(
        "plugin-registration-path",
        Kind::Text,
        "/registration",
        "The kubelet's plugins_registry directory",
    ),
    Flag::new(
        "kubelet-registration-path",
        Kind::Text,
        "",
        "The driver's socket as the kubelet sees it; required",
    ),
    HTTP_ENDPOINT,
    Flag::new("health-port", Kind::Int, "0", "Port of the health check").deprecated("use --http-endpoint"),
    Flag::new("connection-timeout", Kind::Duration, "0s", "Nothing").ignored("upstream has retired it"),
    Flag::new(
        "mode",
        Kind::Text,
        "",
        "kubelet-registration-probe ends at once with success",
    )
    .deprecated("it is no longer needed"),
    Flag::new("enable-pprof", Kind::Bool, "false", "Serve profiles").ignored(GO_RUNTIME),
];

const LIVENESSPROBE: &[Flag] = &[
    CSI_ADDRESS,
    Flag::new("probe-timeout", Kind::Duration, "3s", "Deadline of one probe"),
    HTTP_ENDPOINT,
    METRICS_PATH,
    Flag::new(
        "health-port",
        Kind::Uint,
        "9808",
        "Port of the health check on all addresses",
    )
    .deprecated("use --http-endpoint"),
    METRICS_ADDRESS,
];

/// Beside upstream's: where the provisioner remembers what it is asking of the driver.
const LEDGER: &[Flag] = &[Flag::new(
    "ledger-namespace",
    Kind::Text,
    "",
    "Namespace of the ConfigMaps that hold what is being asked of the driver; the Lease's without it",
)];

/// A program that `moorline` can be called as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// csi-provisioner
    Provisioner,
    /// csi-attacher
    Attacher,
    /// csi-resizer
    Resizer,
    /// csi-snapshotter
    Snapshotter,
    /// snapshot-controller
    SnapshotController,
    /// csi-node-driver-registrar
    Registrar,
    /// livenessprobe
    Livenessprobe,
    /// csi-external-health-monitor-controller
    HealthMonitor,
    // A slot: csi-snapshot-metadata. It takes a variant here, its table above, its file in `recorded/` and its arm in
    // `program.rs`.
}

impl Program {
    /// All of them.
    pub(crate) const ALL: [Program; 8] = [
        Program::Provisioner,
        Program::Attacher,
        Program::Resizer,
        Program::Snapshotter,
        Program::SnapshotController,
        Program::Registrar,
        Program::Livenessprobe,
        Program::HealthMonitor,
    ];

    /// Upstream's name of the executable.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Provisioner => "csi-provisioner",
            Self::Attacher => "csi-attacher",
            Self::Resizer => "csi-resizer",
            Self::Snapshotter => "csi-snapshotter",
            Self::SnapshotController => "snapshot-controller",
            Self::Registrar => "csi-node-driver-registrar",
            Self::Livenessprobe => "livenessprobe",
            Self::HealthMonitor => "csi-external-health-monitor-controller",
        }
    }

    /// The program of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|program| program.name() == name)
    }

    /// Its table of flags.
    pub(crate) fn flags(self) -> Vec<Flag> {
        let parts: &[&[Flag]] = match self {
            Self::Provisioner => &[LOGGING, CLUSTER, CONTROLLER, PROVISIONER, LEDGER],
            Self::Attacher => &[LOGGING, CLUSTER, CONTROLLER, ATTACHER],
            Self::Resizer => &[LOGGING, CLUSTER, CONTROLLER, RESIZER],
            Self::Snapshotter => &[LOGGING, CLUSTER, CONTROLLER, snapshots::SNAPSHOTTER],
            Self::SnapshotController => &[LOGGING, CLUSTER, snapshots::SNAPSHOT_CONTROLLER],
            Self::Registrar => &[LOGGING, REGISTRAR],
            Self::Livenessprobe => &[LOGGING, LIVENESSPROBE],
            Self::HealthMonitor => &[LOGGING, CLUSTER, CONTROLLER, health_monitor::HEALTH_MONITOR],
        };
        parts.concat()
    }

    /// The feature gates that upstream's program has.
    pub(crate) fn gates(self) -> &'static [&'static str] {
        match self {
            Self::Provisioner => &[
                "Topology",
                "VolumeAttributesClass",
                "CrossNamespaceVolumeDataSource",
                "ReleaseLeaderElectionOnExit",
            ],
            Self::Attacher => &["MutableCSINodeAllocatableCount", "ReleaseLeaderElectionOnExit"],
            Self::Resizer => &[
                "RecoverVolumeExpansionFailure",
                "VolumeAttributesClass",
                "AnnotateFsResize",
                "ReleaseLeaderElectionOnExit",
            ],
            Self::Snapshotter | Self::SnapshotController => {
                &["CSIVolumeGroupSnapshot", "ReleaseLeaderElectionOnExit"]
            }
            Self::HealthMonitor => &["ReleaseLeaderElectionOnExit"],
            Self::Registrar | Self::Livenessprobe => &[],
        }
    }
}

const KCM_ELECTION: &[Flag] = &[
    Flag::new(
        "leader-elect",
        Kind::Bool,
        "true",
        "Act only while holding a Lease",
    ),
    Flag::new(
        "leader-elect-lease-duration",
        Kind::Duration,
        "15s",
        "How long others wait for a silent leader",
    ),
    Flag::new(
        "leader-elect-renew-deadline",
        Kind::Duration,
        "10s",
        "How long a leader tries to renew",
    ),
    Flag::new(
        "leader-elect-retry-period",
        Kind::Duration,
        "2s",
        "Pause between two tries",
    ),
    Flag::new(
        "leader-elect-resource-lock",
        Kind::Text,
        "leases",
        "Kind of the lock: leases",
    ),
    Flag::new(
        "leader-elect-resource-namespace",
        Kind::Text,
        "kube-system",
        "Namespace of the Lease",
    ),
];

const KCM: &[Flag] = &[
    KUBECONFIG,
    MASTER,
    Flag::new(
        "controllers",
        Kind::Text,
        "*",
        "Controllers to run: * for all, NAME for one, -NAME for all but one",
    ),
    Flag::new(
        "kube-api-qps",
        Kind::Float,
        "20",
        "Requests to the API server per second; 0 for any number",
    ),
    Flag::new(
        "kube-api-burst",
        Kind::Uint,
        "30",
        "Requests to the API server at once",
    ),
    Flag::new(
        "kube-api-content-type",
        Kind::Text,
        "application/vnd.kubernetes.protobuf",
        "Encoding of requests",
    )
    .ignored("requests are JSON"),
    Flag::new(
        "pvclaimbinder-sync-period",
        Kind::Duration,
        "15s",
        "A claim that waits is looked at again after this time",
    ),
    Flag::new(
        "enable-dynamic-provisioning",
        Kind::Bool,
        "true",
        "Ask provisioners for volumes",
    ),
    Flag::new(
        "enable-hostpath-provisioner",
        Kind::Bool,
        "false",
        "Make hostPath volumes, for tests",
    )
    .ignored("there is no such provisioner"),
    Flag::new(
        "concurrent-ephemeralvolume-syncs",
        Kind::Uint,
        "5",
        "Ephemeral volumes worked on at once",
    ),
    Flag::new(
        "disable-force-detach-on-timeout",
        Kind::Bool,
        "false",
        "Never detach because a node is lost for long",
    ),
    Flag::new(
        "attach-detach-reconcile-sync-period",
        Kind::Duration,
        "1m0s",
        "Pause between two comparisons with the cloud",
    )
    .ignored(ALWAYS_FRESH),
    Flag::new(
        "disable-attach-detach-reconcile-sync",
        Kind::Bool,
        "false",
        "No comparisons with the cloud",
    )
    .ignored(ALWAYS_FRESH),
    Flag::new(
        "min-resync-period",
        Kind::Duration,
        "12h0m0s",
        "Pause between two looks at everything",
    )
    .ignored(ALWAYS_FRESH),
    Flag::new(
        "controller-start-interval",
        Kind::Duration,
        "0s",
        "Pause between two starts",
    )
    .ignored("controllers start at once"),
    Flag::new("profiling", Kind::Bool, "true", "Serve profiles").ignored(GO_RUNTIME),
    Flag::new("contention-profiling", Kind::Bool, "false", "Serve profiles").ignored(GO_RUNTIME),
    Flag::new(
        "flex-volume-plugin-dir",
        Kind::Text,
        "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/",
        "Directory of flex volumes",
    )
    .ignored("there are none"),
    Flag::new(
        "use-service-account-credentials",
        Kind::Bool,
        "false",
        "An account for each controller",
    )
    .ignored("all use the one that is given"),
    Flag::new(
        "authentication-kubeconfig",
        Kind::Text,
        "",
        "Who may ask for metrics",
    )
    .ignored("--http-endpoint is plain HTTP"),
    Flag::new(
        "authorization-kubeconfig",
        Kind::Text,
        "",
        "Who may ask for metrics",
    )
    .ignored("--http-endpoint is plain HTTP"),
    Flag::new(
        "bind-address",
        Kind::Text,
        "0.0.0.0",
        "Address of the HTTPS endpoint",
    )
    .ignored("use --http-endpoint"),
    Flag::new("secure-port", Kind::Int, "10257", "Port of the HTTPS endpoint").ignored("use --http-endpoint"),
    FEATURE_GATES.ignored("the volume controllers have none left"),
];

const CONTROLLERS_OWN: &[Flag] = &[
    // Not kube-controller-manager's own: that one goes on, with its other controllers, under its Lease.
    Flag::new(
        "leader-elect-resource-name",
        Kind::Text,
        "moorline-controllers",
        "Name of the Lease",
    ),
    HTTP_ENDPOINT,
    VERSION,
];

/// The flags of `moorline controllers`: those of kube-controller-manager that concern volumes.
pub(crate) fn controllers() -> Vec<Flag> {
    [LOGGING, KCM, KCM_ELECTION, CONTROLLERS_OWN].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use moorline_runtime::goflag;

    use super::*;

    /// Upstream's flags of a program, `name<tab>default`, and ours that upstream's doesn't have.
    const RECORDED: [(Program, &str, &[&str]); 8] = [
        (
            Program::Provisioner,
            include_str!("recorded/csi-provisioner.txt"),
            &["ledger-namespace"],
        ),
        (Program::Attacher, include_str!("recorded/csi-attacher.txt"), &[]),
        (Program::Resizer, include_str!("recorded/csi-resizer.txt"), &[]),
        (
            Program::Snapshotter,
            include_str!("recorded/csi-snapshotter.txt"),
            &[],
        ),
        (
            Program::SnapshotController,
            include_str!("recorded/snapshot-controller.txt"),
            &[],
        ),
        (
            Program::Registrar,
            include_str!("recorded/csi-node-driver-registrar.txt"),
            &[],
        ),
        (
            Program::Livenessprobe,
            include_str!("recorded/livenessprobe.txt"),
            &[],
        ),
        (
            Program::HealthMonitor,
            include_str!("recorded/csi-external-health-monitor-controller.txt"),
            // Upstream's has the gate, and no way to set it.
            &["feature-gates"],
        ),
    ];

    fn read(recorded: &'static str) -> BTreeMap<&'static str, &'static str> {
        let lines = recorded
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        lines
            .map(|line| line.split_once('\t').unwrap_or((line, "")))
            .collect()
    }

    #[test]
    fn flags_are_upstreams_by_name_and_default() {
        assert_eq!(RECORDED.map(|(program, _, _)| program), Program::ALL);
        for (program, recorded, own) in RECORDED {
            let name = program.name();
            let mut ours: BTreeMap<&str, &str> = BTreeMap::new();
            for flag in program.flags() {
                let doubled = ours.insert(flag.name, flag.default);
                assert!(doubled.is_none(), "{name} --{}", flag.name);
            }
            for flag in own {
                assert!(ours.remove(flag).is_some(), "{name} --{flag}");
            }
            assert_eq!(ours, read(recorded), "{name}");
        }
    }

    #[test]
    fn flags_of_the_controllers_are_those_of_the_controller_manager() {
        let recorded = read(include_str!("recorded/kube-controller-manager.txt"));
        let own: BTreeSet<&str> = CONTROLLERS_OWN.iter().map(|flag| flag.name).collect();
        for flag in controllers() {
            match recorded.get(flag.name) {
                Some(default) if !own.contains(flag.name) => {
                    assert_eq!(flag.default, *default, "--{}", flag.name)
                }
                _ => assert!(
                    own.contains(flag.name) || flag.name == "automaxprocs",
                    "--{}",
                    flag.name
                ),
            }
        }
        assert_eq!(recorded["leader-elect-resource-name"], "kube-controller-manager");
    }

    #[test]
    fn every_default_is_a_value_of_its_kind() {
        let tables = Program::ALL
            .map(Program::flags)
            .into_iter()
            .chain([controllers()]);
        for table in tables {
            for flag in table.clone() {
                if flag.default.is_empty() {
                    continue;
                }
                let word = format!("--{}={}", flag.name, flag.default);
                let values = goflag::parse(table.clone(), [word.clone()]);
                assert!(
                    values
                        .is_ok_and(|values| values.warnings().iter().all(|text| text.contains("deprecated"))),
                    "{word}"
                );
            }
        }
    }
}
