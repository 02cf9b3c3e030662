//! Makes the claims of generic ephemeral volumes, owned by their pods. Deleting them is the garbage collector's work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimTemplate, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use moorline_model::{names, pod};
use moorline_runtime::{
    Backoff, Cache, Change, EventType, Index, Informers, Outcome, Queue, Recorder, run_workers,
};
use tokio_util::sync::CancellationToken;

use crate::binder::pods_by_claim;
use crate::key::ObjectKey;
use crate::write_error::WriteError;

/// Upstream's name for this controller in events.
const COMPONENT: &str = "ephemeral-volume-controller";

/// What to do next about one ephemeral volume of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The claim is there, and the pod's own.
    Settled,
    /// Make this claim.
    Create(Box<PersistentVolumeClaim>),
    /// Somebody else's claim has the name; it is never taken over.
    NameTaken {
        /// The name.
        claim_name: String,
    },
}

/// What to do next about each ephemeral volume of a pod. Pure. `claims`: those of the pod's namespace, by name.
pub fn decide(pod: &Pod, find_claim: impl Fn(&str) -> Option<Arc<PersistentVolumeClaim>>) -> Vec<Next> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    let templates = volumes.unwrap_or_default().iter().filter_map(|volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        Some((
            names::ephemeral_claim_name(&pod.name_any(), &volume.name),
            template,
        ))
    });
    templates
        .map(|(claim_name, template)| match find_claim(&claim_name) {
            None => Next::Create(Box::new(claim_for(pod, claim_name, template))),
            Some(claim) if pod::owns_claim(pod, &claim) => Next::Settled,
            Some(_) => Next::NameTaken { claim_name },
        })
        .collect()
}

fn claim_for(
    pod: &Pod,
    claim_name: String,
    template: &PersistentVolumeClaimTemplate,
) -> PersistentVolumeClaim {
    let given = template.metadata.clone().unwrap_or_default();
    let owner = OwnerReference {
        api_version: "v1".to_string(),
        kind: "Pod".to_string(),
        name: pod.name_any(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(claim_name),
            namespace: pod.metadata.namespace.clone(),
            labels: given.labels,
            annotations: given.annotations.filter(|held: &BTreeMap<_, _>| !held.is_empty()),
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    }
}

/// Settings of the controller.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pods worked on at once.
    pub workers: usize,
    /// Delay before a pod whose claim couldn't be made is looked at again.
    pub backoff: Backoff,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 8,
            backoff: Backoff {
                min: Duration::from_millis(100),
                max: Duration::from_secs(300),
            },
        }
    }
}

struct Ephemeral {
    client: Client,
    pods: Cache<Pod>,
    pods_by_claim: Index<String, Pod>,
    claims: Cache<PersistentVolumeClaim>,
    queue: Queue<ObjectKey>,
    recorder: Recorder,
}

/// Runs the controller until `stop`; writes under way are finished.
pub async fn run(config: Config, informers: Informers, stop: CancellationToken) {
    let pods = informers.cache::<Pod>();
    let claims = informers.cache::<PersistentVolumeClaim>();
    let all_synced = async { tokio::join!(pods.synced(), claims.synced()) };
    if stop.run_until_cancelled(all_synced).await.is_none() {
        return;
    }
    let controller = Arc::new(Ephemeral {
        client: informers.client().clone(),
        pods_by_claim: pods_by_claim(&pods),
        pods: pods.clone(),
        claims: claims.clone(),
        queue: Queue::new(config.backoff),
        recorder: Recorder::new(informers.client().clone(), COMPONENT, "", stop.clone()),
    });
    let on_pod = Arc::downgrade(&controller);
    pods.on_change(move |change| {
        // Volumes of a pod never change, so only new pods matter.
        if let (Change::Added(pod), Some(controller)) = (change, on_pod.upgrade()) {
            controller.add(pod);
        }
    });
    let on_claim = Arc::downgrade(&controller);
    claims.on_change(move |change| {
        if let (Change::Removed(claim), Some(controller)) = (change, on_claim.upgrade()) {
            for pod in controller.pods_by_claim.get(&ObjectKey::of(&**claim).to_string()) {
                controller.add(&pod);
            }
        }
    });
    let worker = controller.clone();
    run_workers(controller.queue.clone(), config.workers, stop, move |key| {
        let controller = worker.clone();
        async move { controller.sync(&key).await }
    })
    .await;
    controller.recorder.flush().await;
}

impl Ephemeral {
    fn add(&self, pod: &Pod) {
        if pod::claim_volumes(pod).iter().any(|volume| volume.is_ephemeral) {
            self.queue.add(ObjectKey::of(pod));
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, kube::Error> {
        let Some(pod) = self.pods.get(Some(&key.namespace), &key.name) else {
            return Ok(Outcome::Settled);
        };
        let mut outcome = Outcome::Settled;
        for next in decide(&pod, |name| self.claims.get(Some(&key.namespace), name)) {
            match next {
                Next::Settled => {}
                Next::Create(claim) => match self.create(&pod, &claim).await {
                    Ok(()) => {}
                    // The name was taken a moment ago, perhaps by ourselves; the cache will show by whom.
                    Err(WriteError::Conflict) => outcome = Outcome::Retry,
                    Err(WriteError::Gone) => {}
                    Err(WriteError::Other(error)) => {
                        let message = format!("making claim {:?} failed: {error}", claim.name_any());
                        self.warn(&pod, message);
                        return Err(error);
                    }
                },
                Next::NameTaken { claim_name } => {
                    let message = format!(
                        "claim {claim_name:?} exists and isn't this pod's; delete it or rename the pod or its volume"
                    );
                    self.warn(&pod, message);
                    outcome = Outcome::Retry;
                }
            }
        }
        Ok(outcome)
    }

    async fn create(&self, pod: &Pod, claim: &PersistentVolumeClaim) -> Result<(), WriteError> {
        let namespace = pod.namespace().unwrap_or_default();
        let api = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &namespace);
        let made = api.create(&PostParams::default(), claim).await?;
        self.claims.observe(made);
        Ok(())
    }

    fn warn(&self, pod: &Pod, message: String) {
        self.recorder
            .event_on(pod, EventType::Warning, "FailedBinding", message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::api::TestApi;
    use crate::testing::running::Running;

    fn pod(is_deleting: bool) -> Pod {
        let template = json!({
            "metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        });
        let pod = json!({
            "metadata": {
                "namespace": "ns", "name": "web", "uid": "p",
                "deletionTimestamp": is_deleting.then_some("2026-01-01T00:00:00Z"),
            },
            "spec": {"containers": [], "volumes": [
                {"name": "tmp", "emptyDir": {}},
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}},
            ]},
        });
        serde_json::from_value(pod).unwrap()
    }

    fn claim(value: Value) -> PersistentVolumeClaim {
        serde_json::from_value(value).unwrap()
    }

    fn expected_claim() -> PersistentVolumeClaim {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "p", "controller": true, "blockOwnerDeletion": true});
        claim(json!({
            "metadata": {
                "namespace": "ns", "name": "web-scratch", "labels": {"app": "web"}, "annotations": {"a": "b"},
                "ownerReferences": [owner],
            },
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }))
    }

    #[test]
    fn decisions() {
        let foreign = claim(json!({"metadata": {"namespace": "ns", "name": "web-scratch", "uid": "c"}}));
        let taken = Next::NameTaken {
            claim_name: "web-scratch".to_string(),
        };
        let cases = [
            (
                "missing",
                pod(false),
                None,
                vec![Next::Create(Box::new(expected_claim()))],
            ),
            ("there", pod(false), Some(expected_claim()), vec![Next::Settled]),
            ("somebody else's", pod(false), Some(foreign), vec![taken]),
            ("pod is going", pod(true), None, vec![]),
        ];
        for (name, pod, held, expected) in cases {
            let found = decide(&pod, |name| {
                assert_eq!(name, "web-scratch");
                held.clone().map(Arc::new)
            });
            assert_eq!(found, expected, "{name}");
        }
    }

    #[tokio::test]
    async fn claim_is_made_again_after_deletion_and_never_taken_over() {
        let api = TestApi::new();
        let mut second = serde_json::to_value(pod(false)).unwrap();
        second["metadata"]["name"] = json!("db");
        second["metadata"]["uid"] = json!("q");
        api.put(
            "persistentvolumeclaims",
            json!({"metadata": {"namespace": "ns", "name": "db-scratch"}}),
        );
        api.put("pods", serde_json::to_value(pod(false)).unwrap());
        api.put("pods", second);
        let running = Running::start(&api, |informers, stop| run(Config::default(), informers, stop));
        let is_there = |api: &TestApi| api.get("persistentvolumeclaims", "ns/web-scratch").is_some();
        api.wait_until("made", is_there).await;
        api.wait_until("clash told", |api| api.event_reasons() == ["FailedBinding"])
            .await;
        api.delete("persistentvolumeclaims", "ns/web-scratch");
        api.wait_until("made again", is_there).await;
        let api = running.stop().await;
        let foreign = api.get("persistentvolumeclaims", "ns/db-scratch").unwrap();
        assert!(foreign["metadata"]["ownerReferences"].is_null());
    }
}
