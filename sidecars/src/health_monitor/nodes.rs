//! Looks at nodes, and tells the claims that are used there when one has failed or is back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use moorline_model::pod::{self, claim_volumes};
use moorline_runtime::{Backoff, Cache, Change, EventType, Informers, Outcome, Queue, Recorder, run_workers};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::HealthMonitorConfig;
use super::node::{Next, decide};
use crate::driver::Driver;

/// The nodes that pods use the driver's volumes on.
pub(super) struct Nodes {
    config: HealthMonitorConfig,
    driver_name: String,
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    pvs: Cache<PersistentVolume>,
    claims: Cache<PersistentVolumeClaim>,
    recorder: Recorder,
    /// Nodes whose failure was told.
    told: Mutex<HashSet<String>>,
}

impl Nodes {
    pub(super) fn new(
        config: &HealthMonitorConfig,
        driver: &Driver,
        informers: &Informers,
        recorder: &Recorder,
    ) -> Arc<Self> {
        Arc::new(Self {
            config: config.clone(),
            driver_name: driver.facts.driver_name.clone(),
            nodes: informers.cache(),
            pods: informers.cache(),
            pvs: informers.cache(),
            claims: informers.cache(),
            recorder: recorder.clone(),
            told: Mutex::default(),
        })
    }

    /// Looks at nodes that change until `stop`.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let synced = async { tokio::join!(self.nodes.synced(), self.pods.synced()) };
        if stop.run_until_cancelled(synced).await.is_none() {
            return;
        }
        let interval = self.config.monitor_interval;
        let queue = Queue::new(Backoff {
            min: interval,
            max: interval,
        });
        let on_nodes = queue.clone();
        self.nodes.on_change_until(stop.clone(), move |change| {
            let is_news = match change {
                Change::Updated { old, new } => readiness(old) != readiness(new),
                Change::Added(_) | Change::Removed(_) => true,
            };
            if is_news {
                on_nodes.add(change.object().metadata.name.clone().unwrap_or_default());
            }
        });
        run_workers(queue, 1, stop, move |name: String| {
            let nodes = self.clone();
            async move { Ok::<_, Infallible>(nodes.look(&name)) }
        })
        .await;
    }

    fn look(&self, name: &str) -> Outcome {
        let node = self.nodes.get(None, name);
        let is_told = self.told.lock().contains(name);
        let next = decide(
            node.as_deref(),
            is_told,
            self.config.node_patience,
            Timestamp::now(),
        );
        match next {
            Next::Well => {}
            Next::Wait(left) => return Outcome::After(left),
            Next::Recovered => {
                self.told.lock().remove(name);
                let message = format!("Node: {name} recovered");
                for claim in self.used_on(name).into_values().map(|used| used.claim) {
                    self.warn(&claim, "NodeRecovered", message.clone());
                }
            }
            Next::Failed => {
                if node.is_some() {
                    self.told.lock().insert(name.to_string());
                } else {
                    // It doesn't come back: one of that name is another node.
                    self.told.lock().remove(name);
                }
                if !is_told {
                    self.tell_failed(name);
                }
            }
        }
        Outcome::Settled
    }

    fn tell_failed(&self, name: &str) {
        for ((namespace, claim_name), used) in self.used_on(name) {
            let pods = used.pods.join(" ");
            let message = format!(
                "Pods: [ {pods} ] consuming PVC: {claim_name} in namespace: {namespace} are now on a failed node: {name}"
            );
            self.warn(&used.claim, "NodeFailed", message);
        }
    }

    fn warn(&self, claim: &PersistentVolumeClaim, reason: &str, message: String) {
        self.recorder.event_on(claim, EventType::Warning, reason, message);
    }

    /// The claims with volumes of the driver that pods on the node use, by namespace and name.
    fn used_on(&self, node_name: &str) -> BTreeMap<(String, String), Used> {
        let volumes: HashMap<(String, String), String> = self
            .pvs
            .list()
            .iter()
            .filter_map(|pv| self.claim_of(pv))
            .collect();
        let mut used: BTreeMap<(String, String), Used> = BTreeMap::new();
        let pods = self.pods.list();
        for pod in pods.iter().filter(|pod| pod::node_name(pod) == Some(node_name)) {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            let pod_name = pod.metadata.name.clone().unwrap_or_default();
            for volume in claim_volumes(pod) {
                let key = (namespace.clone(), volume.claim_name.to_string());
                let claim = self.claims.get(Some(&key.0), &key.1);
                let claim = claim.filter(|claim| volumes.get(&key) == claim.metadata.uid.as_ref());
                if let Some(claim) = claim {
                    let pods = &mut used.entry(key).or_insert_with(|| Used::of(claim)).pods;
                    if !pods.contains(&pod_name) {
                        pods.push(pod_name.clone());
                    }
                }
            }
        }
        for used in used.values_mut() {
            used.pods.sort();
        }
        used
    }

    /// Namespace, name and UID of the claim that a volume of the driver is bound to.
    fn claim_of(&self, pv: &PersistentVolume) -> Option<((String, String), String)> {
        let (spec, status) = (pv.spec.as_ref()?, pv.status.as_ref()?);
        let is_ours = spec.csi.as_ref()?.driver == self.driver_name;
        if !is_ours || status.phase.as_deref() != Some("Bound") {
            return None;
        }
        let reference = spec.claim_ref.clone()?;
        Some(((reference.namespace?, reference.name?), reference.uid?))
    }
}

/// A claim that pods use.
struct Used {
    claim: Arc<PersistentVolumeClaim>,
    pods: Vec<String>,
}

impl Used {
    fn of(claim: Arc<PersistentVolumeClaim>) -> Self {
        Self {
            claim,
            pods: Vec::new(),
        }
    }
}

/// The state of a node's readiness, and since when.
fn readiness(node: &Node) -> Option<(String, Option<Timestamp>)> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    let since = ready.last_transition_time.as_ref().map(|time| time.0);
    Some((ready.status.clone(), since))
}
