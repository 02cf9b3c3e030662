//! Where the kubelet keeps things below its root directory, and how names become path components. Pure, but
//! for [`Layout::logs_of`].

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::volumes::error::VolumeError;
use crate::volumes::vol_data::{entries, file_name};

/// Upstream's plugin name for CSI volumes.
pub(crate) const CSI_PLUGIN: &str = "kubernetes.io/csi";

/// The directories of one kubelet.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
    logs: PathBuf,
}

/// Directory name of a plugin such as `kubernetes.io/csi` below a pod.
pub(crate) fn escape(plugin: &str) -> String {
    plugin.replace('/', "~")
}

/// Inverse of [`escape`].
pub(crate) fn unescape(component: &str) -> String {
    component.replace('~', "/")
}

/// The hash of a volume handle that names its staging directory.
pub(crate) fn handle_hash(volume_handle: &str) -> String {
    hex::encode(Sha256::digest(volume_handle.as_bytes()))
}

/// The handle of an inline volume: nobody else makes one up for it.
pub(crate) fn inline_handle(pod_uid: &str, volume_name: &str) -> String {
    format!(
        "csi-{}",
        hex::encode(Sha256::digest(format!("{pod_uid}{volume_name}").as_bytes()))
    )
}

impl Layout {
    pub(crate) fn new(root: impl Into<PathBuf>, logs: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            logs: logs.into(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn plugins_registry(&self) -> PathBuf {
        self.root.join("plugins_registry")
    }

    pub(crate) fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    pub(crate) fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    pub(crate) fn pod_volumes(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("volumes")
    }

    pub(crate) fn pod_volume_devices(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("volumeDevices")
    }

    /// Directory of one volume of a pod.
    pub(crate) fn pod_volume(&self, uid: &str, plugin: &str, spec_name: &str) -> PathBuf {
        self.pod_volumes(uid).join(escape(plugin)).join(spec_name)
    }

    /// `target_path` of a CSI filesystem volume.
    pub(crate) fn publish_target(&self, uid: &str, spec_name: &str) -> PathBuf {
        self.pod_volume(uid, CSI_PLUGIN, spec_name).join("mount")
    }

    /// The symlink of a block volume that containers get.
    pub(crate) fn pod_device(&self, uid: &str, spec_name: &str) -> PathBuf {
        self.pod_volume_devices(uid)
            .join(escape(CSI_PLUGIN))
            .join(spec_name)
    }

    pub(crate) fn subpaths(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("volume-subpaths")
    }

    pub(crate) fn subpath(&self, uid: &str, volume: &str, container: &str, index: usize) -> PathBuf {
        self.subpaths(uid)
            .join(volume)
            .join(container)
            .join(index.to_string())
    }

    pub(crate) fn csi(&self) -> PathBuf {
        self.root.join("plugins").join(CSI_PLUGIN)
    }

    /// The directory that holds a filesystem volume's staging target and its `vol_data.json`.
    pub(crate) fn staging(&self, driver_name: &str, volume_handle: &str) -> PathBuf {
        self.csi().join(driver_name).join(handle_hash(volume_handle))
    }

    /// `staging_target_path` of a filesystem volume.
    pub(crate) fn staging_target(&self, driver_name: &str, volume_handle: &str) -> PathBuf {
        self.staging(driver_name, volume_handle).join("globalmount")
    }

    pub(crate) fn block_devices(&self) -> PathBuf {
        self.csi().join("volumeDevices")
    }

    /// `staging_target_path` of a block volume.
    pub(crate) fn block_staging_target(&self, spec_name: &str) -> PathBuf {
        self.block_devices().join("staging").join(spec_name)
    }

    /// `target_path` of a block volume: a file the driver puts the device on.
    pub(crate) fn block_publish_target(&self, uid: &str, spec_name: &str) -> PathBuf {
        self.block_devices().join("publish").join(spec_name).join(uid)
    }

    pub(crate) fn block_volume(&self, spec_name: &str) -> PathBuf {
        self.block_devices().join(spec_name)
    }

    /// A second reference to the device, so that a later kubelet knows it is in use.
    pub(crate) fn block_reference(&self, uid: &str, spec_name: &str) -> PathBuf {
        self.block_volume(spec_name).join("dev").join(uid)
    }

    pub(crate) fn block_data(&self, spec_name: &str) -> PathBuf {
        self.block_volume(spec_name).join("data")
    }

    /// The log directories of a pod whose name may not be known any more.
    pub(crate) fn logs_of(&self, uid: &str) -> Result<Vec<PathBuf>, VolumeError> {
        let mut found = entries(&self.logs)?;
        found.retain(|path| file_name(path).ends_with(&format!("_{uid}")));
        Ok(found)
    }

    pub(crate) fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.logs.join(format!("{namespace}_{name}_{uid}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_other_tools_expect() {
        let layout = Layout::new("/var/lib/kubelet", "/var/log/pods");
        let cases: [(&str, PathBuf, &str); 6] = [
            (
                "staging",
                layout.staging_target("d.example", "v1"),
                "/var/lib/kubelet/plugins/kubernetes.io/csi/d.example/3bfc269594ef649228e9a74bab00f042efc91d5acc6fbee31a382e80d42388fe/globalmount",
            ),
            (
                "publish",
                layout.publish_target("u1", "pvc-1"),
                "/var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/pvc-1/mount",
            ),
            (
                "block publish",
                layout.block_publish_target("u1", "pvc-1"),
                "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/publish/pvc-1/u1",
            ),
            (
                "block symlink",
                layout.pod_device("u1", "pvc-1"),
                "/var/lib/kubelet/pods/u1/volumeDevices/kubernetes.io~csi/pvc-1",
            ),
            (
                "subpath",
                layout.subpath("u1", "data", "main", 2),
                "/var/lib/kubelet/pods/u1/volume-subpaths/data/main/2",
            ),
            ("logs", layout.pod_logs("ns", "p", "u1"), "/var/log/pods/ns_p_u1"),
        ];
        for (name, got, want) in cases {
            assert_eq!(got, PathBuf::from(want), "{name}");
        }
    }
}
