//! Stage, publish and their reverses: the directories, `vol_data.json` and the driver's calls, in crash-safe order.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, SecretReference};
use k8s_openapi::api::storage::v1::CSIDriver;
use moorline_proto::csi;

use super::actual::{Device, MountKind};
use super::desired::WantedMount;
use super::error::{Class, VolumeError, blocking};
use super::local::{fs_group, remove_empty_parent};
use super::ownership::{self, Asked, ChangePolicy};
use super::spec::{CsiSpec, MountId, Spec};
use super::tokens::Tokens;
use super::vol_data::{self, VolData, make_directory, remove_directory};
use super::{block, payload};
use crate::csi::capability::{Wish, volume_capability};
use crate::csi::client::NodeCapabilities;
use crate::csi::drivers::{Driver, Drivers};
use crate::objects::Objects;
use crate::paths::Layout;

/// What CSI volumes are made with.
#[derive(Debug, Clone)]
pub(crate) struct CsiVolumes {
    pub objects: Objects,
    pub layout: Layout,
    pub drivers: Arc<Drivers>,
    pub tokens: Tokens,
    pub node_name: String,
}

/// How much is known of a mount before it is published (again).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Before {
    /// Something may be mounted there: an error must not take away what containers may use.
    pub may_be_mounted: bool,
}

impl CsiVolumes {
    /// Name of the VolumeAttachment of this volume on this node.
    pub(crate) fn attachment_name(&self, spec: &CsiSpec) -> String {
        moorline_model::names::volume_attachment_name(&spec.volume_handle, &spec.driver_name, &self.node_name)
    }

    /// What the attacher left for the node; empty where nothing is attached.
    fn publish_context(&self, spec: &CsiSpec) -> HashMap<String, String> {
        if spec.inline {
            return HashMap::new();
        }
        let attachment = self.objects.attachments.get(None, &self.attachment_name(spec));
        let metadata = attachment.and_then(|held| held.status.as_ref()?.attachment_metadata.clone());
        metadata.unwrap_or_default().into_iter().collect()
    }

    pub(super) async fn secret(
        &self,
        reference: Option<&SecretReference>,
    ) -> Result<HashMap<String, String>, VolumeError> {
        let Some(reference) = reference else {
            return Ok(HashMap::new());
        };
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        let name = reference.name.as_deref().unwrap_or_default();
        let failed = || format!("fetch secret {namespace}/{name}");
        let object = self
            .objects
            .secret(namespace, name)
            .await
            .map_err(VolumeError::api(failed()))?;
        let object = object.ok_or_else(|| VolumeError::Missing(format!("{}: not found", failed())))?;
        let data = payload::of_secret(&object).into_iter();
        Ok(data
            .map(|(key, value)| (key, String::from_utf8_lossy(&value).into_owned()))
            .collect())
    }

    fn vol_data(&self, spec: &CsiSpec, spec_name: &str) -> VolData {
        VolData {
            spec_volume_id: spec_name.to_owned(),
            volume_handle: spec.volume_handle.clone(),
            driver_name: spec.driver_name.clone(),
            node_name: self.node_name.clone(),
            attachment_id: self.attachment_name(spec),
            volume_lifecycle_mode: if spec.inline { "Ephemeral" } else { "Persistent" }.to_owned(),
        }
    }

    pub(crate) fn staging_path(&self, spec: &CsiSpec, spec_name: &str) -> PathBuf {
        if spec.block {
            self.layout.block_staging_target(spec_name)
        } else {
            self.layout.staging_target(&spec.driver_name, &spec.volume_handle)
        }
    }

    /// Stages the volume of `wanted`. Intent (`vol_data.json`) is on disk before the driver is called.
    pub(crate) async fn stage(
        &self,
        wanted: &WantedMount,
        spec_name: &str,
        before: Before,
    ) -> Result<(), VolumeError> {
        let Spec::Csi(spec) = &wanted.spec else {
            return Err(VolumeError::Lost);
        };
        let driver = self.drivers.get(&spec.driver_name)?;
        let secrets = self.secret(spec.stage_secret.as_ref()).await?;
        let staging = self.staging_path(spec, spec_name);
        let data_directory = if spec.block {
            self.layout.block_data(spec_name)
        } else {
            self.layout.staging(&spec.driver_name, &spec.volume_handle)
        };
        let data = if spec.block {
            self.vol_data(spec, spec_name)
        } else {
            VolData {
                volume_handle: spec.volume_handle.clone(),
                driver_name: spec.driver_name.clone(),
                ..Default::default()
            }
        };
        let (target, directory) = (staging.clone(), data_directory.clone());
        blocking(move || {
            make_directory(&directory)?;
            data.write(&directory)?;
            make_directory(&target)
        })
        .await?;
        let request = csi::NodeStageVolumeRequest {
            volume_id: spec.volume_handle.clone(),
            publish_context: self.publish_context(spec),
            staging_target_path: text(&staging),
            volume_capability: Some(capability(spec, driver.capabilities, &wanted.pod)),
            secrets,
            volume_context: spec.attributes.clone().into_iter().collect(),
        };
        let staged = driver.client.stage(request).await.map_err(VolumeError::from);
        if let Err(error) = &staged
            && error.class() == Class::Final
            && !before.may_be_mounted
        {
            // Nothing came of it: a later kubelet must not take these for a staged volume.
            blocking(move || remove_staging(&staging, &data_directory)).await?;
        }
        staged
    }

    /// Publishes the volume for one pod, or again for one that has it.
    pub(crate) async fn publish(
        &self,
        id: &MountId,
        wanted: &WantedMount,
        before: Before,
    ) -> Result<(), VolumeError> {
        let Spec::Csi(spec) = &wanted.spec else {
            return Err(VolumeError::Lost);
        };
        let driver = self.drivers.get(&spec.driver_name)?;
        let csi_driver = self.objects.csi_driver(&spec.driver_name).await;
        let csi_driver =
            csi_driver.map_err(VolumeError::api(format!("read CSIDriver {}", spec.driver_name)))?;
        check_lifecycle(spec, csi_driver.as_deref())?;
        let request = self
            .publish_request(id, wanted, spec, &driver, csi_driver.as_deref())
            .await?;
        let target = PathBuf::from(&request.target_path);
        self.prepare_target(id, spec, &target).await?;
        if let Err(error) = driver.client.publish(request).await.map_err(VolumeError::from) {
            if error.class() == Class::Final && !before.may_be_mounted {
                self.remove_target(id, spec.block).await?;
            }
            return Err(error);
        }
        let finished = if spec.block {
            self.link_device(id).await
        } else {
            self.apply_group(wanted, spec, &driver, csi_driver.as_deref(), target)
                .await
        };
        finished.map_err(|error| VolumeError::AfterPublish(Box::new(error)))
    }

    async fn publish_request(
        &self,
        id: &MountId,
        wanted: &WantedMount,
        spec: &CsiSpec,
        driver: &Driver,
        csi_driver: Option<&CSIDriver>,
    ) -> Result<csi::NodePublishVolumeRequest, VolumeError> {
        let facts = csi_driver.map(|object| &object.spec);
        let mut secrets = self.secret(spec.publish_secret.as_ref()).await?;
        let mut context: HashMap<String, String> = spec.attributes.clone().into_iter().collect();
        if facts.is_some_and(|facts| facts.pod_info_on_mount == Some(true)) {
            context.extend(pod_info(&wanted.pod, spec.inline));
        }
        let audiences = facts
            .and_then(|facts| facts.token_requests.clone())
            .unwrap_or_default();
        if !audiences.is_empty() && !spec.block {
            let tokens = self.service_account_tokens(&wanted.pod, &audiences).await?;
            let in_secrets = facts.is_some_and(|facts| facts.service_account_token_in_secrets == Some(true));
            let map = if in_secrets { &mut secrets } else { &mut context };
            map.insert("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), tokens);
        }
        let target = if spec.block {
            self.layout.block_publish_target(&id.pod_uid, &id.spec_name)
        } else {
            self.layout.publish_target(&id.pod_uid, &id.spec_name)
        };
        let names_staging = driver.capabilities.stage || spec.block;
        Ok(csi::NodePublishVolumeRequest {
            volume_id: spec.volume_handle.clone(),
            publish_context: self.publish_context(spec),
            staging_target_path: if names_staging && !spec.inline {
                text(&self.staging_path(spec, &id.spec_name))
            } else {
                String::new()
            },
            target_path: text(&target),
            volume_capability: Some(capability(spec, driver.capabilities, &wanted.pod)),
            readonly: wanted.read_only,
            secrets,
            volume_context: context,
        })
    }

    async fn service_account_tokens(
        &self,
        pod: &Pod,
        audiences: &[k8s_openapi::api::storage::v1::TokenRequest],
    ) -> Result<String, VolumeError> {
        let mut tokens = BTreeMap::new();
        for wish in audiences {
            let audience = Some(wish.audience.as_str());
            let token = self
                .tokens
                .get(self.objects.client(), pod, audience, wish.expiration_seconds)
                .await?;
            let entry =
                serde_json::json!({"token": token.text, "expirationTimestamp": token.expires_at.to_string()});
            tokens.insert(wish.audience.clone(), entry);
        }
        Ok(serde_json::json!(tokens).to_string())
    }

    async fn prepare_target(&self, id: &MountId, spec: &CsiSpec, target: &Path) -> Result<(), VolumeError> {
        let data = self.vol_data(spec, &id.spec_name);
        let data_directory = if spec.block {
            self.layout.block_data(&id.spec_name)
        } else {
            self.layout
                .pod_volume(&id.pod_uid, crate::paths::CSI_PLUGIN, &id.spec_name)
        };
        let parent = target.parent().map(Path::to_owned).unwrap_or_default();
        let staging = spec.block.then(|| self.staging_path(spec, &id.spec_name));
        blocking(move || {
            make_directory(&data_directory)?;
            data.write(&data_directory)?;
            if let Some(staging) = staging {
                make_directory(&staging)?;
            }
            make_directory(&parent)
        })
        .await
    }

    async fn link_device(&self, id: &MountId) -> Result<(), VolumeError> {
        let (layout, id) = (self.layout.clone(), id.clone());
        blocking(move || block::link(&layout, &id)).await
    }

    async fn apply_group(
        &self,
        wanted: &WantedMount,
        spec: &CsiSpec,
        driver: &Driver,
        csi_driver: Option<&CSIDriver>,
        target: PathBuf,
    ) -> Result<(), VolumeError> {
        let Some(gid) = fs_group(&wanted.pod) else {
            return Ok(());
        };
        let applies = ownership::applies(Asked {
            policy: csi_driver.and_then(|object| object.spec.fs_group_policy.as_deref()),
            fs_type: &spec.fs_type,
            access_modes: &spec.access_modes,
            is_inline: spec.inline,
            is_read_only: wanted.read_only,
            is_delegated: driver.capabilities.volume_mount_group,
        });
        if !applies {
            return Ok(());
        }
        let security = wanted
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.security_context.as_ref());
        let policy =
            ChangePolicy::of(security.and_then(|security| security.fs_group_change_policy.as_deref()));
        blocking(move || ownership::give_to_group(&target, gid, false, policy)).await
    }

    /// Takes the volume from one pod.
    pub(crate) async fn unpublish(&self, id: &MountId, kind: &MountKind) -> Result<(), VolumeError> {
        let (driver_name, volume_handle, is_block) = match kind {
            MountKind::CsiDirectory {
                driver_name,
                volume_handle,
            } => (driver_name, volume_handle, false),
            MountKind::CsiBlock {
                driver_name,
                volume_handle,
            } => (driver_name, volume_handle, true),
            MountKind::Local { .. } => return Err(VolumeError::Lost),
        };
        let driver = self.drivers.get(driver_name)?;
        let target = if is_block {
            let (layout, own) = (self.layout.clone(), id.clone());
            blocking(move || block::unlink(&layout, &own)).await?;
            self.layout.block_publish_target(&id.pod_uid, &id.spec_name)
        } else {
            self.layout.publish_target(&id.pod_uid, &id.spec_name)
        };
        let request = csi::NodeUnpublishVolumeRequest {
            volume_id: volume_handle.clone(),
            target_path: text(&target),
        };
        driver.client.unpublish(request).await?;
        self.remove_target(id, is_block).await?;
        if is_block && !driver.capabilities.stage {
            let (layout, spec_name) = (self.layout.clone(), id.spec_name.clone());
            blocking(move || block::remove_if_unused(&layout, &spec_name)).await?;
        }
        Ok(())
    }

    async fn remove_target(&self, id: &MountId, is_block: bool) -> Result<(), VolumeError> {
        let (layout, id) = (self.layout.clone(), id.clone());
        blocking(move || {
            if is_block {
                return block::remove_target(&layout, &id);
            }
            let target = layout.publish_target(&id.pod_uid, &id.spec_name);
            let directory = layout.pod_volume(&id.pod_uid, crate::paths::CSI_PLUGIN, &id.spec_name);
            refuse_mounted(&target)?;
            remove_directory(&target)?;
            vol_data::remove(&directory)?;
            remove_directory(&directory)?;
            remove_empty_parent(&directory);
            Ok(())
        })
        .await
    }

    /// Takes the volume from the node. Nothing may be published any more.
    pub(crate) async fn unstage(&self, device: &Device) -> Result<(), VolumeError> {
        let driver = self.drivers.get(&device.driver_name)?;
        let (staging, data_directory) = match &device.block_spec_name {
            Some(spec_name) => (
                self.layout.block_staging_target(spec_name),
                self.layout.block_data(spec_name),
            ),
            None => (
                self.layout
                    .staging_target(&device.driver_name, &device.volume_handle),
                self.layout.staging(&device.driver_name, &device.volume_handle),
            ),
        };
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: device.volume_handle.clone(),
            staging_target_path: text(&staging),
        };
        driver.client.unstage(request).await?;
        let (layout, block_spec_name) = (self.layout.clone(), device.block_spec_name.clone());
        blocking(move || {
            refuse_mounted(&staging)?;
            remove_staging(&staging, &data_directory)?;
            match block_spec_name {
                Some(spec_name) => block::remove_if_unused(&layout, &spec_name),
                None => Ok(()),
            }
        })
        .await
    }
}

fn refuse_mounted(path: &Path) -> Result<(), VolumeError> {
    let is_mounted = moorline_mount::mount::is_mount_point(path).map_err(|error| VolumeError::Mount {
        action: "look at",
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    if is_mounted {
        return Err(VolumeError::Mount {
            action: "remove",
            path: path.to_owned(),
            reason: "the driver answered success but it is still mounted".into(),
        });
    }
    Ok(())
}

/// The directory first, the record last: what is half removed is found again.
fn remove_staging(staging: &Path, data_directory: &Path) -> Result<(), VolumeError> {
    remove_directory(staging)?;
    vol_data::remove(data_directory)?;
    remove_directory(data_directory)?;
    remove_empty_parent(data_directory);
    Ok(())
}

/// Paths below the kubelet's root are text: its own names and the root's.
pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

pub(crate) fn capability(spec: &CsiSpec, capabilities: NodeCapabilities, pod: &Pod) -> csi::VolumeCapability {
    volume_capability(
        Wish {
            block: spec.block,
            fs_type: &spec.fs_type,
            mount_options: &spec.mount_options,
            access_modes: &spec.access_modes,
            fs_group: fs_group(pod).map(i64::from),
        },
        capabilities,
    )
}

/// Inline volumes only for drivers that say they make them; PVs only for drivers that don't say they don't.
fn check_lifecycle(spec: &CsiSpec, csi_driver: Option<&CSIDriver>) -> Result<(), VolumeError> {
    let mode = if spec.inline { "Ephemeral" } else { "Persistent" };
    let modes = csi_driver.and_then(|object| object.spec.volume_lifecycle_modes.clone());
    let modes = modes
        .filter(|modes| !modes.is_empty())
        .unwrap_or_else(|| vec!["Persistent".to_owned()]);
    if modes.iter().any(|held| held == mode) {
        return Ok(());
    }
    let why = if csi_driver.is_some() {
        "only supports others"
    } else {
        "no CSIDriver object"
    };
    Err(VolumeError::Refused(format!(
        "volume mode {mode:?} not supported by driver {} ({why})",
        spec.driver_name
    )))
}

/// What `podInfoOnMount` adds to the volume context.
fn pod_info(pod: &Pod, is_inline: bool) -> [(String, String); 5] {
    let account = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.clone())
        .unwrap_or_default();
    [
        (
            "csi.storage.k8s.io/pod.name".into(),
            pod.metadata.name.clone().unwrap_or_default(),
        ),
        (
            "csi.storage.k8s.io/pod.namespace".into(),
            pod.metadata.namespace.clone().unwrap_or_default(),
        ),
        (
            "csi.storage.k8s.io/pod.uid".into(),
            pod.metadata.uid.clone().unwrap_or_default(),
        ),
        ("csi.storage.k8s.io/serviceAccount.name".into(), account),
        ("csi.storage.k8s.io/ephemeral".into(), is_inline.to_string()),
    ]
}
