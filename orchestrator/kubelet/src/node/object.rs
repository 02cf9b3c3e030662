//! What the Node object of this machine should say, and the smallest patch towards it. Pure but for [`Machine::read`].

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::config::Config;

const MANAGED_ATTACH: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// What is known of the machine; read once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Machine {
    pub cpus: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub kernel_version: String,
    pub os_image: String,
    pub machine_id: String,
    pub boot_id: String,
    pub system_uuid: String,
}

impl Machine {
    /// Reads `/proc`, `/etc` and the file system below `root`. What can't be read stays empty.
    pub(crate) fn read(root: &std::path::Path) -> Self {
        let text = |path: &str| {
            std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .unwrap_or_default()
        };
        let os_release = text("/etc/os-release");
        let pretty_name = os_release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let disk = rustix::fs::statvfs(root)
            .map(|stat| stat.f_blocks * stat.f_frsize)
            .unwrap_or_default();
        Self {
            cpus: std::thread::available_parallelism()
                .map(|count| count.get() as u64)
                .unwrap_or(1),
            memory_bytes: total_memory(&text("/proc/meminfo")).unwrap_or_default(),
            disk_bytes: disk,
            kernel_version: text("/proc/sys/kernel/osrelease"),
            os_image: pretty_name.unwrap_or("Linux").trim_matches('"').to_owned(),
            machine_id: text("/etc/machine-id"),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            system_uuid: text("/sys/class/dmi/id/product_uuid"),
        }
    }
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Name of this machine's architecture as images and labels spell it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn labels(config: &Config) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), config.node_name.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), architecture().to_owned()),
        ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("beta.kubernetes.io/arch".to_owned(), architecture().to_owned()),
    ]);
    labels.extend(config.labels.clone());
    labels
}

/// The Node as first created.
pub(crate) fn new_node(config: &Config) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config)),
            annotations: Some(BTreeMap::from([(MANAGED_ATTACH.to_owned(), "true".to_owned())])),
            ..Default::default()
        },
        spec: Some(NodeSpec::default()),
        status: None,
    }
}

/// Merge patch for labels and annotations that an existing Node lacks; `None` when it has them.
pub(crate) fn metadata_patch(node: &Node, config: &Config) -> Option<serde_json::Value> {
    let held = node.metadata.labels.clone().unwrap_or_default();
    let missing: BTreeMap<_, _> = labels(config)
        .into_iter()
        .filter(|(key, value)| held.get(key) != Some(value))
        .collect();
    let is_managed = node
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|held| held.contains_key(MANAGED_ATTACH));
    if missing.is_empty() && is_managed {
        return None;
    }
    Some(serde_json::json!({"metadata": {"labels": missing, "annotations": {MANAGED_ATTACH: "true"}}}))
}

/// Capacity of the node, all of it for pods.
pub(crate) fn resources(config: &Config, machine: &Machine) -> BTreeMap<String, Quantity> {
    BTreeMap::from([
        ("cpu".to_owned(), Quantity(machine.cpus.to_string())),
        (
            "memory".to_owned(),
            Quantity(format!("{}Ki", machine.memory_bytes / 1024)),
        ),
        (
            "ephemeral-storage".to_owned(),
            Quantity(format!("{}Ki", machine.disk_bytes / 1024)),
        ),
        ("pods".to_owned(), Quantity(config.max_pods.to_string())),
    ])
}

/// The status this kubelet wants; `held` is what the API server has, whose transition times are kept.
pub(crate) fn status(
    config: &Config,
    machine: &Machine,
    listen: SocketAddr,
    held: Option<&NodeStatus>,
    volumes_in_use: Option<Vec<String>>,
    now: Timestamp,
) -> NodeStatus {
    let resources = resources(config, machine);
    let address = |kind: &str, value: String| NodeAddress {
        type_: kind.into(),
        address: value,
    };
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", config.node_ip.to_string()),
            address("Hostname", config.node_name.clone()),
        ]),
        capacity: Some(resources.clone()),
        allocatable: Some(resources),
        conditions: Some(conditions(held, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint {
                port: i32::from(listen.port()),
            }),
        }),
        node_info: Some(NodeSystemInfo {
            architecture: architecture().into(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: format!("moorline://{}", config.version),
            kernel_version: machine.kernel_version.clone(),
            kubelet_version: config.version.clone(),
            kube_proxy_version: String::new(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".into(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.system_uuid.clone(),
            ..Default::default()
        }),
        volumes_in_use,
        ..Default::default()
    }
}

fn conditions(held: Option<&NodeStatus>, now: Timestamp) -> Vec<NodeCondition> {
    let wanted = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "DiskPressure",
            "False",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        (
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    let held = held
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    wanted
        .into_iter()
        .map(|(kind, status, reason, message)| {
            let before = held
                .iter()
                .find(|condition| condition.type_ == kind && condition.status == status);
            NodeCondition {
                type_: kind.into(),
                status: status.into(),
                reason: Some(reason.into()),
                message: Some(message.into()),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: before
                    .and_then(|before| before.last_transition_time.clone())
                    .or(Some(Time(now))),
            }
        })
        .collect()
}

/// Whether the wanted status says anything but a newer heartbeat.
pub(crate) fn differs(held: Option<&NodeStatus>, wanted: &NodeStatus) -> bool {
    let Some(held) = held else { return true };
    let steady = |status: &NodeStatus| {
        let mut conditions = status.conditions.clone().unwrap_or_default();
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        for condition in &mut conditions {
            condition.last_heartbeat_time = None;
            condition.last_transition_time = None;
        }
        let facts = (
            status.addresses.clone(),
            status.capacity.clone(),
            status.allocatable.clone(),
        );
        let endpoint = status.daemon_endpoints.clone();
        (
            facts,
            endpoint,
            status.node_info.clone(),
            in_use(status),
            conditions,
        )
    };
    steady(held) != steady(wanted)
}

/// `volumesInUse`, empty when absent.
pub(crate) fn in_use(status: &NodeStatus) -> Vec<String> {
    status.volumes_in_use.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_meminfo() {
        assert_eq!(
            total_memory("MemTotal:        2048 kB\nMemFree: 1 kB"),
            Some(2_097_152)
        );
        assert_eq!(total_memory("nothing"), None);
    }

    #[test]
    fn a_newer_heartbeat_alone_is_no_change() {
        let config = crate::testing::config("/nowhere".as_ref());
        let machine = Machine {
            cpus: 2,
            ..Default::default()
        };
        let listen = "127.0.0.1:10250".parse().unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = status(&config, &machine, listen, None, None, at(1));
        let second = status(&config, &machine, listen, Some(&first), None, at(2));
        assert!(differs(None, &first));
        assert!(!differs(Some(&first), &second));
        let ready = |status: &NodeStatus| status.conditions.clone().unwrap_or_default()[3].clone();
        assert_eq!(ready(&second).last_transition_time, Some(Time(at(1))));
        assert_eq!(ready(&second).last_heartbeat_time, Some(Time(at(2))));
        let using = status(
            &config,
            &machine,
            listen,
            Some(&first),
            Some(vec!["v".into()]),
            at(2),
        );
        assert!(differs(Some(&first), &using));
    }
}
