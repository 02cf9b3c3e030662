//! From a container of a pod's spec to what the runtime is asked for. Pure: volumes, environment and image are given.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use moorline_container_runtime::{
    ContainerConfig, Device, ImageRef, Mount, MountPropagation, Resources, SandboxConfig, SecurityContext,
};
use moorline_model::quantity::Amount;

use super::expansion::expand;
use super::{display, name, namespace, uid};
use crate::paths::Layout;
use crate::volumes::manager::MountedVolume;

/// Length of a CPU quota period, upstream's.
const CPU_PERIOD_US: u64 = 100_000;
const DEFAULT_TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// A subPath that must be bound before the container is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubPath {
    pub volume: PathBuf,
    pub sub_path: String,
    pub target: PathBuf,
    pub may_make: bool,
}

/// A container can't be made as it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub String);

/// What [`build`] takes.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub attempt: u32,
    pub image: ImageRef,
    pub env: Vec<(String, String)>,
    pub volumes: &'a BTreeMap<String, MountedVolume>,
    pub layout: &'a Layout,
}

/// The runtime's configuration, and the subPaths it relies on.
pub(crate) fn build(parts: Parts<'_>) -> Result<(ContainerConfig, Vec<SubPath>), ConfigError> {
    let Parts {
        pod,
        container,
        attempt,
        image,
        env,
        volumes,
        layout,
    } = parts;
    let variables: BTreeMap<String, String> = env.iter().cloned().collect();
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter()
            .flatten()
            .map(|text| expand(text, &variables))
            .collect()
    };
    let (mounts, subpaths) = mounts(pod, container, volumes, layout, &variables)?;
    let message_path = container
        .termination_message_path
        .as_deref()
        .unwrap_or(DEFAULT_TERMINATION_MESSAGE_PATH);
    let config = ContainerConfig {
        name: container.name.clone(),
        attempt,
        image,
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container
            .working_dir
            .clone()
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
        env,
        mounts,
        devices: devices(container, volumes)?,
        resources: resources(container.resources.as_ref())?,
        security: security(pod, container)?,
        log_path: PathBuf::from(&container.name).join(format!("{attempt}.log")),
        stdin: container.stdin.unwrap_or_default(),
        stdin_once: container.stdin_once.unwrap_or_default(),
        tty: container.tty.unwrap_or_default(),
        termination_message_path: PathBuf::from(message_path),
        labels: labels(pod, Some(&container.name)),
        annotations: BTreeMap::from([(
            "io.kubernetes.container.restartCount".to_owned(),
            attempt.to_string(),
        )]),
    };
    Ok((config, subpaths))
}

fn labels(pod: &Pod, container: Option<&str>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("io.kubernetes.pod.uid".to_owned(), uid(pod).to_owned()),
        ("io.kubernetes.pod.name".to_owned(), name(pod).to_owned()),
        (
            "io.kubernetes.pod.namespace".to_owned(),
            namespace(pod).to_owned(),
        ),
    ]);
    if let Some(container) = container {
        labels.insert("io.kubernetes.container.name".to_owned(), container.to_owned());
    }
    labels
}

/// The sandbox of a pod.
pub(crate) fn sandbox(pod: &Pod, attempt: u32, layout: &Layout) -> SandboxConfig {
    let spec = pod.spec.as_ref();
    let flag = |value: Option<bool>| value.unwrap_or_default();
    SandboxConfig {
        pod_uid: uid(pod).to_owned(),
        pod_name: name(pod).to_owned(),
        namespace: namespace(pod).to_owned(),
        attempt,
        hostname: spec.and_then(|spec| spec.hostname.clone()).unwrap_or_default(),
        log_directory: layout.pod_logs(namespace(pod), name(pod), uid(pod)),
        labels: labels(pod, None),
        annotations: BTreeMap::new(),
        host_network: flag(spec.and_then(|spec| spec.host_network)),
        host_pid: flag(spec.and_then(|spec| spec.host_pid)),
        host_ipc: flag(spec.and_then(|spec| spec.host_ipc)),
        share_process_namespace: flag(spec.and_then(|spec| spec.share_process_namespace)),
        cgroup_parent: String::new(),
        dns: None,
        host_aliases: spec
            .and_then(|spec| spec.host_aliases.clone())
            .unwrap_or_default()
            .into_iter()
            .map(|alias| moorline_container_runtime::HostAlias {
                ip: alias.ip,
                hostnames: alias.hostnames.unwrap_or_default(),
            })
            .collect(),
    }
}

fn mounts(
    pod: &Pod,
    container: &Container,
    volumes: &BTreeMap<String, MountedVolume>,
    layout: &Layout,
    variables: &BTreeMap<String, String>,
) -> Result<(Vec<Mount>, Vec<SubPath>), ConfigError> {
    let mut mounts = Vec::new();
    let mut subpaths = Vec::new();
    let is_privileged = container
        .security_context
        .as_ref()
        .is_some_and(|security| security.privileged == Some(true));
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = volumes.get(&mount.name).filter(|volume| !volume.is_device);
        let volume = volume.ok_or_else(|| ConfigError(format!("volume {:?} is not mounted", mount.name)))?;
        let sub_path = match (&mount.sub_path_expr, &mount.sub_path) {
            (Some(expression), _) if !expression.is_empty() => {
                let text = expand(expression, variables);
                if text.contains("$(") {
                    return Err(ConfigError(format!(
                        "subPathExpr {expression:?} names an unknown variable"
                    )));
                }
                text
            }
            (_, Some(path)) => path.clone(),
            (_, None) => String::new(),
        };
        let read_only = mount.read_only.unwrap_or_default() || volume.read_only;
        let host_path = if sub_path.is_empty() {
            volume.path.clone()
        } else {
            let target = layout.subpath(uid(pod), &volume.spec_name, &container.name, index);
            subpaths.push(SubPath {
                volume: volume.path.clone(),
                sub_path,
                target: target.clone(),
                // Missing directories are made even for a mount that only reads, as long as the volume can be written.
                may_make: !volume.read_only,
            });
            target
        };
        let propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => MountPropagation::HostToContainer,
            Some("Bidirectional") if is_privileged => MountPropagation::Bidirectional,
            Some("Bidirectional") => {
                return Err(ConfigError(
                    "Bidirectional mount propagation needs a privileged container".into(),
                ));
            }
            Some(_) | None => MountPropagation::None,
        };
        let recursive = mount.recursive_read_only.as_deref();
        mounts.push(Mount {
            host_path,
            container_path: PathBuf::from(&mount.mount_path),
            read_only,
            recursive_read_only: read_only
                && propagation == MountPropagation::None
                && matches!(recursive, Some("Enabled" | "IfPossible")),
            propagation,
        });
    }
    Ok((mounts, subpaths))
}

fn devices(
    container: &Container,
    volumes: &BTreeMap<String, MountedVolume>,
) -> Result<Vec<Device>, ConfigError> {
    let devices = container.volume_devices.iter().flatten().map(|device| {
        let volume = volumes.get(&device.name).filter(|volume| volume.is_device);
        let volume = volume.ok_or_else(|| ConfigError(format!("volume {:?} is not mapped", device.name)))?;
        Ok(Device {
            host_path: volume.path.clone(),
            container_path: PathBuf::from(&device.device_path),
            permissions: if volume.read_only { "r" } else { "mrw" }.to_owned(),
        })
    });
    devices.collect()
}

fn amount(
    map: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
    key: &str,
) -> Result<Option<Amount>, ConfigError> {
    let Some(quantity) = map.and_then(|map| map.get(key)) else {
        return Ok(None);
    };
    quantity
        .0
        .parse::<Amount>()
        .map(Some)
        .map_err(|error| ConfigError(error.to_string()))
}

fn resources(requirements: Option<&ResourceRequirements>) -> Result<Resources, ConfigError> {
    let limits = requirements.and_then(|held| held.limits.as_ref());
    let requests = requirements.and_then(|held| held.requests.as_ref());
    let cpu_limit = amount(limits, "cpu")?;
    let cpu_request = amount(requests, "cpu")?.or(cpu_limit);
    let memory_limit = amount(limits, "memory")?;
    let milli = |amount: Amount| u64::try_from(amount.milli()).unwrap_or(0);
    let quota = cpu_limit.filter(|limit| !limit.is_zero()).map(|limit| {
        i64::try_from(milli(limit) * CPU_PERIOD_US / 1000)
            .unwrap_or(i64::MAX)
            .max(1000)
    });
    Ok(Resources {
        cpu_shares: Some(cpu_request.map_or(2, |request| (milli(request) * 1024 / 1000).max(2))),
        cpu_quota_us: quota,
        cpu_period_us: quota.map(|_| CPU_PERIOD_US),
        memory_limit_bytes: memory_limit.filter(|limit| !limit.is_zero()).map(Amount::ceil),
        pids_limit: None,
        oom_score_adj: Some(if limits.is_none() && requests.is_none() {
            1000
        } else {
            500
        }),
    })
}

fn id(value: Option<i64>, what: &str) -> Result<Option<u32>, ConfigError> {
    let Some(value) = value else { return Ok(None) };
    u32::try_from(value)
        .map(Some)
        .map_err(|_| ConfigError(format!("{what} {value} is out of range")))
}

fn security(pod: &Pod, container: &Container) -> Result<SecurityContext, ConfigError> {
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.clone())
        .unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let run_as_user = id(own.run_as_user.or(of_pod.run_as_user), "runAsUser")?;
    let run_as_non_root = own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or_default();
    if run_as_non_root && run_as_user == Some(0) {
        return Err(ConfigError(format!(
            "container's runAsUser breaks non-root policy (pod: {:?}, container: {})",
            display(pod),
            container.name
        )));
    }
    let mut groups = Vec::new();
    for group in of_pod
        .supplemental_groups
        .into_iter()
        .flatten()
        .chain(of_pod.fs_group)
    {
        groups.extend(id(Some(group), "group")?);
    }
    let capabilities = own.capabilities.unwrap_or_default();
    Ok(SecurityContext {
        run_as_user,
        run_as_group: id(own.run_as_group.or(of_pod.run_as_group), "runAsGroup")?,
        supplemental_groups: groups,
        run_as_non_root,
        privileged: own.privileged.unwrap_or_default(),
        capabilities_add: capabilities.add.unwrap_or_default(),
        capabilities_drop: capabilities.drop.unwrap_or_default(),
        read_only_root_filesystem: own.read_only_root_filesystem.unwrap_or_default(),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn built(container: Value) -> Result<(ContainerConfig, Vec<SubPath>), ConfigError> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [], "securityContext": {"fsGroup": 9, "runAsUser": 5}}}))
            .unwrap();
        let container: Container = serde_json::from_value(container).unwrap();
        let volume = |path: &str, is_device| MountedVolume {
            spec_name: "pv".into(),
            path: path.into(),
            is_device,
            read_only: false,
        };
        let volumes = BTreeMap::from([
            ("data".to_owned(), volume("/vol", false)),
            ("disk".to_owned(), volume("/disk", true)),
        ]);
        let layout = Layout::new("/root", "/logs");
        build(Parts {
            pod: &pod,
            container: &container,
            attempt: 3,
            image: ImageRef::default(),
            env: vec![("A".into(), "1".into())],
            volumes: &volumes,
            layout: &layout,
        })
    }

    #[test]
    fn spec_becomes_runtime_configuration() {
        let (config, subpaths) = built(json!({"name": "c", "command": ["run", "$(A)"],
            "resources": {"limits": {"cpu": "500m", "memory": "1Mi"}},
            "securityContext": {"runAsUser": 6},
            "volumeMounts": [
                {"name": "data", "mountPath": "/d", "readOnly": true},
                {"name": "data", "mountPath": "/s", "subPathExpr": "x$(A)"}],
            "volumeDevices": [{"name": "disk", "devicePath": "/dev/x"}]}))
        .unwrap();
        assert_eq!(config.command, ["run", "1"]);
        assert_eq!(config.log_path, PathBuf::from("c/3.log"));
        assert_eq!(config.resources.cpu_quota_us, Some(50_000));
        assert_eq!(config.resources.cpu_shares, Some(512));
        assert_eq!(config.resources.memory_limit_bytes, Some(1_048_576));
        assert_eq!(config.security.run_as_user, Some(6));
        assert_eq!(config.security.supplemental_groups, [9]);
        assert_eq!(config.mounts[0].host_path, PathBuf::from("/vol"));
        assert!(config.mounts[0].read_only);
        let target = PathBuf::from("/root/pods/u/volume-subpaths/pv/c/1");
        assert_eq!(config.mounts[1].host_path, target);
        let sub_path = SubPath {
            volume: "/vol".into(),
            sub_path: "x1".into(),
            target,
            may_make: true,
        };
        assert_eq!(subpaths, [sub_path]);
        assert_eq!(config.devices[0].permissions, "mrw");
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let mount = |more: Value| {
            let mut mount = json!({"name": "data", "mountPath": "/d"});
            for (key, value) in more.as_object().unwrap() {
                mount[key] = value.clone();
            }
            json!({"name": "c", "volumeMounts": [mount]})
        };
        let cases = [
            ("not mounted", mount(json!({"name": "none"}))),
            ("device as directory", mount(json!({"name": "disk"}))),
            (
                "propagation without privilege",
                mount(json!({"mountPropagation": "Bidirectional"})),
            ),
            ("unknown variable", mount(json!({"subPathExpr": "$(Z)"}))),
            (
                "root against policy",
                json!({"name": "c", "securityContext": {"runAsUser": 0, "runAsNonRoot": true}}),
            ),
            (
                "bad quantity",
                json!({"name": "c", "resources": {"limits": {"cpu": "x"}}}),
            ),
        ];
        for (name, container) in cases {
            assert!(built(container).is_err(), "{name}");
        }
    }
}
