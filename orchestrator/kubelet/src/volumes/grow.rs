//! Does what [`super::expand`] says: tells the claim, calls the driver, tells the claim and the users how it went.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim};
use kube::Api;
use kube::api::{Patch, PatchParams};
use moorline_proto::csi;
use moorline_runtime::EventType;
use serde_json::Value;
use tonic::Code;

use super::actual::Mounted;
use super::csi_mount::{capability, text};
use super::desired::WantedMount;
use super::error::VolumeError;
use super::expand::{self, Next};
use super::manager::VolumeManager;
use super::report::pod_reference;
use super::spec::{CsiSpec, MountId, Spec, VolumeKey};

/// A published volume that shall grow.
struct Growing {
    id: MountId,
    wanted: WantedMount,
    csi: CsiSpec,
}

impl VolumeManager {
    /// What is to be done about the size of a volume, from what the caches say.
    pub(super) fn expansion(&self, csi: &CsiSpec, grown_to: Option<u64>) -> Next {
        let Some((namespace, name)) = &csi.claim else {
            return Next::Nothing;
        };
        let is_able = self
            .csi
            .drivers
            .get(&csi.driver_name)
            .is_ok_and(|driver| driver.capabilities.expand);
        let Some(claim) = self.csi.objects.claims.get(Some(namespace), name) else {
            return Next::Nothing;
        };
        let pv_name = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_name.clone())
            .unwrap_or_default();
        match self.csi.objects.pvs.get(None, &pv_name) {
            Some(pv) if is_able => expand::decide(&pv, &claim, grown_to),
            Some(_) | None => Next::Nothing,
        }
    }

    /// The size the claim says its volume has.
    pub(super) fn claim_size(&self, wanted: &WantedMount) -> Option<u64> {
        let Spec::Csi(csi) = &wanted.spec else { return None };
        let (namespace, name) = csi.claim.as_ref()?;
        let claim = self.csi.objects.claims.get(Some(namespace), name)?;
        let capacity = claim
            .status
            .as_ref()?
            .capacity
            .as_ref()?
            .get("storage")?
            .0
            .clone();
        Some(expand::bytes(&capacity))
    }

    /// Grows one published volume.
    pub(super) async fn expand(&self, key: &VolumeKey) -> Result<(), VolumeError> {
        let Some(growing) = self.find_growing(key) else {
            return Ok(());
        };
        let Some((namespace, name)) = growing.csi.claim.clone() else {
            return Ok(());
        };
        let claims: Api<PersistentVolumeClaim> =
            Api::namespaced(self.csi.objects.client().clone(), &namespace);
        let grown_to = self.state.lock().grown_to.get(key).copied();
        let claim = claims
            .get(&name)
            .await
            .map_err(VolumeError::api(format!("read PVC {namespace}/{name}")))?;
        self.csi.objects.claims.observe(claim.clone());
        let (claim, size, is_told) = match self.expansion(&growing.csi, grown_to) {
            Next::Nothing => return Ok(()),
            Next::MarkThenExpand { size } => (
                self.patch(&claims, &name, expand::in_progress_patch(&claim))
                    .await?,
                size,
                true,
            ),
            Next::Expand { size } => (Arc::new(claim), size, true),
            Next::ExpandOnly { size } => (Arc::new(claim), size, false),
        };
        match self.call_driver(&growing, &size).await {
            Ok(()) => {
                self.state
                    .lock()
                    .grown_to
                    .insert(key.clone(), expand::bytes(&size));
                if is_told {
                    self.patch(&claims, &name, expand::done_patch(&claim, &size))
                        .await?;
                }
                self.tell(
                    &growing,
                    &claim,
                    EventType::Normal,
                    "FileSystemResizeSuccessful",
                    |volume| {
                        format!(
                            "MountVolume.NodeExpandVolume succeeded for volume {volume:?} {}",
                            self.csi.node_name
                        )
                    },
                );
                Ok(())
            }
            Err(error) => self.expand_failed(key, &growing, &claims, &claim, error).await,
        }
    }

    async fn expand_failed(
        &self,
        key: &VolumeKey,
        growing: &Growing,
        claims: &Api<PersistentVolumeClaim>,
        claim: &PersistentVolumeClaim,
        error: VolumeError,
    ) -> Result<(), VolumeError> {
        self.tell(
            growing,
            claim,
            EventType::Warning,
            "VolumeResizeFailed",
            |volume| format!("NodeExpandVolume failed for volume {volume:?} : {error}"),
        );
        let VolumeError::Rpc(rpc) = &error else {
            return Err(error);
        };
        if rpc.status.code() == Code::FailedPrecondition {
            // Not while it is used here; the next mount tries again.
            self.state.lock().grow_refused.insert(key.clone());
            return Ok(());
        }
        if !rpc.is_final() {
            return Err(error);
        }
        let name = claim.metadata.name.clone().unwrap_or_default();
        let is_infeasible = rpc.is_infeasible();
        let patch = expand::failed_patch(claim, is_infeasible, &error.to_string(), Timestamp::now());
        self.patch(claims, &name, patch).await?;
        if is_infeasible { Ok(()) } else { Err(error) }
    }

    fn find_growing(&self, key: &VolumeKey) -> Option<Growing> {
        let state = self.state.lock();
        let volume = state.actual.get(key)?;
        let (id, wanted) = state.desired.mounts(key)?.iter().find(|(id, wanted)| {
            let is_there = volume
                .mounts
                .get(id)
                .is_some_and(|held| held.state == Mounted::Yes);
            is_there && !wanted.read_only
        })?;
        let Spec::Csi(csi) = &wanted.spec else { return None };
        Some(Growing {
            id: id.clone(),
            wanted: wanted.clone(),
            csi: csi.clone(),
        })
    }

    async fn call_driver(&self, growing: &Growing, size: &str) -> Result<(), VolumeError> {
        let Growing { id, wanted, csi } = growing;
        let driver = self.csi.drivers.get(&csi.driver_name)?;
        let layout = &self.csi.layout;
        let volume_path: PathBuf = if csi.block {
            layout.block_publish_target(&id.pod_uid, &id.spec_name)
        } else {
            layout.publish_target(&id.pod_uid, &id.spec_name)
        };
        let staging = driver
            .capabilities
            .stage
            .then(|| self.csi.staging_path(csi, &id.spec_name));
        let request = csi::NodeExpandVolumeRequest {
            volume_id: csi.volume_handle.clone(),
            volume_path: text(&volume_path),
            capacity_range: Some(csi::CapacityRange {
                required_bytes: i64::try_from(expand::bytes(size)).unwrap_or(i64::MAX),
                limit_bytes: 0,
            }),
            staging_target_path: staging.map(|path| text(&path)).unwrap_or_default(),
            volume_capability: Some(capability(csi, driver.capabilities, &wanted.pod)),
            secrets: self.csi.secret(csi.expand_secret.as_ref()).await?,
        };
        driver.client.expand(request).await?;
        Ok(())
    }

    async fn patch(
        &self,
        claims: &Api<PersistentVolumeClaim>,
        name: &str,
        patch: Value,
    ) -> Result<Arc<PersistentVolumeClaim>, VolumeError> {
        let answer = claims
            .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        let claim = answer.map_err(VolumeError::api(format!("write status of PVC {name}")))?;
        self.csi.objects.claims.observe(claim.clone());
        Ok(Arc::new(claim))
    }

    /// Pod and claim hear of it.
    fn tell(
        &self,
        growing: &Growing,
        claim: &PersistentVolumeClaim,
        kind: EventType,
        reason: &str,
        message: impl Fn(&str) -> String,
    ) {
        let text = message(&growing.id.spec_name);
        let claim_reference = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("PersistentVolumeClaim".into()),
            namespace: claim.metadata.namespace.clone(),
            name: claim.metadata.name.clone(),
            uid: claim.metadata.uid.clone(),
            ..Default::default()
        };
        self.recorder
            .event(&pod_reference(&growing.wanted), kind, reason, text.clone());
        self.recorder.event(&claim_reference, kind, reason, text);
    }
}
