//! The writes that take a pod to its node: volumes first (`PreBind`), then the pod itself (`Bind`).
//!
//! Each write carries the version of what it was decided on, so that a decision on old news is refused by the API
//! server and made anew. Killed in between, the next start finds the claims' annotations and goes on.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use moorline_model::keys;
use serde_json::json;
use tokio::{sync::watch, time::timeout};

use crate::{
    plugins::volume_binding::{Progress, VolumePlan, progress},
    snapshot::Objects,
};

/// Why a pod did not get to its node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// The API server refused or did not answer. Class: conflict or uncertain; read again and decide again.
    #[error("{action}")]
    Api {
        /// What was tried.
        action: String,
        /// The answer.
        #[source]
        source: kube::Error,
    },
    /// The volumes can't be bound as planned. Class: final for this plan.
    #[error("running PreBind plugin \"VolumeBinding\": binding volumes: {0}")]
    GaveUp(String),
    /// The volumes were not bound in time. Class: uncertain; it goes on, and the next try finds it.
    #[error("running PreBind plugin \"VolumeBinding\": binding volumes: not bound within {0:?}")]
    Timeout(Duration),
}

impl BindError {
    /// True if somebody else wrote first: look again at once.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source: kube::Error::Api(status), .. } if status.code == 409 || status.code == 404)
    }
}

fn api_error(action: String) -> impl FnOnce(kube::Error) -> BindError {
    |source| BindError::Api { action, source }
}

/// Writes the plan for the pod's volumes.
pub(crate) async fn write_plan(
    client: &Client,
    plan: &VolumePlan,
    node_name: &str,
    objects: &Objects,
) -> Result<(), BindError> {
    for (claim, pv) in &plan.bind {
        reserve_pv(client, claim, pv, objects).await?;
    }
    for claim in &plan.provision {
        select_node(client, claim, node_name, objects).await?;
    }
    Ok(())
}

async fn reserve_pv(
    client: &Client,
    claim: &PersistentVolumeClaim,
    pv: &PersistentVolume,
    objects: &Objects,
) -> Result<(), BindError> {
    let name = pv.name_any();
    let patch = json!({
        "metadata": {
            "resourceVersion": pv.resource_version(),
            "annotations": {keys::BOUND_BY_CONTROLLER: keys::YES},
        },
        "spec": {"claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": claim.namespace(),
            "name": claim.name_any(),
            "uid": claim.uid(),
            "resourceVersion": claim.resource_version(),
        }},
    });
    let api: Api<PersistentVolume> = Api::all(client.clone());
    let written = api
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(api_error(format!("reserve persistentvolume \"{name}\"")))?;
    objects.pvs.observe(written);
    Ok(())
}

async fn select_node(
    client: &Client,
    claim: &PersistentVolumeClaim,
    node_name: &str,
    objects: &Objects,
) -> Result<(), BindError> {
    if moorline_model::claim::selected_node(claim) == Some(node_name) {
        return Ok(());
    }
    let name = claim.name_any();
    let patch = json!({"metadata": {
        "resourceVersion": claim.resource_version(),
        "annotations": {keys::SELECTED_NODE: node_name},
    }});
    let api: Api<PersistentVolumeClaim> =
        Api::namespaced(client.clone(), &claim.namespace().unwrap_or_default());
    let written = api
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(api_error(format!(
            "select the node of persistentvolumeclaim \"{name}\""
        )))?;
    objects.claims.observe(written);
    Ok(())
}

/// Waits until the plan has come true. `changes` must have been subscribed to before the plan was written. May be
/// dropped at any time.
pub(crate) async fn wait_for_volumes(
    plan: &VolumePlan,
    node: &Node,
    objects: &Objects,
    still_wanted: impl Fn() -> bool,
    mut changes: watch::Receiver<u64>,
    limit: Duration,
) -> Result<(), BindError> {
    let bound = async {
        loop {
            changes.mark_unchanged();
            match progress(plan, node, objects) {
                Progress::Bound => return Ok(()),
                Progress::GaveUp(why) => return Err(BindError::GaveUp(why)),
                Progress::Waiting if !still_wanted() => {
                    return Err(BindError::GaveUp("the pod was deleted".into()));
                }
                Progress::Waiting => {}
            }
            if changes.changed().await.is_err() {
                return Err(BindError::GaveUp("the scheduler is stopping".into()));
            }
        }
    };
    match timeout(limit, bound).await {
        Ok(outcome) => outcome,
        Err(_) => Err(BindError::Timeout(limit)),
    }
}

/// Binds the pod to the node.
pub(crate) async fn bind_pod(client: &Client, pod: &Arc<Pod>, node_name: &str) -> Result<(), BindError> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace, "uid": pod.uid()},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node_name},
    });
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    api.create_subresource::<_, serde_json::Value>("binding", &name, &PostParams::default(), &binding)
        .await
        .map(drop)
        .map_err(api_error(format!(
            "bind pod {namespace}/{name} to node {node_name}"
        )))
}
