//! After a restart: what is mounted is read from the directories, not remembered.

use std::path::Path;

use super::actual::{Actual, ActualMount, Device, MountKind, Mounted};
use super::error::VolumeError;
use super::spec::{MountId, VolumeKey};
use super::vol_data::{self, FILE_NAME, VolData, entries, file_name, remove_directory};
use crate::paths::{CSI_PLUGIN, Layout, unescape};

/// Everything that earlier kubelets left below the root. Mounts count as uncertain: publishing again or taking them
/// away are both safe.
pub(crate) fn scan(layout: &Layout) -> Result<Actual, VolumeError> {
    let mut actual = Actual::default();
    for pod in entries(&layout.pods())? {
        let uid = file_name(&pod);
        for plugin in entries(&layout.pod_volumes(&uid))? {
            for volume in entries(&plugin)? {
                add_directory(&mut actual, layout, &uid, &unescape(&file_name(&plugin)), &volume)?;
            }
        }
    }
    add_block_volumes(&mut actual, layout)?;
    add_staged(&mut actual, layout)?;
    Ok(actual)
}

fn found(kind: MountKind) -> ActualMount {
    ActualMount {
        state: Mounted::Uncertain,
        kind,
        is_stale: false,
        is_reconstructed: true,
    }
}

fn add_directory(
    actual: &mut Actual,
    layout: &Layout,
    uid: &str,
    plugin: &str,
    volume: &Path,
) -> Result<(), VolumeError> {
    let spec_name = file_name(volume);
    let id = MountId {
        pod_uid: uid.to_owned(),
        spec_name: spec_name.clone(),
    };
    if plugin != CSI_PLUGIN {
        let key = VolumeKey::of_pod(plugin, uid, &spec_name);
        let kind = MountKind::Local {
            plugin: plugin.to_owned(),
        };
        actual.volume_mut(&key).mounts.insert(id, found(kind));
        return Ok(());
    }
    let Some(data) = read(volume) else {
        // A crash before the record was written, or after it was removed: the driver has nothing here.
        return remove_unrecorded(&layout.publish_target(uid, &spec_name), volume);
    };
    let is_inline = data.volume_lifecycle_mode == "Ephemeral";
    let key = if is_inline {
        VolumeKey::of_pod(CSI_PLUGIN, uid, &spec_name)
    } else {
        VolumeKey::persistent(&data.driver_name, &data.volume_handle)
    };
    let kind = MountKind::CsiDirectory {
        driver_name: data.driver_name,
        volume_handle: data.volume_handle,
    };
    actual.volume_mut(&key).mounts.insert(id, found(kind));
    Ok(())
}

/// The record of a directory; one that can't be read is as good as none, but said aloud.
fn read(directory: &Path) -> Option<VolData> {
    VolData::read(directory).unwrap_or_else(|error| {
        tracing::warn!(%error, "Record of a volume can't be read");
        None
    })
}

/// Removes what surrounds a volume that was not begun or is already gone. What is not empty is left alone and said.
fn remove_unrecorded(target: &Path, directory: &Path) -> Result<(), VolumeError> {
    let is_mounted = moorline_mount::mount::is_mount_point(target).unwrap_or(true);
    let removed = if is_mounted || directory.join(FILE_NAME).exists() {
        Err(VolumeError::Refused("it may be in use".into()))
    } else {
        remove_directory(target)
            .and_then(|()| vol_data::remove(directory))
            .and_then(|()| remove_directory(directory))
    };
    match removed {
        Ok(()) => super::local::remove_empty_parent(directory),
        Err(error) => {
            tracing::warn!(path = %directory.display(), %error, "Volume of unknown origin is left alone");
        }
    }
    Ok(())
}

fn add_block_volumes(actual: &mut Actual, layout: &Layout) -> Result<(), VolumeError> {
    for volume in entries(&layout.block_devices())? {
        let spec_name = file_name(&volume);
        if spec_name == "staging" || spec_name == "publish" {
            continue;
        }
        let Some(data) = read(&layout.block_data(&spec_name)) else {
            if let Err(error) = super::block::remove_if_unused(layout, &spec_name) {
                tracing::warn!(path = %volume.display(), %error, "Volume of unknown origin is left alone");
            }
            continue;
        };
        let key = VolumeKey::persistent(&data.driver_name, &data.volume_handle);
        let published = layout.block_devices().join("publish").join(&spec_name);
        let mut uids: Vec<String> = entries(&volume.join("dev"))?
            .iter()
            .map(|path| file_name(path))
            .collect();
        uids.extend(entries(&published)?.iter().map(|path| file_name(path)));
        for uid in uids {
            let kind = MountKind::CsiBlock {
                driver_name: data.driver_name.clone(),
                volume_handle: data.volume_handle.clone(),
            };
            let id = MountId {
                pod_uid: uid,
                spec_name: spec_name.clone(),
            };
            actual.volume_mut(&key).mounts.insert(id, found(kind));
        }
        actual.volume_mut(&key).device = Some(Device {
            state: Mounted::Uncertain,
            driver_name: data.driver_name,
            volume_handle: data.volume_handle,
            block_spec_name: Some(spec_name),
        });
    }
    Ok(())
}

/// Staged volumes are found by their own records, also those that were never published.
fn add_staged(actual: &mut Actual, layout: &Layout) -> Result<(), VolumeError> {
    for driver in entries(&layout.csi())? {
        if file_name(&driver) == "volumeDevices" {
            continue;
        }
        for directory in entries(&driver)? {
            let Some(data) = read(&directory) else {
                remove_unrecorded(&directory.join("globalmount"), &directory)?;
                continue;
            };
            let key = VolumeKey::persistent(&data.driver_name, &data.volume_handle);
            actual.volume_mut(&key).device = Some(Device {
                state: Mounted::Uncertain,
                driver_name: data.driver_name,
                volume_handle: data.volume_handle,
                block_spec_name: None,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::vol_data::make_directory;

    fn record(directory: &Path, lifecycle: &str) {
        make_directory(directory).unwrap();
        let data = VolData {
            volume_handle: "h".into(),
            driver_name: "d".into(),
            volume_lifecycle_mode: lifecycle.into(),
            ..Default::default()
        };
        data.write(directory).unwrap();
    }

    #[test]
    fn directories_tell_what_is_mounted() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path(), root.path().join("logs"));
        record(&layout.pod_volume("u1", CSI_PLUGIN, "pv"), "Persistent");
        record(&layout.pod_volume("u1", CSI_PLUGIN, "inline"), "Ephemeral");
        for half in [
            layout.pod_volume("u1", CSI_PLUGIN, "half"),
            layout.staging("d", "half"),
            layout.block_data("half"),
        ] {
            make_directory(&half).unwrap();
            std::fs::write(half.join(".vol_data.json-1-1.moorline-tmp"), "x").unwrap();
        }
        make_directory(&layout.pod_volume("u1", CSI_PLUGIN, "half").join("mount")).unwrap();
        let foreign = layout.pod_volume("u1", CSI_PLUGIN, "foreign");
        make_directory(&foreign).unwrap();
        std::fs::write(foreign.join("precious"), "x").unwrap();
        make_directory(&layout.pod_volume("u2", "kubernetes.io/empty-dir", "scratch")).unwrap();
        record(&layout.staging("d", "h"), "");
        record(&layout.staging("d", "h2"), "");
        record(&layout.block_data("blockpv"), "Persistent");
        make_directory(&layout.block_publish_target("u3", "blockpv")).unwrap();
        let actual = scan(&layout).unwrap();
        let mut keys: Vec<String> = actual.volumes().map(|(key, _)| key.0.clone()).collect();
        keys.sort();
        assert_eq!(
            keys,
            [
                "kubernetes.io/csi/d^h",
                "kubernetes.io/csi/u1-inline",
                "kubernetes.io/empty-dir/u2-scratch"
            ]
        );
        let persistent = actual.get(&VolumeKey::persistent("d", "h")).unwrap();
        let pods: Vec<&str> = persistent.mounts.keys().map(|id| id.pod_uid.as_str()).collect();
        assert_eq!(pods, ["u1", "u3"]);
        assert!(
            persistent
                .mounts
                .values()
                .all(|mount| mount.state == Mounted::Uncertain)
        );
        assert!(
            !layout.pod_volume("u1", CSI_PLUGIN, "half").exists(),
            "never published, so removed"
        );
    }
}
