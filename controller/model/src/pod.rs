//! What a pod says about the claims it uses.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};

use crate::names;

/// One volume of a pod that is backed by a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimVolume<'a> {
    /// The volume's name in the pod.
    pub volume_name: &'a str,
    /// The claim's name, in the pod's namespace.
    pub claim_name: String,
    /// The pod mounts it read-only everywhere.
    pub is_read_only: bool,
    /// The claim is made for the pod from a template, and must be owned by the pod.
    pub is_ephemeral: bool,
}

/// The volumes of a pod that are backed by claims, including generic ephemeral ones.
pub fn claim_volumes(pod: &Pod) -> Vec<ClaimVolume<'_>> {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    volumes
        .unwrap_or_default()
        .iter()
        .filter_map(|volume| claim_volume(pod_name, volume))
        .collect()
}

fn claim_volume<'a>(pod_name: &str, volume: &'a Volume) -> Option<ClaimVolume<'a>> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(ClaimVolume {
            volume_name: &volume.name,
            claim_name: source.claim_name.clone(),
            is_read_only: source.read_only.unwrap_or(false),
            is_ephemeral: false,
        });
    }
    volume.ephemeral.as_ref().map(|_| ClaimVolume {
        volume_name: &volume.name,
        claim_name: names::ephemeral_claim_name(pod_name, &volume.name),
        is_read_only: false,
        is_ephemeral: true,
    })
}

/// Whether the pod is the claim's controller: what makes a generic ephemeral claim the pod's own.
pub fn owns_claim(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
    let controller = owners.iter().find(|owner| owner.controller == Some(true));
    controller.is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref())
        && claim.metadata.namespace == pod.metadata.namespace
}

/// The node the pod is bound to.
pub fn node_name(pod: &Pod) -> Option<&str> {
    let name = pod.spec.as_ref()?.node_name.as_deref()?;
    (!name.is_empty()).then_some(name)
}

/// Whether its containers have stopped for good: phase Succeeded or Failed.
pub fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether nothing of it runs any more: finished, or being deleted with no container running.
pub fn is_terminated(pod: &Pod) -> bool {
    is_finished(pod) || (pod.metadata.deletion_timestamp.is_some() && !has_running_container(pod))
}

fn has_running_container(pod: &Pod) -> bool {
    let Some(status) = &pod.status else {
        return false;
    };
    [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ]
    .into_iter()
    .flatten()
    .flatten()
    .any(|container| {
        let state = container.state.as_ref();
        // Neither terminated nor waiting: running, or not known, which counts as running.
        state.is_none_or(|state| {
            state.running.is_some() || (state.terminated.is_none() && state.waiting.is_none())
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn claims_direct_and_derived() {
        let pod = pod(json!({
            "metadata": {"name": "web", "namespace": "ns"},
            "spec": {"containers": [], "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "c1", "readOnly": true}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            ]}
        }));
        let found: Vec<_> = claim_volumes(&pod)
            .into_iter()
            .map(|v| {
                (
                    v.volume_name.to_string(),
                    v.claim_name,
                    v.is_read_only,
                    v.is_ephemeral,
                )
            })
            .collect();
        let expected = [
            ("data", "c1", true, false),
            ("scratch", "web-scratch", false, true),
        ];
        assert_eq!(
            found,
            expected.map(|(v, c, r, e)| (v.to_string(), c.to_string(), r, e))
        );
    }

    #[test]
    fn ownership_needs_the_controller_uid_and_the_namespace() {
        let pod = pod(json!({"metadata": {"name": "web", "namespace": "ns", "uid": "u1"}}));
        let owner = |uid: &str, controller: bool| json!([{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid, "controller": controller}]);
        let cases = [
            ("ns", json!([]), false),
            ("ns", owner("u1", true), true),
            ("ns", owner("u1", false), false),
            ("ns", owner("u2", true), false),
            ("other", owner("u1", true), false),
        ];
        for (namespace, owners, expected) in cases {
            let claim = json!({"metadata": {"name": "web-scratch", "namespace": namespace, "ownerReferences": owners}});
            let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
            assert_eq!(owns_claim(&pod, &claim), expected, "{claim:?}");
        }
    }

    #[test]
    fn termination() {
        let deleting = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let container = |state: Value| json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let running = json!({"phase": "Running", "containerStatuses": [container(json!({"running": {}}))]});
        let ended = json!({"phase": "Running", "containerStatuses": [container(json!({"terminated": {"exitCode": 0}}))]});
        let waiting = json!({"phase": "Pending", "containerStatuses": [container(json!({"waiting": {}}))]});
        let unknown = json!({"phase": "Running", "containerStatuses": [container(json!({}))]});
        let cases = [
            ("running", json!({}), running.clone(), false),
            ("succeeded", json!({}), json!({"phase": "Succeeded"}), true),
            ("failed", json!({}), json!({"phase": "Failed"}), true),
            ("ended, not deleted", json!({}), ended.clone(), false),
            ("deleting, running", deleting.clone(), running, false),
            ("deleting, state unknown", deleting.clone(), unknown, false),
            ("deleting, ended", deleting.clone(), ended, true),
            ("deleting, waiting", deleting.clone(), waiting, true),
            ("deleting, no container yet", deleting, json!({}), true),
        ];
        for (name, metadata, status, expected) in cases {
            assert_eq!(
                is_terminated(&pod(json!({"metadata": metadata, "status": status}))),
                expected,
                "{name}"
            );
        }
    }
}
