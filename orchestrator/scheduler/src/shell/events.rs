//! What a change in the cluster means for pods that wait: which of them is looked at again.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt as _;
use moorline_model::volume;
use moorline_runtime::{Change, Watchable};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Scheduler;
use crate::{
    ledger::{claims_of, is_finished},
    waiting::{Help, Key},
};

/// Changes that come in one burst wake the pods that wait for them once.
const WAKE_DEBOUNCE: Duration = Duration::from_millis(20);

impl Scheduler {
    /// Follows everything that decisions rest on.
    pub(super) fn watch(self: &Arc<Self>, stop: &CancellationToken) {
        let this = Arc::clone(self);
        self.pods
            .on_change_until(stop.clone(), move |change| this.pod_changed(change));
        let this = Arc::clone(self);
        self.objects
            .claims
            .on_change_until(stop.clone(), move |change| this.claim_changed(change));
        let this = Arc::clone(self);
        self.objects
            .pvs
            .on_change_until(stop.clone(), move |change| this.pv_changed(change));
        let this = Arc::clone(self);
        self.objects.nodes.on_change_until(stop.clone(), move |change| {
            if node_change_helps(change) {
                this.may_help(Help::Everybody);
            }
        });
        self.watch_for_volumes(&self.objects.classes, stop, |_| true);
        self.watch_for_volumes(&self.objects.csi_nodes, stop, |_| true);
        self.watch_for_volumes(&self.objects.csi_drivers, stop, |_| true);
        self.watch_for_volumes(&self.objects.capacities, stop, |change| {
            !matches!(change, Change::Removed(_))
        });
        self.watch_for_volumes(&self.objects.attachments, stop, |change| {
            matches!(change, Change::Removed(_))
        });
    }

    fn watch_for_volumes<K: Watchable>(
        self: &Arc<Self>,
        cache: &moorline_runtime::Cache<K>,
        stop: &CancellationToken,
        helps: impl Fn(&Change<K>) -> bool + Send + Sync + 'static,
    ) {
        let this = Arc::clone(self);
        cache.on_change_until(stop.clone(), move |change| {
            if helps(change) {
                this.may_help(Help::WithVolumes);
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
            state.waiting.forget(&key);
        } else {
            state.ledger.observe(pod);
        }
        drop(state);
        if removed || pod.metadata.deletion_timestamp.is_some() {
            // If it is on its way itself, it need not wait for its volumes any longer.
            claims_of(pod)
                .iter()
                .for_each(|claim| self.volume_waits.changed(claim));
        }
        if removed || is_finished(pod) {
            self.may_help(Help::Everybody);
        } else if self.is_ours(pod) && may_have_changed_for_us(change) {
            self.queue.add(key);
        }
    }

    fn claim_changed(&self, change: &Change<PersistentVolumeClaim>) {
        let claim = change.object();
        self.look_at_users(&(claim.namespace().unwrap_or_default(), claim.name_any()));
    }

    /// A volume concerns its claim; a free one may be what any claim waits for.
    fn pv_changed(&self, change: &Change<PersistentVolume>) {
        let pv = change.object();
        let mut state = self.state.lock();
        match change {
            Change::Removed(_) => state.free_pvs.remove(&pv.name_any()),
            Change::Added(_) | Change::Updated { .. } => state.free_pvs.upsert(Arc::clone(pv)),
        }
        drop(state);
        let old = match change {
            Change::Updated { old, .. } => claim_of(old),
            Change::Added(_) | Change::Removed(_) => None,
        };
        let new = claim_of(pv);
        if let Some(old) = old.filter(|old| Some(old) != new.as_ref()) {
            self.look_at_users(&old);
        }
        match new {
            Some(claim) => self.look_at_users(&claim),
            None => self.may_help(Help::WithVolumes),
        }
    }

    /// Wakes the pods that wait for a claim, on their way or without a node.
    fn look_at_users(&self, claim: &Key) {
        self.volume_waits.changed(claim);
        let users = self.state.lock().waiting.users_of(claim);
        users.into_iter().for_each(|pod| self.queue.add(pod));
    }

    /// Notes that a change may help pods that no node took.
    pub(super) fn may_help(&self, help: Help) {
        let mut state = self.state.lock();
        state.helped = state.helped.max(Some(help));
        drop(state);
        self.helpful_change.notify_one();
    }

    /// Looks again at the pods that no node took, once for each burst of changes.
    pub(super) async fn wake_waiting(&self, stop: CancellationToken) {
        let burst = async || {
            self.helpful_change.notified().await;
            tokio::time::sleep(WAKE_DEBOUNCE).await;
        };
        while stop.run_until_cancelled(burst()).await.is_some() {
            let mut state = self.state.lock();
            let helped = state.helped.take();
            let pods = helped
                .map(|help| state.waiting.helped(help, Instant::now()))
                .unwrap_or_default();
            drop(state);
            for (pod, pause) in pods {
                self.queue.add_after(pod, pause);
            }
        }
    }
}

fn claim_of(pv: &PersistentVolume) -> Option<Key> {
    let reference = volume::claim_ref(pv)?;
    Some((
        reference.namespace.clone().unwrap_or_default(),
        reference.name.clone().unwrap_or_default(),
    ))
}

/// Our own writes of the condition must not wake us.
fn may_have_changed_for_us(change: &Change<Pod>) -> bool {
    match change {
        Change::Updated { old, new } => old.spec != new.spec || old.metadata.labels != new.metadata.labels,
        Change::Added(_) | Change::Removed(_) => true,
    }
}

/// Heartbeats change nothing that scheduling looks at.
fn node_change_helps(change: &Change<Node>) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    match change {
        Change::Added(_) => true,
        Change::Removed(_) => false,
        Change::Updated { old, new } => {
            old.spec != new.spec
                || old.metadata.labels != new.metadata.labels
                || allocatable(old) != allocatable(new)
        }
    }
}
