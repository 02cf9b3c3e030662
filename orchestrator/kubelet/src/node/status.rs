//! Registers the Node and keeps its status true: written on change, and rarely when nothing changes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::object::{self, Machine};
use crate::config::Config;

/// Pause before a failed write of the Node is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Hears what the API server knows of the volumes in use here.
pub(crate) trait InUseListener: Send + Sync {
    /// This list is about to be written: what is not in it doesn't count as known any more, whatever becomes of it.
    fn will_be_told(&self, names: &BTreeSet<String>);

    /// The Node has this list, and was this when it had.
    fn was_told(&self, names: BTreeSet<String>, node: Node);
}

/// What the Node's status is made of.
#[derive(Debug)]
pub(crate) struct NodeReporter {
    pub config: Arc<Config>,
    pub machine: Machine,
    pub listen: SocketAddr,
}

impl NodeReporter {
    /// Creates the Node or brings the labels of the existing one up to date; returns it.
    pub(crate) async fn register(&self, client: &Client) -> Result<Node, kube::Error> {
        let nodes: Api<Node> = Api::all(client.clone());
        let name = &self.config.node_name;
        loop {
            let Some(node) = nodes.get_opt(name).await? else {
                match nodes
                    .create(&PostParams::default(), &object::new_node(&self.config))
                    .await
                {
                    Ok(node) => {
                        tracing::info!(node.name = name, "Node is registered");
                        return Ok(node);
                    }
                    // Somebody made it in between: take theirs.
                    Err(kube::Error::Api(status)) if status.code == 409 => continue,
                    Err(error) => return Err(error),
                }
            };
            return match object::metadata_patch(&node, &self.config) {
                Some(patch) => {
                    nodes
                        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                        .await
                }
                None => Ok(node),
            };
        }
    }

    /// Writes the status now if it differs from what the API server has, or if `is_due`.
    pub(crate) async fn report(
        &self,
        client: &Client,
        volumes_in_use: Option<Vec<String>>,
        listener: &dyn InUseListener,
        is_due: bool,
    ) -> Result<(), kube::Error> {
        let nodes: Api<Node> = Api::all(client.clone());
        let node = nodes.get(&self.config.node_name).await?;
        let held = node.status.clone();
        // Before the first full look at the pods the old list stays.
        let volumes_in_use = volumes_in_use
            .or_else(|| held.as_ref().map(object::in_use))
            .filter(|list| !list.is_empty());
        let now = Timestamp::now();
        let wanted = object::status(
            &self.config,
            &self.machine,
            self.listen,
            held.as_ref(),
            volumes_in_use,
            now,
        );
        let names: BTreeSet<String> = object::in_use(&wanted).into_iter().collect();
        listener.will_be_told(&names);
        if !is_due && !object::differs(held.as_ref(), &wanted) {
            listener.was_told(names, node);
            return Ok(());
        }
        let mut patch = status_patch(held.as_ref(), &wanted);
        let had = held.as_ref().map(object::in_use).unwrap_or_default();
        if had.iter().any(|name| !names.contains(name)) {
            // Should this arrive late, it must not take away what was said since.
            patch["metadata"]["resourceVersion"] = serde_json::json!(node.metadata.resource_version);
        }
        let written = nodes
            .patch_status(
                &self.config.node_name,
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await?;
        listener.was_told(names, written);
        Ok(())
    }

    /// Reports at once when the volumes in use change, and every interval, until `stop`.
    pub(crate) async fn run(
        &self,
        client: Client,
        mut volumes_in_use: watch::Receiver<Option<Vec<String>>>,
        listener: Arc<dyn InUseListener>,
        stop: CancellationToken,
    ) {
        let interval = self.config.timings.node_status_report_interval;
        let mut ticker = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_due = true;
        loop {
            let list = volumes_in_use.borrow_and_update().clone();
            let wait = match self.report(&client, list, &*listener, is_due).await {
                Ok(()) => {
                    is_due = false;
                    None
                }
                Err(error) => {
                    tracing::warn!(%error, "Node status could not be written, trying again");
                    Some(RETRY)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticker.tick() => is_due = true,
                changed = volumes_in_use.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }
}

fn status_patch(held: Option<&NodeStatus>, wanted: &NodeStatus) -> serde_json::Value {
    let mut status = serde_json::json!(wanted);
    let had = held.is_some_and(|held| !object::in_use(held).is_empty());
    if wanted.volumes_in_use.is_none() && had {
        status["volumesInUse"] = serde_json::Value::Null;
    }
    serde_json::json!({ "status": status })
}
