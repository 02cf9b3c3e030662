//! Starting one container: image, environment, subPaths, create, start; and what is told when a step fails.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use moorline_container_runtime::{ContainerId, ImageError, ImageRef, RuntimeError, SandboxState};
use moorline_runtime::EventType;

use super::backoff::RestartBackoff;
use super::container_config::{self, Parts, SubPath};
use super::env::{self, Source};
use super::fields::NodeFacts;
use super::found::Found;
use super::manager::{PodError, PodManager};
use super::memory::{Problem, ProblemKind};
use super::{container_reference, find_container, namespace, uid};
use crate::volumes::error::blocking;
use crate::volumes::manager::{MountedVolume, PodVolumes};
use crate::volumes::{payload, subpath};

/// A start that failed, by the step.
struct Failure {
    kind: ProblemKind,
    message: String,
    delay: Duration,
}

const CONFIG_RETRY: Duration = Duration::from_secs(2);

impl PodManager {
    /// Starts the container; a failure becomes a remembered problem, which is the container's state until a later try.
    pub(super) async fn start_container(
        &self,
        found: &Found,
        (name, attempt): (&str, u32),
        after: Option<Timestamp>,
        volumes: Option<&PodVolumes>,
    ) -> Result<(), PodError> {
        let pod = &found.pod;
        let (Some(container), Some(PodVolumes::Ready(mounted))) = (find_container(pod, name), volumes) else {
            return Ok(());
        };
        let limits = self.limits();
        if let Some(finished_at) = after {
            self.remember(uid(pod), |memory| {
                let next = RestartBackoff::next(memory.backoff.get(name).copied(), finished_at, limits);
                memory.backoff.insert(name.to_owned(), next);
            });
        }
        let image = container.image.clone().unwrap_or_default();
        match self.try_start(found, container, attempt, mounted).await {
            Ok(()) => self.remember(uid(pod), |memory| {
                memory.problems.remove(name);
            }),
            Err(failure) => {
                let failed = Problem {
                    kind: failure.kind,
                    message: failure.message,
                    image,
                    since: Timestamp::now(),
                    delay: failure.delay,
                };
                let problem = self.remember(uid(pod), |memory| {
                    let problem = Problem::next(memory.problems.get(name), failed, limits);
                    memory.problems.insert(name.to_owned(), problem.clone());
                    problem
                });
                self.tell_failure(pod, container, &problem);
            }
        }
        Ok(())
    }

    fn tell_failure(&self, pod: &Pod, container: &Container, problem: &Problem) {
        let target = container_reference(pod, &container.name);
        let warn =
            |reason: &str, message: String| self.recorder.event(&target, EventType::Warning, reason, message);
        match problem.kind {
            ProblemKind::Image => {
                warn(
                    "Failed",
                    format!("Failed to pull image {:?}: {}", problem.image, problem.message),
                );
                warn("Failed", "Error: ErrImagePull".to_owned());
                if problem.delay > self.limits().min {
                    let message = format!("Back-off pulling image {:?}", problem.image);
                    self.recorder
                        .event(&target, EventType::Normal, "BackOff", message);
                    warn("Failed", "Error: ImagePullBackOff".to_owned());
                }
            }
            ProblemKind::ImageNeverPull => {
                warn("ErrImageNeverPull", problem.message.clone());
                warn("Failed", "Error: ErrImageNeverPull".to_owned());
            }
            ProblemKind::ImageName => warn("InspectFailed", problem.message.clone()),
            ProblemKind::Config | ProblemKind::Create | ProblemKind::Run => {
                warn("Failed", format!("Error: {}", problem.message));
            }
        }
    }

    async fn try_start(
        &self,
        found: &Found,
        container: &Container,
        attempt: u32,
        volumes: &BTreeMap<String, MountedVolume>,
    ) -> Result<(), Failure> {
        let pod = &found.pod;
        let target = container_reference(pod, &container.name);
        let tell =
            |reason: &str, message: String| self.recorder.event(&target, EventType::Normal, reason, message);
        let image = self.image(container).await?;
        tell(
            "Pulled",
            format!(
                "Container image {:?} already present on machine",
                container.image.as_deref().unwrap_or_default()
            ),
        );
        let env = self.environment(pod, container).await?;
        let built = container_config::build(Parts {
            pod,
            container,
            attempt,
            image,
            env,
            volumes,
            layout: &self.layout,
        });
        let (config, subpaths) = built.map_err(|error| config_failure(error.0))?;
        bind_subpaths(subpaths).await?;
        let sandbox = found
            .sandboxes
            .iter()
            .rev()
            .find(|sandbox| sandbox.state == SandboxState::Ready);
        let Some(sandbox) = sandbox else { return Ok(()) };
        let id = self
            .runtime
            .create_container(&sandbox.id, config)
            .await
            .map_err(|error| Failure {
                kind: ProblemKind::Create,
                message: error.to_string(),
                delay: Duration::from_secs(1),
            })?;
        tell("Created", format!("Created container: {}", container.name));
        self.runtime
            .start_container(&id)
            .await
            .map_err(|error| start_failure(container, &error))?;
        tell("Started", format!("Started container {}", container.name));
        self.post_start(pod, container, &id).await;
        Ok(())
    }

    async fn image(&self, container: &Container) -> Result<ImageRef, Failure> {
        let image = container.image.as_deref().unwrap_or_default();
        let never = container.image_pull_policy.as_deref() == Some("Never");
        self.images
            .ensure_image(image)
            .await
            .map_err(|error| match &error {
                ImageError::NotPresent { .. } if never => Failure {
                    kind: ProblemKind::ImageNeverPull,
                    message: format!("Container image {image:?} is not present with pull policy of Never"),
                    delay: self.limits().min,
                },
                ImageError::InvalidName { .. } => Failure {
                    kind: ProblemKind::ImageName,
                    message: format!("Failed to apply default image tag {image:?}: {error}"),
                    delay: self.limits().min,
                },
                ImageError::NotPresent { .. }
                | ImageError::InUse { .. }
                | ImageError::BadArchive { .. }
                | ImageError::Io { .. }
                | ImageError::DamagedRecord { .. }
                | ImageError::Lost(_) => Failure {
                    kind: ProblemKind::Image,
                    message: error.to_string(),
                    delay: self.limits().min,
                },
            })
    }

    async fn environment(&self, pod: &Pod, container: &Container) -> Result<Vec<(String, String)>, Failure> {
        let mut objects = env::Objects::new();
        for source in env::sources(container) {
            let entries = match &source {
                Source::ConfigMap(name) => {
                    let object = self.objects.config_map(namespace(pod), name).await;
                    object.map(|object| object.map(|object| payload::of_config_map(&object)))
                }
                Source::Secret(name) => {
                    let object = self.objects.secret(namespace(pod), name).await;
                    object.map(|object| object.map(|object| payload::of_secret(&object)))
                }
            };
            objects.insert(
                source,
                entries.map_err(|error| config_failure(error.to_string()))?,
            );
        }
        let allocatable = self.volumes.allocatable();
        let node = NodeFacts {
            node_ip: self.config.node_ip,
            allocatable,
        };
        env::build(pod, container, &objects, node).map_err(|error| config_failure(error.0))
    }

    /// A hook that fails ends the container; restart policy and back-off do the rest.
    async fn post_start(&self, pod: &Pod, container: &Container, id: &ContainerId) {
        let hook = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(command) = hook
            .and_then(|hook| hook.exec.as_ref())
            .and_then(|exec| exec.command.clone())
        else {
            return;
        };
        let failed = match self.runtime.exec_sync(id, &command, None).await {
            Ok(output) if output.exit_code == 0 => return,
            Ok(output) => format!("exited with {}", output.exit_code),
            Err(error) => error.to_string(),
        };
        let target = container_reference(pod, &container.name);
        let message = format!("PostStartHook failed: {failed}");
        self.recorder
            .event(&target, EventType::Warning, "FailedPostStartHook", message);
        self.stop_container(
            pod,
            id,
            &container.name,
            Duration::from_secs(2),
            super::decide::StopReason::ProbeFailed,
        );
    }
}

fn config_failure(message: String) -> Failure {
    Failure {
        kind: ProblemKind::Config,
        message,
        delay: CONFIG_RETRY,
    }
}

fn start_failure(container: &Container, error: &RuntimeError) -> Failure {
    Failure {
        kind: ProblemKind::Run,
        message: format!("failed to start container {:?}: {error}", container.name),
        delay: Duration::from_secs(1),
    }
}

async fn bind_subpaths(subpaths: Vec<SubPath>) -> Result<(), Failure> {
    if subpaths.is_empty() {
        return Ok(());
    }
    let bound = blocking(move || {
        for wanted in &subpaths {
            subpath::bind(&wanted.volume, &wanted.sub_path, &wanted.target, wanted.may_make)?;
        }
        Ok(())
    });
    bound
        .await
        .map_err(|error| config_failure(format!("failed to prepare subPath for volumeMount: {error}")))
}
