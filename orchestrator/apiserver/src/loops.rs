//! The control loops that the API surface itself needs. They read the caches and write like any client.

mod aggregation;
pub(crate) mod bootstrap;
mod caller;
mod compaction;
pub(crate) mod definitions;
pub(crate) mod event_lease;
mod garbage;
mod namespaces;
pub(crate) mod node_taints;
mod quotas;
mod service_accounts;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Api;
pub(crate) use caller::Caller;

/// Starts all loops; they end with `stop`. Each write of theirs is one transaction, so they may end between any two.
pub(crate) fn start(api: &Arc<Api>, tasks: &TaskTracker, stop: &CancellationToken) {
    let caller = Caller::new(Arc::clone(api));
    tasks.spawn(
        stop.clone()
            .run_until_cancelled_owned(service_accounts::run(caller.clone())),
    );
    tasks.spawn(
        stop.clone()
            .run_until_cancelled_owned(namespaces::run(caller.clone())),
    );
    tasks.spawn(
        stop.clone()
            .run_until_cancelled_owned(definitions::run(caller.clone())),
    );
    tasks.spawn(
        stop.clone()
            .run_until_cancelled_owned(aggregation::run(caller.clone())),
    );
    tasks.spawn(
        stop.clone()
            .run_until_cancelled_owned(quotas::run(caller.clone())),
    );
    tasks.spawn(
        stop.clone()
            .run_until_cancelled_owned(node_taints::run(caller.clone())),
    );
    tasks.spawn(stop.clone().run_until_cancelled_owned(garbage::run(caller)));
    tasks.spawn(
        stop.clone()
            .run_until_cancelled_owned(compaction::run(Arc::clone(api))),
    );
}
