//! What users see of a pod that could not be placed: the condition `PodScheduled`, and the event `FailedScheduling`.

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::{Api, Client, ResourceExt as _, api::Patch, api::PatchParams};
use serde_json::json;

/// The condition `PodScheduled` as it stands.
pub(crate) fn condition(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled")
}

/// True if the pod already says this; then nothing is written, and nobody told again.
pub(crate) fn says(pod: &Pod, reason: &str, message: &str) -> bool {
    condition(pod).is_some_and(|condition| {
        condition.status == "False"
            && condition.reason.as_deref() == Some(reason)
            && condition.message.as_deref() == Some(message)
    })
}

/// Writes the condition; other conditions stay as they are.
pub(crate) async fn write(
    client: &Client,
    pod: &Pod,
    reason: &str,
    message: &str,
    now: jiff::Timestamp,
) -> Result<Pod, kube::Error> {
    let flips = condition(pod).is_none_or(|condition| condition.status != "False");
    let mut condition =
        json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message});
    if flips {
        // Whole seconds, as Kubernetes writes times.
        let seconds = now.round(jiff::Unit::Second).unwrap_or(now);
        condition["lastTransitionTime"] = json!(seconds.to_string());
    }
    let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch))
        .await
}
