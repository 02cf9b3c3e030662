//! What makes the provisioner look at a claim or a PV: changes of these, and of what they may be waiting for.

use std::sync::Arc;

use moorline_runtime::{Change, Queue};
use tokio_util::sync::CancellationToken;

use super::provision::{self, ClaimKey};
use super::{Provisioner, delete, pv_name_of};

impl Provisioner {
    /// Puts claims into the queue, now and until `stop`.
    pub(super) fn feed_claims(&self, claims: &Queue<ClaimKey>, stop: &CancellationToken) {
        let (queue, name) = (claims.clone(), self.driver.facts.driver_name.clone());
        self.claims
            .on_change_until(stop.clone(), move |change| match change {
                Change::Added(claim) if provision::is_candidate(claim, &name) => {
                    queue.add(ClaimKey::of(claim))
                }
                Change::Updated { old, new } if provision::is_candidate(new, &name) => {
                    if provision::is_worth_hurry(old, new) {
                        queue.add(ClaimKey::of(new));
                    } else {
                        queue.add_unless_failing(ClaimKey::of(new));
                    }
                }
                Change::Added(_) | Change::Updated { .. } | Change::Removed(_) => {}
            });
        let (queue, name, waiting) = (
            claims.clone(),
            self.driver.facts.driver_name.clone(),
            self.claims.clone(),
        );
        self.classes.on_change_until(stop.clone(), move |change| {
            let Change::Added(class) = change else {
                return;
            };
            let held = waiting.list();
            let ours = held.iter().filter(|claim| provision::is_candidate(claim, &name));
            ours.filter(|claim| provision::waits_for(claim, class))
                .for_each(|claim| queue.add(ClaimKey::of(claim)));
        });
    }

    /// Puts PVs into the queue, now and until `stop`.
    pub(super) fn feed_volumes(&self, volumes: &Queue<String>, stop: &CancellationToken) {
        let (queue, name) = (volumes.clone(), self.driver.facts.driver_name.clone());
        self.pvs
            .on_change_until(stop.clone(), move |change| match change {
                Change::Added(pv) | Change::Updated { new: pv, .. } if delete::is_candidate(pv, &name) => {
                    queue.add_unless_failing(pv.metadata.name.clone().unwrap_or_default());
                }
                Change::Added(_) | Change::Updated { .. } | Change::Removed(_) => {}
            });
        let Some((_, attachments)) = &self.attachments else {
            return;
        };
        let (queue, pvs) = (volumes.clone(), self.pvs.clone());
        attachments.on_change_until(stop.clone(), move |change| {
            let Change::Removed(attachment) = change else {
                return;
            };
            // Its volume may have been waiting for this.
            let names = pv_name_of(attachment).into_iter();
            names
                .filter(|name| pvs.get(None, name).is_some())
                .for_each(|name| queue.add(name));
        });
    }

    /// Claims that failed may have been waiting for the driver to appear on a node: they are looked at again when
    /// that happens, not when their backoff ends.
    pub(super) async fn wake_on_topology(self: Arc<Self>, claims: Queue<ClaimKey>, stop: CancellationToken) {
        let Some(topology) = &self.topology else {
            return;
        };
        let mut changes = topology.changes();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
            }
            let held = self.claims.list();
            let ours = held
                .iter()
                .filter(|claim| provision::is_candidate(claim, &self.driver.facts.driver_name));
            ours.map(|claim| ClaimKey::of(claim))
                .filter(|key| claims.failures(key) > 0)
                .for_each(|key| claims.add(key));
        }
    }
}
