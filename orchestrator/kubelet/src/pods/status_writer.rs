//! Writes a pod's status when it differs from what the API server has.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use moorline_runtime::Cache;
use serde_json::{Map, Value, json};

/// The merge patch from the held status to the wanted one; `None` when they say the same. A field that is gone becomes
/// null, nothing else is removed.
pub(crate) fn patch(held: &Pod, wanted: &PodStatus) -> Option<Value> {
    let before = held
        .status
        .as_ref()
        .map_or_else(|| json!({}), |status| json!(status));
    let (Value::Object(before), Value::Object(after)) = (before, json!(wanted)) else {
        return None;
    };
    let mut changes = Map::new();
    for (key, value) in &after {
        if before.get(key) != Some(value) {
            changes.insert(key.clone(), value.clone());
        }
    }
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        changes.insert(key.clone(), Value::Null);
    }
    if changes.is_empty() {
        return None;
    }
    // The uid keeps it from a pod of the same name that came after this one.
    Some(json!({"metadata": {"uid": held.metadata.uid}, "status": changes}))
}

/// Writes `wanted` if needed. A pod that is gone has no status to write.
pub(crate) async fn write(
    client: &kube::Client,
    cache: &Cache<Pod>,
    held: &Pod,
    wanted: &PodStatus,
) -> Result<(), kube::Error> {
    let Some(patch) = patch(held, wanted) else {
        return Ok(());
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), super::namespace(held));
    match pods
        .patch_status(super::name(held), &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(pod) => {
            cache.observe(pod);
            Ok(())
        }
        // Gone, or another pod of that name: the cache will say so.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_written() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "u"},
            "status": {"phase": "Pending", "qosClass": "BestEffort", "reason": "old"}}))
        .unwrap();
        let held = pod.status.clone().unwrap();
        assert_eq!(patch(&pod, &held), None);
        let running = PodStatus {
            phase: Some("Running".into()),
            reason: None,
            ..held
        };
        assert_eq!(
            patch(&pod, &running),
            Some(json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "reason": null}}))
        );
    }
}
