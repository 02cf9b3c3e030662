//! The pods of this node and the workers that look after them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use moorline_container_runtime::{ContainerRuntime, ContainerStatus, ImageService, RuntimeError};
use moorline_runtime::{Backoff, Change, Outcome, Queue, Recorder, run_workers};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backoff::Limits;
use super::decide::{Fate, Next, Seen, decide};
use super::found::{Found, fate, pod_phase};
use super::memory::Memory;
use super::probes::Probes;
use super::status::{Facts, compute};
use super::{status_writer, uid};
use crate::config::Config;
use crate::objects::Objects;
use crate::paths::Layout;
use crate::volumes::error::VolumeError;
use crate::volumes::manager::{PodVolumes, VolumeManager};

/// Pods worked on at once.
const WORKERS: usize = 64;
/// More steps than this in one look mean that two decisions undo each other.
const STEPS_MAX: usize = 100;
/// Pause before a failed look is repeated.
const RETRY: Backoff = Backoff {
    min: Duration::from_millis(250),
    max: Duration::from_secs(30),
};

/// A look at a pod that failed; retried with back-off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodError {
    #[error("{action}: {source}")]
    Runtime {
        action: &'static str,
        #[source]
        source: RuntimeError,
    },
    #[error("{action}: {source}")]
    Api {
        action: &'static str,
        #[source]
        source: kube::Error,
    },
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("pod is not settled after {STEPS_MAX} steps")]
    Restless,
}

/// The pods of this node.
pub(crate) struct PodManager {
    pub(super) config: Arc<Config>,
    pub(super) objects: Objects,
    pub(super) layout: Layout,
    pub(super) volumes: Arc<VolumeManager>,
    pub(super) runtime: Arc<dyn ContainerRuntime>,
    pub(super) images: Arc<dyn ImageService>,
    pub(super) recorder: Recorder,
    pub(super) queue: Queue<String>,
    pub(super) tasks: TaskTracker,
    pub(super) probes: Probes,
    pub(super) stop: CancellationToken,
    me: Weak<Self>,
    memory: Mutex<HashMap<String, Memory>>,
    /// By uid: in the API now, and the last that was known of those that are not.
    pub(super) known: Mutex<HashMap<String, (Arc<Pod>, bool)>>,
}

impl std::fmt::Debug for PodManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodManager")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// What a [`PodManager`] is made of.
#[derive(Clone)]
pub(crate) struct Parts {
    pub config: Arc<Config>,
    pub objects: Objects,
    pub layout: Layout,
    pub volumes: Arc<VolumeManager>,
    pub runtime: Arc<dyn ContainerRuntime>,
    pub images: Arc<dyn ImageService>,
    pub recorder: Recorder,
    pub queue: Queue<String>,
    pub stop: CancellationToken,
}

/// The queue of pods, by uid.
pub(crate) fn queue() -> Queue<String> {
    Queue::new(RETRY)
}

impl PodManager {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            config,
            objects,
            layout,
            volumes,
            runtime,
            images,
            recorder,
            queue,
            stop,
        } = parts;
        let tasks = TaskTracker::new();
        let probes = Probes::new(tasks.clone(), config.node_ip, runtime.clone(), queue.clone());
        Arc::new_cyclic(|me| Self {
            config,
            objects,
            layout,
            volumes,
            runtime,
            images,
            recorder,
            queue,
            tasks,
            probes,
            stop,
            me: me.clone(),
            memory: Mutex::default(),
            known: Mutex::default(),
        })
    }

    /// For tasks that may outlive the manager.
    pub(super) fn handle(&self) -> Weak<Self> {
        self.me.clone()
    }

    /// The API has deleted the pod at our request; the news of it needn't be waited for.
    pub(super) fn mark_deleted(&self, pod: &Arc<Pod>) {
        self.known
            .lock()
            .insert(uid(pod).to_owned(), (pod.clone(), false));
    }

    /// Looks after the pods until `stop`; containers go on running.
    pub(crate) async fn run(self: Arc<Self>) -> Result<(), PodError> {
        self.watch_pods();
        self.objects.pods.synced().await;
        self.settle_volumes().await?;
        let events = self.clone().watch_containers();
        let manager = self.clone();
        let workers = run_workers(
            self.queue.clone(),
            WORKERS,
            self.stop.clone(),
            move |uid: String| {
                let manager = manager.clone();
                async move { manager.reconcile(&uid).await }
            },
        );
        tokio::join!(workers, events);
        self.probes.stop_all();
        self.tasks.close();
        self.tasks.wait().await;
        Ok(())
    }

    fn watch_pods(self: &Arc<Self>) {
        let manager = Arc::downgrade(self);
        self.objects.pods.on_change(move |change| {
            let Some(manager) = manager.upgrade() else { return };
            let pod = change.object();
            let is_in_api = !matches!(change, Change::Removed(_));
            manager
                .known
                .lock()
                .insert(uid(pod).to_owned(), (pod.clone(), is_in_api));
            manager.queue.add(uid(pod).to_owned());
        });
    }

    /// Tells the volume manager about every pod of the API before anything may be taken away, and puts those that are
    /// only known here (from the runtime or from directories) into the queue.
    async fn settle_volumes(&self) -> Result<(), PodError> {
        let pods: Vec<Arc<Pod>> = self.known.lock().values().map(|(pod, _)| pod.clone()).collect();
        for pod in &pods {
            let is_over = matches!(pod_phase(pod), "Succeeded" | "Failed");
            if !is_over && pod.metadata.deletion_timestamp.is_none() {
                // Whatever can't be resolved now is tried again by the pod's worker.
                if let Err(error) = self.volumes.sync_pod(pod, Timestamp::now()).await {
                    tracing::warn!(pod = super::display(pod), %error, "Volumes of a pod can't be resolved yet");
                }
            }
        }
        self.volumes.settle();
        let sandboxes = self.runtime.list_pod_sandboxes().await;
        let sandboxes = sandboxes.map_err(|source| PodError::Runtime {
            action: "list sandboxes",
            source,
        })?;
        let mut uids: BTreeSet<String> = sandboxes.into_iter().map(|sandbox| sandbox.pod_uid).collect();
        uids.extend(self.volumes.pods_with_mounts());
        for path in crate::volumes::vol_data::entries(&self.layout.pods())? {
            uids.insert(crate::volumes::vol_data::file_name(&path));
        }
        for uid in uids {
            self.queue.add(uid);
        }
        Ok(())
    }

    async fn watch_containers(self: Arc<Self>) {
        let mut events = self.runtime.events();
        loop {
            let event = tokio::select! {
                () = self.stop.cancelled() => return,
                event = events.recv() => event,
            };
            match event {
                Ok(event) => self.queue.add(event.pod_uid),
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                    let uids: Vec<String> = self.known.lock().keys().cloned().collect();
                    for uid in uids {
                        self.queue.add(uid);
                    }
                }
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    pub(super) fn remember<T>(&self, uid: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(self.memory.lock().entry(uid.to_owned()).or_default())
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            min: self.config.timings.restart_backoff_min,
            max: self.config.timings.restart_backoff_max,
        }
    }

    /// The pod of a container log request, and everything shown by `/pods`.
    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.known
            .lock()
            .values()
            .filter(|(_, is_in_api)| *is_in_api)
            .map(|(pod, _)| pod.clone())
            .collect()
    }

    /// Containers that wait for a ConfigMap or Secret are tried again at once.
    pub(crate) fn retry_config_problems(&self, matches: impl Fn(&Pod) -> bool) {
        let pods: Vec<Arc<Pod>> = self.pods().into_iter().filter(|pod| matches(pod)).collect();
        for pod in pods {
            let had = self.remember(uid(&pod), |memory| {
                let before = memory.problems.len();
                memory
                    .problems
                    .retain(|_, problem| problem.kind != super::memory::ProblemKind::Config);
                memory.problems.len() != before
            });
            if had {
                self.queue.add(uid(&pod).to_owned());
            }
        }
    }

    async fn reconcile(&self, pod_uid: &str) -> Result<Outcome, PodError> {
        for _ in 0..STEPS_MAX {
            let Some(found) = self.find(pod_uid).await? else {
                self.forget(pod_uid);
                return Ok(Outcome::Settled);
            };
            let now = Timestamp::now();
            let fate = fate(&found, now);
            let volumes = self.look_at_volumes(&found, fate, now).await?;
            self.prune_memory(pod_uid, &found.containers);
            self.watch_probes(&found, fate);
            let memory = self.remember(pod_uid, |memory| memory.clone());
            let is_released = self.volumes.is_released(pod_uid);
            let are_volumes_gone = is_released && self.volumes.release(pod_uid);
            let next = decide(
                &Seen {
                    pod: &found.pod,
                    fate,
                    sandboxes: &found.sandboxes,
                    containers: &found.containers,
                    are_volumes_ready: matches!(volumes, Some(PodVolumes::Ready(_))),
                    are_volumes_released: is_released,
                    are_volumes_gone,
                    has_directory: self.layout.pod(pod_uid).exists(),
                    memory: &memory,
                    backoff: self.limits(),
                },
                now,
            );
            match next {
                Next::Do(actions) => {
                    for action in actions {
                        tracing::debug!(pod = super::display(&found.pod), ?action, "Pod step");
                        self.apply(&found, &action, volumes.as_ref()).await?;
                    }
                }
                Next::Wait { until } => {
                    self.write_status(&found, fate, &memory, now).await?;
                    self.tell_about_volumes(&found, fate, volumes.as_ref(), now);
                    return Ok(wait(until, now));
                }
                Next::Gone => {
                    self.forget(pod_uid);
                    return Ok(Outcome::Settled);
                }
            }
        }
        Err(PodError::Restless)
    }

    async fn look_at_volumes(
        &self,
        found: &Found,
        fate: Fate,
        now: Timestamp,
    ) -> Result<Option<PodVolumes>, PodError> {
        if fate != Fate::Live {
            return Ok(None);
        }
        let volumes = self.volumes.sync_pod(&found.pod, now).await;
        volumes.map(Some).map_err(|source| PodError::Api {
            action: "resolve volumes",
            source,
        })
    }

    pub(super) async fn write_status(
        &self,
        found: &Found,
        fate: Fate,
        memory: &Memory,
        now: Timestamp,
    ) -> Result<(), PodError> {
        if !found.is_in_api {
            return Ok(());
        }
        let is_running =
            |status: &ContainerStatus| status.state == moorline_container_runtime::ContainerState::Running;
        let has_ended = fate != Fate::Live && !found.containers.iter().any(is_running);
        let wanted = compute(&self.facts(found, memory, has_ended), now);
        if fate == Fate::Live {
            self.tell_about_backoff(found, memory, now);
        }
        // A finished pod keeps what was said of it, however little is left here.
        if fate == Fate::Done && matches!(pod_phase(&found.pod), "Succeeded" | "Failed") {
            return Ok(());
        }
        let written =
            status_writer::write(self.objects.client(), &self.objects.pods, &found.pod, &wanted).await;
        written.map_err(|source| PodError::Api {
            action: "write pod status",
            source,
        })
    }

    pub(super) fn facts<'a>(&self, found: &'a Found, memory: &'a Memory, has_ended: bool) -> Facts<'a> {
        Facts {
            pod: &found.pod,
            sandboxes: &found.sandboxes,
            containers: &found.containers,
            memory,
            backoff: self.limits(),
            node_ip: self.config.node_ip,
            has_ended,
        }
    }

    fn watch_probes(&self, found: &Found, fate: Fate) {
        let is_live = fate == Fate::Live;
        self.probes
            .follow(&found.pod, &found.containers, is_live, |id, results| {
                self.remember(uid(&found.pod), |memory| {
                    memory.probes.insert(id, results);
                });
            });
    }

    fn prune_memory(&self, pod_uid: &str, containers: &[ContainerStatus]) {
        self.remember(pod_uid, |memory| {
            let is_known =
                |id: &moorline_container_runtime::ContainerId| containers.iter().any(|held| held.id == *id);
            memory.probes.retain(|id, _| is_known(id));
        });
    }

    fn forget(&self, pod_uid: &str) {
        self.volumes.forget_pod(pod_uid);
        self.memory.lock().remove(pod_uid);
        let mut known = self.known.lock();
        if known.get(pod_uid).is_some_and(|(_, is_in_api)| !is_in_api) {
            known.remove(pod_uid);
        }
    }
}

fn wait(until: Option<Timestamp>, now: Timestamp) -> Outcome {
    match until {
        None => Outcome::Settled,
        Some(until) => {
            Outcome::After(Duration::try_from(until.duration_since(now)).unwrap_or(Duration::from_millis(1)))
        }
    }
}
