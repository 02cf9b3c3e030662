//! A pod's directory: made before its containers, removed after its volumes, never with data in it.

use crate::paths::Layout;

use super::error::VolumeError;
use super::vol_data::{entries, make_directory, remove_directory};
use super::{local, subpath};

/// Makes the directories every pod has.
pub(crate) fn make(layout: &Layout, uid: &str) -> Result<(), VolumeError> {
    make_directory(&layout.pod_volumes(uid))?;
    make_directory(&layout.pod(uid).join("plugins"))
}

/// Removes the directory of a pod whose volumes are gone. Below `volumes` only empty directories are removed: a file
/// there means that a volume is not gone after all.
pub(crate) fn remove(layout: &Layout, uid: &str) -> Result<(), VolumeError> {
    let root = layout.pod(uid);
    subpath::clean(&layout.subpaths(uid))?;
    for directory in [layout.pod_volumes(uid), layout.pod_volume_devices(uid)] {
        for plugin in entries(&directory)? {
            for volume in entries(&plugin)? {
                remove_directory(&volume)?;
            }
            remove_directory(&plugin)?;
        }
        remove_directory(&directory)?;
    }
    for other in ["plugins", "containers", "etc-hosts"] {
        let path = root.join(other);
        if path.is_dir() {
            local::tear_down(&path)?;
        } else {
            super::vol_data::remove_file(&path)?;
        }
    }
    remove_directory(&root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_never_removed() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path(), root.path().join("logs"));
        make(&layout, "u").unwrap();
        let volume = layout.pod_volume("u", "kubernetes.io/csi", "pv");
        make_directory(&volume).unwrap();
        std::fs::write(volume.join("precious"), "x").unwrap();
        assert!(remove(&layout, "u").is_err());
        assert!(volume.join("precious").exists());
        std::fs::remove_file(volume.join("precious")).unwrap();
        remove(&layout, "u").unwrap();
        assert!(!layout.pod("u").exists());
        remove(&layout, "u").unwrap();
    }
}
