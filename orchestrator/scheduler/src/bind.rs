//! The writes that take a pod to its node: volumes first (`PreBind`), then the pod itself (`Bind`).
//!
//! Each write carries the version of what it was decided on, so that a decision on old news is refused by the API
//! server and made anew. Killed in between, the next start finds the claims' annotations and goes on.

use std::{future::Future, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use moorline_model::keys;
use serde_json::json;
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    plugins::volume_binding::{Progress, VolumePlan, progress},
    snapshot::Objects,
    volume_waits::VolumeWait,
};

/// Why a pod did not get to its node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// The API server refused. Class: conflict or uncertain; read again and decide again.
    #[error("{action}: {source}")]
    Api {
        /// What was tried.
        action: String,
        /// The answer.
        #[source]
        source: kube::Error,
    },
    /// The API server did not answer in time. Class: uncertain.
    #[error("{action}: no answer within {limit:?}")]
    NoAnswer {
        /// What was tried.
        action: String,
        /// How long was waited.
        limit: Duration,
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

/// The API server as the scheduler writes to it: a bounded number of writes at once, each with a deadline.
pub(crate) struct Writer {
    client: Client,
    slots: Semaphore,
    limit: Duration,
}

impl Writer {
    /// Writes through `client`, at most `at_once` at a time, waiting at most `limit` for each answer.
    pub(crate) fn new(client: Client, at_once: usize, limit: Duration) -> Self {
        Self {
            client,
            slots: Semaphore::new(at_once.max(1)),
            limit,
        }
    }

    /// The client, for writes whose failure is of no consequence.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    async fn write<T>(
        &self,
        action: String,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, BindError> {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        match timeout(self.limit, request).await {
            Ok(answer) => answer.map_err(|source| BindError::Api { action, source }),
            Err(_elapsed) => Err(BindError::NoAnswer {
                action,
                limit: self.limit,
            }),
        }
    }

    /// Writes the plan for the pod's volumes: existing ones first, then what has to be made.
    pub(crate) async fn write_plan(
        &self,
        plan: &VolumePlan,
        node_name: &str,
        objects: &Objects,
    ) -> Result<(), BindError> {
        for (claim, pv) in &plan.bind {
            let written = self.reserve_pv(claim, pv).await?;
            objects.pvs.observe(written);
        }
        for claim in &plan.provision {
            if moorline_model::claim::selected_node(claim) != Some(node_name) {
                let written = self.select_node(claim, node_name).await?;
                objects.claims.observe(written);
            }
        }
        Ok(())
    }

    async fn reserve_pv(
        &self,
        claim: &PersistentVolumeClaim,
        pv: &PersistentVolume,
    ) -> Result<PersistentVolume, BindError> {
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
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        self.write(
            format!("reserve persistentvolume \"{name}\""),
            api.patch(&name, &params, &patch),
        )
        .await
    }

    async fn select_node(
        &self,
        claim: &PersistentVolumeClaim,
        node_name: &str,
    ) -> Result<PersistentVolumeClaim, BindError> {
        let name = claim.name_any();
        let patch = json!({"metadata": {
            "resourceVersion": claim.resource_version(),
            "annotations": {keys::SELECTED_NODE: node_name},
        }});
        let namespace = claim.namespace().unwrap_or_default();
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let action = format!("select the node of persistentvolumeclaim \"{name}\"");
        self.write(action, api.patch(&name, &params, &patch)).await
    }

    /// Binds the pod to the node.
    pub(crate) async fn bind_pod(&self, pod: &Arc<Pod>, node_name: &str) -> Result<(), BindError> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod.uid()},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node_name},
        });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let params = PostParams::default();
        let request = api.create_subresource::<_, serde_json::Value>("binding", &name, &params, &binding);
        self.write(
            format!("bind pod {namespace}/{name} to node {node_name}"),
            request,
        )
        .await
        .map(drop)
    }
}

/// Waits until the plan has come true. `wait` must listen since before the plan was written. May be dropped at any
/// time.
pub(crate) async fn wait_for_volumes(
    plan: &VolumePlan,
    node: &Node,
    objects: &Objects,
    still_wanted: impl Fn() -> bool,
    wait: &VolumeWait,
    limit: Duration,
) -> Result<(), BindError> {
    let bound = async {
        loop {
            match progress(plan, node, objects) {
                Progress::Bound => return Ok(()),
                Progress::GaveUp(why) => return Err(BindError::GaveUp(why)),
                Progress::Waiting if !still_wanted() => {
                    return Err(BindError::GaveUp("the pod was deleted".into()));
                }
                Progress::Waiting => wait.changed().await,
            }
        }
    };
    match timeout(limit, bound).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(BindError::Timeout(limit)),
    }
}
