//! The shell around the decision: the pending queue, and the way of each pod to its node.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use moorline_model::volume_match::Candidates;
use moorline_runtime::{Backoff, Cache, EventType, Informers, Outcome, Queue, Recorder, run_workers};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, Error,
    bind::{BindError, Writer, wait_for_volumes},
    decide::{Next, decide},
    ledger::{Ledger, claims_of, is_finished, node_of},
    plugins::volume_binding::VolumePlan,
    snapshot::{Objects, PodFacts, PromisedPvs, Snapshot},
    status,
    volume_waits::{VolumeWait, VolumeWaits},
    waiting::{Help, Key, Waiting},
};

mod events;

/// Upstream doubles from 1 s; with nobody throttled here a pod may be looked at again sooner.
const BACKOFF: Backoff = Backoff {
    min: Duration::from_millis(200),
    max: Duration::from_secs(10),
};

/// What decisions are made on and change together.
#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    free_pvs: Candidates,
    promised: PromisedPvs,
    /// Pods that no node takes as things stand.
    waiting: Waiting,
    /// Whom the changes of the current burst may help.
    helped: Option<Help>,
}

struct Scheduler {
    config: Config,
    pods: Cache<Pod>,
    objects: Objects,
    writer: Writer,
    recorder: Recorder,
    queue: Queue<Key>,
    /// One decision at a time: each counts what the one before took.
    state: Mutex<State>,
    volume_waits: VolumeWaits,
    /// Rung when something changed that may help a pod no node took.
    helpful_change: Notify,
}

/// Schedules pods until `stop` is cancelled, and lets those on their way to a node finish the write they are at.
///
/// # Errors
/// None today: what fails is told to the user and tried again.
pub async fn run(config: Config, informers: Informers, stop: CancellationToken) -> Result<(), Error> {
    let client = informers.client().clone();
    let recorder = Recorder::new(client.clone(), &config.scheduler_name, "", stop.clone());
    let workers = config.binding_limit;
    let scheduler = Arc::new(Scheduler {
        writer: Writer::new(client, config.write_limit, config.write_timeout),
        pods: informers.cache(),
        objects: Objects::watch(&informers),
        recorder,
        queue: Queue::new(BACKOFF),
        state: Mutex::default(),
        volume_waits: VolumeWaits::default(),
        helpful_change: Notify::new(),
        config,
    });
    scheduler.watch(&stop);
    // A decision made before all pods are known would give away room and volumes that others have.
    let known = async {
        scheduler.objects.synced().await;
        scheduler.pods.synced().await;
    };
    if stop.run_until_cancelled(known).await.is_none() {
        return Ok(());
    }
    let tasks = TaskTracker::new();
    let (waking, wake_stop) = (Arc::clone(&scheduler), stop.clone());
    tasks.spawn(async move { waking.wake_waiting(wake_stop).await });
    let (placing, place_stop) = (Arc::clone(&scheduler), stop.clone());
    run_workers(scheduler.queue.clone(), workers, stop, move |key| {
        let (scheduler, stop) = (Arc::clone(&placing), place_stop.clone());
        async move { scheduler.schedule(key, stop).await }
    })
    .await;
    tasks.close();
    tasks.wait().await;
    scheduler.recorder.stopped().await;
    Ok(())
}

/// How the way of a pod to its node ended, if it ended.
enum Placed {
    Bound,
    /// The scheduler stops. What was written stays and is found again.
    Stopped,
}

impl Scheduler {
    /// A pod to find a node for. One that is on its way is not; the API may show it without node a little longer.
    fn pending(&self, key: &Key) -> Option<Arc<Pod>> {
        let pod = self
            .pods
            .get(Some(&key.0), &key.1)
            .filter(|pod| self.is_ours(pod))?;
        let on_its_way = self.state.lock().ledger.is_placed(&pod.uid().unwrap_or_default());
        (!on_its_way).then_some(pod)
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let spec = pod.spec.as_ref();
        let scheduler = spec
            .and_then(|spec| spec.scheduler_name.as_deref())
            .unwrap_or("default-scheduler");
        let gated = spec
            .and_then(|spec| spec.scheduling_gates.as_ref())
            .is_some_and(|gates| !gates.is_empty());
        scheduler == self.config.scheduler_name
            && !gated
            && node_of(pod).is_none()
            && !is_finished(pod)
            && pod.metadata.deletion_timestamp.is_none()
    }

    async fn schedule(&self, key: Key, stop: CancellationToken) -> Result<Outcome, BindError> {
        let Some(pod) = self.pending(&key) else {
            self.state.lock().waiting.forget(&key);
            return Ok(Outcome::Settled);
        };
        match self.decide_and_assume(&pod, &key) {
            Next::Unschedulable { message } => {
                self.tell(&pod, "Unschedulable", &message).await;
                Ok(Outcome::Settled)
            }
            Next::Place { node, plan } => {
                // Listens before anything is written, so that no change is missed.
                let wait = self.volume_waits.listen(claims_of(&pod));
                let placed = self.place(&pod, &node, &plan, &wait, &stop).await;
                self.release_promises(&plan);
                match placed {
                    Ok(Placed::Bound | Placed::Stopped) => Ok(Outcome::Settled),
                    Err(error) => Ok(self.not_placed(&pod, &error).await),
                }
            }
        }
    }

    fn decide_and_assume(&self, pod: &Arc<Pod>, key: &Key) -> Next {
        let mut state = self.state.lock();
        let state = &mut *state;
        let facts = PodFacts::gather(pod, &self.objects);
        let snapshot = Snapshot {
            objects: &self.objects,
            ledger: &state.ledger,
            free_pvs: &state.free_pvs,
            promised: &state.promised,
        };
        let next = decide(&facts, &snapshot);
        match &next {
            Next::Place { node, plan } => {
                state.waiting.forget(key);
                state.ledger.assume(pod, &node.name_any());
                for (claim, pv) in &plan.bind {
                    state
                        .promised
                        .insert(pv.name_any(), claim.uid().unwrap_or_default());
                }
            }
            Next::Unschedulable { .. } => {
                state.waiting.park(key.clone(), claims_of(pod), Instant::now());
            }
        }
        next
    }

    fn release_promises(&self, plan: &VolumePlan) {
        let mut state = self.state.lock();
        for (_, pv) in &plan.bind {
            state.promised.remove(&pv.name_any());
        }
    }

    async fn place(
        &self,
        pod: &Arc<Pod>,
        node: &Node,
        plan: &VolumePlan,
        wait: &VolumeWait,
        stop: &CancellationToken,
    ) -> Result<Placed, BindError> {
        let node_name = node.name_any();
        if !plan.is_empty() {
            self.writer.write_plan(plan, &node_name, &self.objects).await?;
            let limit = self.config.bind_timeout;
            let still_wanted = || self.is_still_wanted(pod);
            let waiting = wait_for_volumes(plan, node, &self.objects, still_wanted, wait, limit);
            let Some(bound) = stop.run_until_cancelled(waiting).await else {
                return Ok(Placed::Stopped);
            };
            bound?;
        }
        self.writer.bind_pod(pod, &node_name).await?;
        tracing::debug!(pod = %pod.name_any(), node = %node_name, "Pod bound");
        let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        let message = format!("Successfully assigned {name} to {node_name}");
        self.recorder
            .event_on(&**pod, EventType::Normal, "Scheduled", message);
        Ok(Placed::Bound)
    }

    fn is_still_wanted(&self, pod: &Pod) -> bool {
        let now = self.pods.get(pod.namespace().as_deref(), &pod.name_any());
        now.is_some_and(|now| now.uid() == pod.uid() && now.metadata.deletion_timestamp.is_none())
    }

    /// Gives back what the pod was given, and has it looked at again.
    async fn not_placed(&self, pod: &Arc<Pod>, error: &BindError) -> Outcome {
        self.state.lock().ledger.forget(&pod.uid().unwrap_or_default());
        // Whoever found no room because of this pod may find it now.
        self.may_help(Help::Everybody);
        if error.is_conflict() {
            tracing::debug!(pod = %pod.name_any(), %error, "Decided on old news; deciding again");
        } else if self.is_still_wanted(pod) {
            self.tell(pod, "SchedulerError", &error.to_string()).await;
        }
        Outcome::Retry
    }

    /// Tells the user why the pod has no node, unless the pod says just that already.
    async fn tell(&self, pod: &Arc<Pod>, reason: &str, message: &str) {
        if status::says(pod, reason, message) {
            return;
        }
        self.recorder
            .event_on(&**pod, EventType::Warning, "FailedScheduling", message.to_owned());
        match status::write(self.writer.client(), pod, reason, message, jiff::Timestamp::now()).await {
            Ok(written) => self.pods.observe(written),
            // The next look writes it, if it is still true.
            Err(error) => {
                tracing::debug!(pod = %pod.name_any(), %error, "The pod's condition was not written");
            }
        }
    }
}

#[cfg(test)]
mod tests;
