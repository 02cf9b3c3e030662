//! The sign of life: a Lease in `kube-node-lease`, renewed until the kubelet stops.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-node-lease";

fn lease(node: &Node, duration: Duration, now: Timestamp) -> Lease {
    let name = node.metadata.name.clone().unwrap_or_default();
    Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: name.clone(),
                uid: node.metadata.uid.clone().unwrap_or_default(),
                ..Default::default()
            }]),
            ..Default::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name),
            lease_duration_seconds: Some(i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)),
            renew_time: Some(MicroTime(now)),
            ..Default::default()
        }),
    }
}

/// Renews the Lease of `node` every `interval` until `stop`. Failures are logged once and tried again.
pub(crate) async fn run(
    client: Client,
    node: Node,
    interval: Duration,
    duration: Duration,
    stop: CancellationToken,
) {
    let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut is_failing = false;
    let mut ticker = tokio::time::interval(interval);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticker.tick() => {}
        }
        let wanted = lease(&node, duration, Timestamp::now());
        match (renew(&leases, &wanted).await, is_failing) {
            (Ok(()), _) => is_failing = false,
            (Err(error), false) => {
                is_failing = true;
                tracing::warn!(%error, "Node lease could not be renewed, trying on");
            }
            (Err(error), true) => tracing::debug!(%error, "Node lease could not be renewed again"),
        }
    }
}

async fn renew(leases: &Api<Lease>, wanted: &Lease) -> Result<(), kube::Error> {
    let name = wanted.metadata.name.as_deref().unwrap_or_default();
    let patch = serde_json::json!({ "spec": wanted.spec });
    match leases
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            leases.create(&PostParams::default(), wanted).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}
