//! Writes of expansion and modification; what comes back is known at once.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Client;
use moorline_runtime::Cache;
use serde_json::Value;

use super::ClaimName;
use crate::api::{WriteError, code, merge_patch};

pub(super) async fn patch_pv(
    client: &Client,
    pvs: &Cache<PersistentVolume>,
    pv: &PersistentVolume,
    patch: Value,
) -> Result<(), WriteError> {
    let name = pv.metadata.name.as_deref().unwrap_or_default();
    let patched: PersistentVolume = merge_patch(client, (None, name), None, patch)
        .await
        .map_err(|error| WriteError::new(format!("patch persistent volume {name}"), error))?;
    pvs.observe(patched);
    Ok(())
}

/// A claim that is gone needs no status.
pub(super) async fn patch_claim_status(
    client: &Client,
    claims: &Cache<PersistentVolumeClaim>,
    key: &ClaimName,
    patch: Value,
) -> Result<(), WriteError> {
    let target = (Some(key.namespace.as_str()), key.name.as_str());
    match merge_patch::<PersistentVolumeClaim>(client, target, Some("status"), patch).await {
        Ok(patched) => {
            claims.observe(patched);
            Ok(())
        }
        Err(error) if code(&error) == Some(404) => Ok(()),
        Err(error) => Err(WriteError::new("patch status of claim", error)),
    }
}
