//! One look at a pod: what the API and the runtime say of it, and what is to become of it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use moorline_container_runtime::{ContainerStatus, RuntimeError, Sandbox};

use super::decide::Fate;
use super::manager::{PodError, PodManager};
use super::status::is_done;

/// What is left to a pod that is deleted without grace.
const GRACE_MIN: SignedDuration = SignedDuration::from_secs(1);

/// What one look at a pod found.
pub(super) struct Found {
    pub pod: Arc<Pod>,
    pub is_in_api: bool,
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<ContainerStatus>,
}

impl PodManager {
    pub(super) async fn find(&self, pod_uid: &str) -> Result<Option<Found>, PodError> {
        let known = self.known.lock().get(pod_uid).cloned();
        let runtime = |action| move |source| PodError::Runtime { action, source };
        let mut sandboxes = self
            .runtime
            .list_pod_sandboxes()
            .await
            .map_err(runtime("list sandboxes"))?;
        sandboxes.retain(|sandbox| sandbox.pod_uid == pod_uid);
        let listed = self
            .runtime
            .list_containers()
            .await
            .map_err(runtime("list containers"))?;
        let mut containers = Vec::new();
        for container in listed
            .into_iter()
            .filter(|container| container.pod_uid == pod_uid)
        {
            match self.runtime.container_status(&container.id).await {
                Ok(status) => containers.push(status),
                // Removed in between.
                Err(RuntimeError::ContainerNotFound(_)) => {}
                Err(source) => {
                    return Err(PodError::Runtime {
                        action: "read container",
                        source,
                    });
                }
            }
        }
        let (pod, is_in_api) = match known {
            Some(known) => known,
            None if sandboxes.is_empty() && !self.is_on_disk(pod_uid) => return Ok(None),
            None => (Arc::new(stranger(pod_uid, sandboxes.first())), false),
        };
        Ok(Some(Found {
            pod,
            is_in_api,
            sandboxes,
            containers,
        }))
    }

    fn is_on_disk(&self, pod_uid: &str) -> bool {
        self.layout.pod(pod_uid).exists() || self.volumes.pods_with_mounts().contains(pod_uid)
    }
}

/// Phase as the API has it.
pub(super) fn pod_phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Decides between living on and ending. Pure.
pub(super) fn fate(found: &Found, now: Timestamp) -> Fate {
    let pod = &found.pod;
    if !found.is_in_api {
        let kill_at = now.saturating_add(GRACE_MIN).unwrap_or(now);
        return Fate::End {
            kill_at,
            is_in_api: false,
        };
    }
    if let Some(deleted) = &pod.metadata.deletion_timestamp {
        // The timestamp is the end of the grace period already, cut to whole seconds.
        let kill_at = deleted
            .0
            .saturating_add(SignedDuration::from_secs(1))
            .unwrap_or(now)
            .max(now);
        return Fate::End {
            kill_at,
            is_in_api: true,
        };
    }
    let is_over = matches!(pod_phase(pod), "Succeeded" | "Failed") || is_done(pod, &found.containers);
    if is_over { Fate::Done } else { Fate::Live }
}

/// A pod that is known from what it left on this machine only.
fn stranger(pod_uid: &str, sandbox: Option<&Sandbox>) -> Pod {
    Pod {
        metadata: ObjectMeta {
            uid: Some(pod_uid.to_owned()),
            name: sandbox.map(|sandbox| sandbox.pod_name.clone()),
            namespace: sandbox.map(|sandbox| sandbox.namespace.clone()),
            ..Default::default()
        },
        ..Default::default()
    }
}
