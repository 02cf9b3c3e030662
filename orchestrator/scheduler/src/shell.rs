//! The shell around the decision: watches, the pending queue, and the way of each pod to its node.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Client, ResourceExt as _};
use moorline_model::volume_match::Candidates;
use moorline_runtime::{Backoff, Cache, Change, EventType, Informers, Outcome, Queue, Recorder, run_workers};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, Error,
    bind::{BindError, bind_pod, wait_for_volumes, write_plan},
    decide::{Next, decide},
    ledger::{Ledger, is_finished, node_of},
    plugins::volume_binding::VolumePlan,
    snapshot::{Objects, PodFacts, PromisedPvs, Snapshot},
    status,
};

/// Upstream doubles from 1 s; with nobody throttled here a pod may be looked at again sooner.
const BACKOFF: Backoff = Backoff {
    min: Duration::from_millis(200),
    max: Duration::from_secs(10),
};
/// Changes that come in one burst wake the pods that wait for them once.
const WAKE_DEBOUNCE: Duration = Duration::from_millis(20);

type Key = (String, String);

/// What decisions are made on and change together.
#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    free_pvs: Candidates,
    promised: PromisedPvs,
    /// Pods that no node takes as things stand.
    unschedulable: BTreeSet<Key>,
}

struct Scheduler {
    config: Config,
    client: Client,
    pods: Cache<Pod>,
    objects: Objects,
    recorder: Recorder,
    queue: Queue<Key>,
    /// One decision at a time: each counts what the one before took.
    state: Mutex<State>,
    /// Counts changes of claims and volumes; those who wait for volumes look at each.
    volume_changes: watch::Sender<u64>,
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
        client,
        pods: informers.cache(),
        objects: Objects::watch(&informers),
        recorder,
        queue: Queue::new(BACKOFF),
        state: Mutex::default(),
        volume_changes: watch::Sender::new(0),
        helpful_change: Notify::new(),
        config,
    });
    tokio::select! {
        () = scheduler.objects.synced() => {}
        () = stop.cancelled() => return Ok(()),
    }
    scheduler.watch(&stop);
    let tasks = TaskTracker::new();
    let waking = Arc::clone(&scheduler);
    let wake_stop = stop.clone();
    tasks.spawn(async move { waking.wake_unschedulable(wake_stop).await });
    let queue = scheduler.queue.clone();
    let reconciling = Arc::clone(&scheduler);
    let placing_stop = stop.clone();
    run_workers(queue, workers, stop, move |key| {
        let (scheduler, stop) = (Arc::clone(&reconciling), placing_stop.clone());
        async move { scheduler.schedule(key, stop).await }
    })
    .await;
    tasks.close();
    tasks.wait().await;
    scheduler.recorder.stopped().await;
    Ok(())
}

impl Scheduler {
    fn watch(self: &Arc<Self>, stop: &CancellationToken) {
        let this = Arc::clone(self);
        self.pods
            .on_change_until(stop.clone(), move |change| this.pod_changed(change));
        let this = Arc::clone(self);
        self.objects
            .claims
            .on_change_until(stop.clone(), move |_| this.volumes_changed());
        let this = Arc::clone(self);
        self.objects.pvs.on_change_until(stop.clone(), move |change| {
            let pv = change.object();
            let mut state = this.state.lock();
            match change {
                Change::Removed(_) => state.free_pvs.remove(&pv.name_any()),
                Change::Added(_) | Change::Updated { .. } => state.free_pvs.upsert(Arc::clone(pv)),
            }
            drop(state);
            this.volumes_changed();
        });
        let this = Arc::clone(self);
        self.objects.nodes.on_change_until(stop.clone(), move |change| {
            if node_change_helps(change) {
                this.helpful_change.notify_one();
            }
        });
        let ring = |this: &Arc<Self>| {
            let this = Arc::clone(this);
            move || this.helpful_change.notify_one()
        };
        let changed = ring(self);
        self.objects
            .classes
            .on_change_until(stop.clone(), move |_| changed());
        let changed = ring(self);
        self.objects
            .csi_nodes
            .on_change_until(stop.clone(), move |_| changed());
        let changed = ring(self);
        self.objects
            .csi_drivers
            .on_change_until(stop.clone(), move |_| changed());
        let changed = ring(self);
        self.objects
            .capacities
            .on_change_until(stop.clone(), move |_| changed());
        let changed = ring(self);
        self.objects
            .attachments
            .on_change_until(stop.clone(), move |change| {
                if matches!(change, Change::Removed(_)) {
                    changed();
                }
            });
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.object();
        let key = (pod.namespace().unwrap_or_default(), pod.name_any());
        let removed = matches!(change, Change::Removed(_));
        let mut state = self.state.lock();
        if removed {
            state.ledger.remove(&pod.uid().unwrap_or_default());
            state.unschedulable.remove(&key);
        } else {
            state.ledger.observe(pod);
        }
        drop(state);
        if removed || is_finished(pod) {
            // Room became free, and whoever waits for this pod's volumes has to hear of its end.
            self.volumes_changed();
        } else if self.is_ours(pod) && self.may_have_changed_for_us(change) {
            self.queue.add(key);
        }
    }

    /// Our own writes of the condition must not wake us.
    fn may_have_changed_for_us(&self, change: &Change<Pod>) -> bool {
        match change {
            Change::Updated { old, new } => {
                old.spec != new.spec || old.metadata.labels != new.metadata.labels
            }
            Change::Added(_) | Change::Removed(_) => true,
        }
    }

    fn volumes_changed(&self) {
        self.volume_changes
            .send_modify(|count| *count = count.wrapping_add(1));
        self.helpful_change.notify_one();
    }

    /// Looks again at the pods that no node took, once for each burst of changes.
    async fn wake_unschedulable(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.helpful_change.notified() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(WAKE_DEBOUNCE) => {}
            }
            let waiting: Vec<Key> = self.state.lock().unschedulable.iter().cloned().collect();
            waiting.into_iter().for_each(|key| self.queue.add(key));
        }
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
        let pod = self
            .pods
            .get(Some(&key.0), &key.1)
            .filter(|pod| self.is_ours(pod));
        let Some(pod) = pod else {
            self.state.lock().unschedulable.remove(&key);
            return Ok(Outcome::Settled);
        };
        // Subscribed before anything is written, so that no change is missed.
        let changes = self.volume_changes.subscribe();
        let next = self.decide_and_assume(&pod, &key);
        match next {
            Next::Unschedulable { message } => {
                self.tell(&pod, "Unschedulable", &message).await;
                Ok(Outcome::Settled)
            }
            Next::Place { node, plan } => {
                let placed = tokio::select! {
                    placed = self.place(&pod, &node, &plan, changes) => placed,
                    // What was written stays and is found again; nothing is half done.
                    () = stop.cancelled() => return Ok(Outcome::Settled),
                };
                self.release_promises(&plan);
                match placed {
                    Ok(()) => Ok(Outcome::Settled),
                    Err(error) => self.not_placed(&pod, error).await,
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
                state.unschedulable.remove(key);
                state.ledger.assume(pod, &node.name_any());
                for (claim, pv) in &plan.bind {
                    state
                        .promised
                        .insert(pv.name_any(), claim.uid().unwrap_or_default());
                }
            }
            Next::Unschedulable { .. } => {
                state.unschedulable.insert(key.clone());
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
        changes: watch::Receiver<u64>,
    ) -> Result<(), BindError> {
        let node_name = node.name_any();
        if !plan.is_empty() {
            write_plan(&self.client, plan, &node_name, &self.objects).await?;
            let uid = pod.uid();
            let still_wanted = || {
                let now = self.pods.get(pod.namespace().as_deref(), &pod.name_any());
                now.is_some_and(|now| now.uid() == uid && now.metadata.deletion_timestamp.is_none())
            };
            let limit = self.config.bind_timeout;
            wait_for_volumes(plan, node, &self.objects, still_wanted, changes, limit).await?;
        }
        bind_pod(&self.client, pod, &node_name).await?;
        tracing::debug!(pod = %pod.name_any(), node = %node_name, "Pod bound");
        let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        let message = format!("Successfully assigned {name} to {node_name}");
        self.recorder
            .event_on(&**pod, EventType::Normal, "Scheduled", message);
        Ok(())
    }

    async fn not_placed(&self, pod: &Arc<Pod>, error: BindError) -> Result<Outcome, BindError> {
        self.state.lock().ledger.forget(&pod.uid().unwrap_or_default());
        if error.is_conflict() {
            tracing::debug!(pod = %pod.name_any(), %error, "Decided on old news; deciding again");
            return Ok(Outcome::Retry);
        }
        self.tell(pod, "SchedulerError", &error.to_string()).await;
        Ok(Outcome::Retry)
    }

    /// Tells the user why the pod has no node, unless the pod says just that already.
    async fn tell(&self, pod: &Arc<Pod>, reason: &str, message: &str) {
        if status::says(pod, reason, message) {
            return;
        }
        self.recorder
            .event_on(&**pod, EventType::Warning, "FailedScheduling", message.to_owned());
        match status::write(&self.client, pod, reason, message, jiff::Timestamp::now()).await {
            Ok(written) => self.pods.observe(written),
            // The next look writes it, if it is still true.
            Err(error) => {
                tracing::debug!(pod = %pod.name_any(), %error, "The pod's condition was not written")
            }
        }
    }
}

/// Heartbeats change nothing that scheduling looks at.
fn node_change_helps(change: &Change<Node>) -> bool {
    match change {
        Change::Added(_) => true,
        Change::Removed(_) => false,
        Change::Updated { old, new } => {
            let allocatable =
                |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
            old.spec != new.spec
                || old.metadata.labels != new.metadata.labels
                || allocatable(old) != allocatable(new)
        }
    }
}
