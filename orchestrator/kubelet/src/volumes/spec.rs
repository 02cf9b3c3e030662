//! Which volumes of a pod are used, and what a resolved one is. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EphemeralContainer, HostPathVolumeSource, Pod, SecretReference, Volume,
};

/// Names a volume on this node. Volumes of a PV are shared by pods and keyed by driver and handle; all others belong
/// to one pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct VolumeKey(pub String);

impl std::fmt::Display for VolumeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl VolumeKey {
    /// As in the Node's `volumesInUse` and `volumesAttached`.
    pub(crate) fn persistent(driver_name: &str, volume_handle: &str) -> Self {
        Self(format!("kubernetes.io/csi/{driver_name}^{volume_handle}"))
    }

    pub(crate) fn of_pod(plugin: &str, pod_uid: &str, spec_name: &str) -> Self {
        Self(format!("{plugin}/{pod_uid}-{spec_name}"))
    }
}

/// One mount of one volume for one pod. Two volumes of the pod with the same claim are one mount.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MountId {
    pub pod_uid: String,
    /// The PV's name, or the pod's name for the volume when there is no PV.
    pub spec_name: String,
}

/// How containers of the pod use a volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub as_directory: bool,
    pub as_device: bool,
}

/// A CSI volume, from a PV or inline.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct CsiSpec {
    pub driver_name: String,
    pub volume_handle: String,
    pub block: bool,
    pub inline: bool,
    pub fs_type: String,
    pub attributes: BTreeMap<String, String>,
    pub mount_options: Vec<String>,
    pub access_modes: Vec<String>,
    pub stage_secret: Option<SecretReference>,
    pub publish_secret: Option<SecretReference>,
    pub expand_secret: Option<SecretReference>,
    /// `(namespace, name)` of the claim; none for inline volumes.
    pub claim: Option<(String, String)>,
}

impl CsiSpec {
    /// Only one pod may use it at a time.
    pub(crate) fn is_single_pod(&self) -> bool {
        self.access_modes == ["ReadWriteOncePod"]
    }
}

/// A volume that is made from the pod and the API alone.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum LocalSpec {
    #[default]
    ConfigMap,
    Secret,
    DownwardApi,
    Projected,
    EmptyDir(EmptyDirVolumeSource),
    HostPath(HostPathVolumeSource),
}

impl LocalSpec {
    /// Upstream's name of the plugin, which is also part of the path.
    pub(crate) fn plugin(&self) -> &'static str {
        match self {
            Self::ConfigMap => "kubernetes.io/configmap",
            Self::Secret => "kubernetes.io/secret",
            Self::DownwardApi => "kubernetes.io/downward-api",
            Self::Projected => "kubernetes.io/projected",
            Self::EmptyDir(_) => "kubernetes.io/empty-dir",
            Self::HostPath(_) => "kubernetes.io/host-path",
        }
    }

    /// Its content follows objects of the API.
    pub(crate) fn is_refreshed(&self) -> bool {
        matches!(
            self,
            Self::ConfigMap | Self::Secret | Self::DownwardApi | Self::Projected
        )
    }

    /// Its directory is a tmpfs of its own.
    pub(crate) fn is_tmpfs(&self) -> bool {
        match self {
            Self::Secret | Self::DownwardApi | Self::Projected => true,
            Self::EmptyDir(source) => source.medium.as_deref() == Some("Memory"),
            Self::ConfigMap | Self::HostPath(_) => false,
        }
    }
}

/// What a volume of a pod is, once claims are resolved.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a few per pod, and CSI is the usual case"
)]
pub(crate) enum Spec {
    Csi(CsiSpec),
    Local(LocalSpec),
}

/// All containers of a pod of every sort, by what matters for volumes.
pub(crate) fn all_containers(pod: &Pod) -> Vec<Container> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(plain);
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .cloned()
        .chain(ephemeral)
        .collect()
}

fn plain(container: &EphemeralContainer) -> Container {
    Container {
        name: container.name.clone(),
        volume_mounts: container.volume_mounts.clone(),
        volume_devices: container.volume_devices.clone(),
        ..Default::default()
    }
}

/// The volumes that some container uses, in the pod's order. The others are never mounted.
pub(crate) fn used_volumes(pod: &Pod) -> Vec<(Volume, Usage)> {
    let mut usage: BTreeMap<String, Usage> = BTreeMap::new();
    for container in all_containers(pod) {
        for mount in container.volume_mounts.iter().flatten() {
            usage.entry(mount.name.clone()).or_default().as_directory = true;
        }
        for device in container.volume_devices.iter().flatten() {
            usage.entry(device.name.clone()).or_default().as_device = true;
        }
    }
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| usage.get(&volume.name).map(|usage| (volume.clone(), *usage)))
        .collect()
}

/// Name of the claim a volume stands on, and whether the pod must own it.
pub(crate) fn claim_name(pod: &Pod, volume: &Volume) -> Option<(String, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((source.claim_name.clone(), false));
    }
    volume.ephemeral.as_ref()?;
    Some((
        format!(
            "{}-{}",
            pod.metadata.name.as_deref().unwrap_or_default(),
            volume.name
        ),
        true,
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn local_volumes_have_their_plugin_and_their_nature() {
        let empty_dir = |medium: Option<&str>| {
            LocalSpec::EmptyDir(EmptyDirVolumeSource {
                medium: medium.map(str::to_owned),
                ..Default::default()
            })
        };
        let host_path = LocalSpec::HostPath(HostPathVolumeSource::default());
        for (spec, plugin, is_refreshed, is_tmpfs) in [
            (LocalSpec::ConfigMap, "kubernetes.io/configmap", true, false),
            (LocalSpec::Secret, "kubernetes.io/secret", true, true),
            (LocalSpec::DownwardApi, "kubernetes.io/downward-api", true, true),
            (LocalSpec::Projected, "kubernetes.io/projected", true, true),
            (empty_dir(None), "kubernetes.io/empty-dir", false, false),
            (empty_dir(Some("Memory")), "kubernetes.io/empty-dir", false, true),
            (host_path, "kubernetes.io/host-path", false, false),
        ] {
            assert_eq!(
                (spec.plugin(), spec.is_refreshed(), spec.is_tmpfs()),
                (plugin, is_refreshed, is_tmpfs),
                "{spec:?}"
            );
        }
        assert_eq!(
            VolumeKey::persistent("d", "h").to_string(),
            "kubernetes.io/csi/d^h"
        );
    }

    #[test]
    fn devices_and_debug_containers_use_volumes_too() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {
                "containers": [{"name": "c", "volumeDevices": [{"name": "disk", "devicePath": "/dev/x"}]}],
                "ephemeralContainers": [{"name": "debug", "volumeMounts": [{"name": "logs", "mountPath": "/l"}]}],
                "volumes": [
                    {"name": "disk", "persistentVolumeClaim": {"claimName": "raw"}},
                    {"name": "logs", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                    {"name": "none", "emptyDir": {}},
                ],
            },
        }))
        .unwrap();
        let used = used_volumes(&pod);
        let claims: Vec<_> = used
            .iter()
            .map(|(volume, _)| claim_name(&pod, volume).unwrap())
            .collect();
        assert_eq!(claims, [("raw".to_owned(), false), ("p-logs".to_owned(), true)]);
        assert!(used[0].1.as_device && !used[0].1.as_directory && used[1].1.as_directory);
        let none = pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten())
            .next_back()
            .unwrap();
        assert_eq!(claim_name(&pod, none), None);
    }

    #[test]
    fn only_used_volumes_count() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {
                "initContainers": [{"name": "i", "volumeMounts": [{"name": "scratch", "mountPath": "/s"}]}],
                "containers": [{"name": "c",
                    "volumeMounts": [{"name": "data", "mountPath": "/d"}],
                    "volumeDevices": [{"name": "disk", "devicePath": "/dev/x"}]}],
                "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": "a"}},
                    {"name": "disk", "ephemeral": {}},
                    {"name": "scratch", "emptyDir": {}},
                    {"name": "unused", "emptyDir": {}}]}
        }))
        .unwrap();
        let names: Vec<(String, Usage)> = used_volumes(&pod)
            .into_iter()
            .map(|(volume, usage)| (volume.name, usage))
            .collect();
        let directory = Usage {
            as_directory: true,
            as_device: false,
        };
        let device = Usage {
            as_directory: false,
            as_device: true,
        };
        assert_eq!(
            names,
            [
                ("data".to_owned(), directory),
                ("disk".to_owned(), device),
                ("scratch".to_owned(), directory)
            ]
        );
    }
}
