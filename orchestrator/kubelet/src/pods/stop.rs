//! Stopping containers in tasks of their own: a grace period must not hold up the pod's worker.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use moorline_container_runtime::{ContainerId, ContainerRuntime, RuntimeError};
use moorline_runtime::EventType;
use tokio::time::Instant;

use super::decide::StopReason;
use super::manager::PodManager;
use super::{container_reference, find_container, uid};

/// What is left for a container whose hook used up the grace period.
const GRACE_AFTER_HOOK: Duration = Duration::from_secs(2);

impl PodManager {
    /// Begins to stop a container; the pod is looked at again when it has ended.
    pub(super) fn stop_container(
        &self,
        pod: &Pod,
        id: &ContainerId,
        name: &str,
        grace: Duration,
        reason: StopReason,
    ) {
        let kill_at = Timestamp::now()
            .saturating_add(SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX))
            .unwrap_or(Timestamp::MAX);
        let is_first = self.remember(uid(pod), |memory| {
            memory.stopping.insert(id.clone(), kill_at).is_none()
        });
        if is_first {
            let message = match reason {
                StopReason::PodEnds | StopReason::MainContainersEnded => format!("Stopping container {name}"),
                StopReason::ProbeFailed => {
                    format!("Container {name} failed liveness probe, will be restarted")
                }
            };
            self.recorder.event(
                &container_reference(pod, name),
                EventType::Normal,
                "Killing",
                message,
            );
        }
        let (runtime, queue) = (self.runtime.clone(), self.queue.clone());
        let (id, pod_uid) = (id.clone(), uid(pod).to_owned());
        let hook = find_container(pod, name).and_then(pre_stop);
        let hook = hook.filter(|_| is_first && !grace.is_zero());
        let manager = self.handle();
        let kubelet_stops = self.stop.clone();
        self.tasks.spawn(async move {
            let stopped = tokio::select! {
                // The runtime goes on with it; a later kubelet finds the container ended or stops it again.
                () = kubelet_stops.cancelled() => return,
                stopped = stop(runtime.as_ref(), &id, hook.as_deref(), grace) => stopped,
            };
            if let Err(error) = stopped {
                tracing::warn!(container = %id, %error, "Container could not be stopped, trying again");
            }
            if let Some(manager) = manager.upgrade() {
                manager.remember(&pod_uid, |memory| memory.stopping.remove(&id));
            }
            queue.add(pod_uid);
        });
    }
}

fn pre_stop(container: &Container) -> Option<Vec<String>> {
    container
        .lifecycle
        .as_ref()?
        .pre_stop
        .as_ref()?
        .exec
        .as_ref()?
        .command
        .clone()
}

async fn stop(
    runtime: &dyn ContainerRuntime,
    id: &ContainerId,
    hook: Option<&[String]>,
    grace: Duration,
) -> Result<(), RuntimeError> {
    let mut left = grace;
    if let Some(command) = hook {
        let begun = Instant::now();
        if let Err(error) = runtime.exec_sync(id, command, Some(grace)).await {
            tracing::debug!(container = %id, %error, "preStop hook failed");
        }
        left = grace.saturating_sub(begun.elapsed()).max(GRACE_AFTER_HOOK);
    }
    runtime.stop_container(id, left).await
}
