//! The flat table from a pod's next step to what does it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use moorline_runtime::EventType;

use super::container_config;
use super::decide::{Action, Fate};
use super::found::Found;
use super::manager::{PodError, PodManager};
use super::memory::{Problem, ProblemKind};
use super::{name, namespace, reference, uid};
use crate::volumes::error::{VolumeError, blocking};
use crate::volumes::manager::{PodVolumes, VolumeManager};
use crate::volumes::pod_directory;

impl PodManager {
    pub(super) async fn apply(
        &self,
        found: &Found,
        action: &Action,
        volumes: Option<&PodVolumes>,
    ) -> Result<(), PodError> {
        let pod = &found.pod;
        let runtime = |action: &'static str| move |source| PodError::Runtime { action, source };
        match action {
            Action::StartSandbox { attempt } => self.start_sandbox(pod, *attempt).await,
            Action::StartContainer { name, attempt, after } => {
                self.start_container(found, (name, *attempt), *after, volumes)
                    .await
            }
            Action::StopContainer {
                id,
                name,
                grace,
                reason,
            } => {
                self.stop_container(pod, id, name, *grace, *reason);
                Ok(())
            }
            Action::RemoveContainer(id) => self
                .runtime
                .remove_container(id)
                .await
                .map_err(runtime("remove container")),
            Action::StopSandbox(id) => self
                .runtime
                .stop_pod_sandbox(id)
                .await
                .map_err(runtime("stop sandbox")),
            Action::RemoveSandbox(id) => self
                .runtime
                .remove_pod_sandbox(id)
                .await
                .map_err(runtime("remove sandbox")),
            Action::ReleaseVolumes => {
                self.volumes.release(uid(pod));
                Ok(())
            }
            Action::RemoveDirectory => self.remove_directory(pod).await,
            Action::DeleteFromApi => self.delete_from_api(found).await,
        }
    }

    async fn start_sandbox(&self, pod: &Pod, attempt: u32) -> Result<(), PodError> {
        let (layout, pod_uid) = (self.layout.clone(), uid(pod).to_owned());
        blocking(move || pod_directory::make(&layout, &pod_uid)).await?;
        let config = container_config::sandbox(pod, attempt, &self.layout);
        let Err(error) = self.runtime.run_pod_sandbox(config).await else {
            self.remember(uid(pod), |memory| memory.sandbox_problem = None);
            return Ok(());
        };
        let message = format!("Failed to create pod sandbox: {error}");
        self.recorder.event(
            &reference(pod),
            EventType::Warning,
            "FailedCreatePodSandBox",
            message.clone(),
        );
        let limits = self.limits();
        self.remember(uid(pod), |memory| {
            let failed = Problem {
                kind: ProblemKind::Create,
                message,
                image: String::new(),
                since: Timestamp::now(),
                delay: Duration::from_secs(1),
            };
            memory.sandbox_problem = Some(Problem::next(memory.sandbox_problem.as_ref(), failed, limits));
        });
        Ok(())
    }

    /// Logs first: while the pod's directory is there, a later kubelet knows that something is left to do.
    async fn remove_directory(&self, pod: &Pod) -> Result<(), PodError> {
        let (layout, pod_uid) = (self.layout.clone(), uid(pod).to_owned());
        blocking(move || {
            for logs in layout.logs_of(&pod_uid)? {
                std::fs::remove_dir_all(&logs).map_err(VolumeError::io("remove logs", &logs))?;
            }
            pod_directory::remove(&layout, &pod_uid)
        })
        .await?;
        Ok(())
    }

    /// The last status, then the object itself, but only this very pod.
    async fn delete_from_api(&self, found: &Found) -> Result<(), PodError> {
        let pod = &found.pod;
        let now = Timestamp::now();
        let memory = self.remember(uid(pod), |memory| memory.clone());
        let pods: Api<Pod> = Api::namespaced(self.objects.client().clone(), namespace(pod));
        let is_terminal = matches!(super::found::pod_phase(pod), "Succeeded" | "Failed");
        if !is_terminal {
            self.write_status(
                found,
                Fate::End {
                    kill_at: now,
                    is_in_api: true,
                },
                &memory,
                now,
            )
            .await?;
        }
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..Default::default()
        };
        match pods.delete(name(pod), &parameters).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(source) => {
                return Err(PodError::Api {
                    action: "delete pod",
                    source,
                });
            }
        }
        self.mark_deleted(pod);
        Ok(())
    }
}

impl VolumeManager {
    /// Whether the pod's containers are known to be dead.
    pub(crate) fn is_released(&self, pod_uid: &str) -> bool {
        self.state.lock().desired.is_released(pod_uid)
    }
}
