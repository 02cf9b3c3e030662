//! Work that only the holder of a Lease does.

use std::collections::BTreeMap;
use std::future::Future;

use anyhow::bail;
use kube::Client;
use moorline_runtime::LeaderElection;
use moorline_runtime::health::Answer;
use moorline_runtime::lease::{Ended, Timings, object_name};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;

use super::endpoint::Endpoint;

/// Where a pod's own namespace is mounted.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// The leader's health, at upstream's path.
const HEALTH_PATH: &str = "/healthz/leader-election";

/// Settings of an election.
#[derive(Clone, Debug)]
pub(crate) struct ElectionConfig {
    /// Name of the lock; the Lease's name follows from it.
    pub(crate) lock: String,
    /// Namespace of the Lease.
    pub(crate) namespace: String,
    /// Its clockwork.
    pub(crate) timings: Timings,
    /// Labels of the Lease.
    pub(crate) labels: BTreeMap<String, String>,
    /// Whether the Lease is given back at the end.
    pub(crate) releases: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeaseLabel {
    name: String,
}

/// Runs `work` while holding the Lease, or at once without an election. `work` has to end when its token is cancelled.
///
/// # Errors
/// Those of `work`; and the loss of the Lease: then `work` is dropped where it stands, and the process must end.
pub(crate) async fn lead<F, Fut>(
    (client, config): (Client, Option<ElectionConfig>),
    endpoint: &Endpoint,
    stop: &CancellationToken,
    work: F,
) -> anyhow::Result<()>
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let Some(config) = config else {
        return work(stop.clone()).await;
    };
    let mut election = LeaderElection::new(
        client,
        &config.namespace,
        &config.lock,
        &identity(),
        config.timings,
    )
    .with_labels(config.labels);
    if !config.releases {
        election = election.keeping_lease();
    }
    let health = election.health();
    endpoint.site.route(HEALTH_PATH, move || {
        let answer = Answer::of_check(health.check());
        async move { answer }
    });
    let is_leader = master_status(endpoint, &config.lock);
    let outcome = Mutex::new(None);
    let ended = election
        .run(stop, |leadership| {
            let token = leadership.ended().clone();
            let (outcome, is_leader) = (&outcome, &is_leader);
            async move {
                is_leader.set(1);
                let working = work(token.clone());
                tokio::select! {
                    result = working => *outcome.lock() = Some(result),
                    () = lost(&token, stop) => {}
                }
                is_leader.set(0);
            }
        })
        .await;
    let outcome = outcome.into_inner();
    match ended {
        Ended::Lost => bail!(
            "lease {}/{} is lost: another replica may act now",
            config.namespace,
            object_name(&config.lock)
        ),
        Ended::Stopped | Ended::Finished => outcome.unwrap_or(Ok(())),
    }
}

/// Leadership has ended, and nobody asked for it: nothing may be written any more, also not to finish something.
async fn lost(token: &CancellationToken, stop: &CancellationToken) {
    token.cancelled().await;
    if stop.is_cancelled() {
        std::future::pending::<()>().await;
    }
}

fn master_status(endpoint: &Endpoint, lock: &str) -> Gauge {
    let family = endpoint.metrics.register(
        "leader_election_master_status",
        "Whether this process leads",
        Family::<LeaseLabel, Gauge>::default(),
    );
    let name = object_name(lock);
    family.get_or_create(&LeaseLabel { name }).clone()
}

/// Unique among replicas. A pod's name is, and the next process in the same pod may go on at once; elsewhere a number of
/// this process makes it so: two pods on the host's network have the same host name.
fn identity() -> String {
    if let Some(pod) = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty()) {
        return object_name(&pod);
    }
    let host = nix::unistd::gethostname().unwrap_or_default();
    object_name(&format!("{}_{}", host.to_string_lossy(), uuid::Uuid::new_v4()))
}

/// Where the Lease is when nothing else is asked for: the pod's own namespace, else `default`.
pub(crate) fn own_namespace() -> String {
    if let Some(namespace) = std::env::var("POD_NAMESPACE")
        .ok()
        .filter(|name| !name.is_empty())
    {
        return namespace;
    }
    let mounted = std::fs::read_to_string(NAMESPACE_FILE).unwrap_or_default();
    match mounted.trim() {
        "" => "default".to_owned(),
        namespace => namespace.to_owned(),
    }
}
