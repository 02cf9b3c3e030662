//! One provisioner per node: this node takes claims with immediate binding that nobody has. All nodes want the same claim,
//! so each waits a while of its own, looks for room, and writes its name on the claim; the API server lets one do so.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use moorline_model::{claim, keys};
use moorline_runtime::{Backoff, EventType, Outcome};
use serde_json::json;

use super::Provisioner;
use super::claim::{Bid, Owner, owner};
use super::memory::Bidding;
use super::provision::{ClaimKey, ProvisionError};
use crate::api::{WriteError, code, json_patch};
use crate::connection::call;
use crate::rpc_class::describe;

/// How long a node waits before it bids: longer after each try that came to nothing, less a part of `interval.min` drawn
/// by lot (`lot` is from 0 to 1), so that nodes that began together don't come together.
fn pause(interval: &Backoff, tries: u32, lot: f64) -> Duration {
    let less = interval.min.mul_f64(lot.clamp(0.0, 1.0));
    interval.bound(tries.saturating_add(1)).saturating_sub(less)
}

/// The capacity that the driver told, against what the claim needs.
fn has_room(answers: &[Option<i64>], required: i64) -> bool {
    // No answer says nothing against it: `CreateVolume` will tell.
    answers.is_empty()
        || answers
            .iter()
            .any(|answer| answer.is_none_or(|free| free >= required))
}

impl Provisioner {
    /// How long this node still has to wait before it bids for the claim; `None` where there is nothing to wait for.
    pub(super) fn pause_before_bid(&self, key: &ClaimKey) -> Option<Duration> {
        let own = self.config.node_name.as_ref()?;
        let held = self.claims.get(Some(&key.namespace), &key.name)?;
        let class = self.classes.get(None, claim::class_name(&held))?;
        let is_open = held.metadata.uid.as_deref() == Some(&key.uid)
            && claim::volume_name(&held).is_none()
            && owner(&held, &self.config) == Owner::Nobody
            && self.memory.in_progress(&key.uid).is_none();
        if !is_open || claim::is_delayed(&class) || !self.config.node_immediate_binding {
            return None;
        }
        let now = Timestamp::now();
        let bidding = self.memory.bidding(&key.uid, || {
            tracing::debug!(claim = ?key, node = own, "Will bid for the claim");
            self.next_bid(0, now)
        });
        (now < bidding.due).then(|| Duration::try_from(bidding.due.duration_since(now)).unwrap_or_default())
    }

    fn next_bid(&self, tries: u32, now: Timestamp) -> Bidding {
        let drawn = uuid::Uuid::new_v4().as_u128() % 10_000;
        let lot = f64::from(u16::try_from(drawn).unwrap_or_default()) / 10_000.0;
        let pause = pause(&self.config.node_bid_interval, tries, lot);
        let pause = jiff::SignedDuration::try_from(pause).unwrap_or_default();
        Bidding {
            tries,
            due: now.saturating_add(pause).unwrap_or(Timestamp::MAX),
            is_told: false,
        }
    }

    /// Bids for a claim whose time has come.
    pub(super) async fn bid(&self, key: &ClaimKey, bid: Bid) -> Result<Outcome, ProvisionError> {
        let Some(own) = self.config.node_name.clone() else {
            return Ok(Outcome::Settled);
        };
        let now = Timestamp::now();
        let bidding = self.memory.bidding(&key.uid, || self.next_bid(0, now));
        let answers = self.ask_for_room(&bid).await;
        if !has_room(&answers, bid.required) {
            let most = answers.into_iter().flatten().max().unwrap_or_default();
            return Ok(self.no_room(key, (&own, bid.required, most), bidding));
        }
        // The driver took its time: what is written is decided on what is known now.
        let held = self.claims.get(Some(&key.namespace), &key.name);
        let is_free = |held: &PersistentVolumeClaim| {
            held.metadata.uid.as_deref() == Some(&key.uid) && owner(held, &self.config) == Owner::Nobody
        };
        let Some(held) = held.filter(|held| is_free(held)) else {
            return Ok(Outcome::After(Duration::ZERO));
        };
        match self.take(key, &held, &own).await {
            Ok(Some(taken)) => {
                tracing::debug!(claim = ?key, node = own, "The claim is this node's");
                self.claims.observe(taken);
                self.memory.set_bidding(&key.uid, None);
                Ok(Outcome::After(Duration::ZERO))
            }
            // Somebody was faster, or wrote something else: what, the next look sees.
            Ok(None) => {
                let next = Bidding {
                    is_told: bidding.is_told,
                    ..self.next_bid(bidding.tries.saturating_add(1), now)
                };
                self.memory.set_bidding(&key.uid, Some(next));
                Ok(Outcome::After(
                    Duration::try_from(next.due.duration_since(now)).unwrap_or_default(),
                ))
            }
            Err(error) => Err(WriteError::new("write selected node to claim", error).into()),
        }
    }

    /// What the driver has free at each place; `None` where it doesn't say.
    async fn ask_for_room(&self, bid: &Bid) -> Vec<Option<i64>> {
        let mut answers = Vec::with_capacity(bid.questions.len());
        for question in &bid.questions {
            let mut controller = self.driver.connection.controller();
            let answer = call(self.config.timeout, question.clone(), |request| {
                controller.get_capacity(request)
            })
            .await;
            answers.push(match answer {
                Ok(answer) => Some(answer.available_capacity),
                Err(status) => {
                    tracing::debug!(
                        error = describe(&status),
                        "The driver doesn't say how much room there is"
                    );
                    None
                }
            });
        }
        answers
    }

    /// Another node may have room, or this one later. A claim that no node takes would wait without a word, so that after
    /// a while those without room say so, once each.
    fn no_room(&self, key: &ClaimKey, (own, required, free): (&str, i64, i64), bidding: Bidding) -> Outcome {
        let now = Timestamp::now();
        let patience = self.config.node_bid_interval.max;
        let held = self.claims.get(Some(&key.namespace), &key.name);
        let made = held.and_then(|held| held.metadata.creation_timestamp.clone());
        let age = made.map(|made| Duration::try_from(now.duration_since(made.0)).unwrap_or_default());
        let is_old = age.is_some_and(|age| age >= patience.saturating_mul(2));
        if is_old && !bidding.is_told {
            let message = format!(
                "node {own} has {free} bytes free, the claim needs {required}: waiting for a node that has room"
            );
            self.claim_event(key, EventType::Warning, "ProvisioningFailed", message);
        }
        let rest = jiff::SignedDuration::try_from(patience).unwrap_or_default();
        let next = Bidding {
            due: now.saturating_add(rest).unwrap_or(Timestamp::MAX),
            is_told: bidding.is_told || is_old,
            ..bidding
        };
        self.memory.set_bidding(&key.uid, Some(next));
        Outcome::After(patience)
    }

    /// Writes this node's name on the claim, if it is as it was seen. `None`: it isn't.
    async fn take(
        &self,
        key: &ClaimKey,
        held: &PersistentVolumeClaim,
        own: &str,
    ) -> Result<Option<PersistentVolumeClaim>, kube::Error> {
        let path = format!("/metadata/annotations/{}", keys::SELECTED_NODE.replace('/', "~1"));
        let operations = vec![
            json!({"op": "test", "path": "/metadata/uid", "value": key.uid}),
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": held.metadata.resource_version}),
            json!({"op": "add", "path": path, "value": own}),
        ];
        let target = (Some(key.namespace.as_str()), key.name.as_str());
        let written = match json_patch(&self.client, target, None, operations).await {
            // Upstream's role for the provisioner lets it update claims, and not patch them.
            Err(error) if code(&error) == Some(403) => self.take_by_update(key, own).await,
            written => written.map(Some),
        };
        match written {
            Err(error) if matches!(code(&error), Some(404 | 409 | 422)) => Ok(None),
            written => written,
        }
    }

    async fn take_by_update(
        &self,
        key: &ClaimKey,
        own: &str,
    ) -> Result<Option<PersistentVolumeClaim>, kube::Error> {
        // As it is on the wire: an update must not lose fields that this program doesn't know.
        let resource = ApiResource::erase::<PersistentVolumeClaim>(&());
        let claims: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let Some(mut found) = claims.get_opt(&key.name).await? else {
            return Ok(None);
        };
        let annotations = found.metadata.annotations.get_or_insert_default();
        let is_taken = annotations
            .get(keys::SELECTED_NODE)
            .is_some_and(|name| !name.is_empty());
        if found.metadata.uid.as_deref() != Some(&key.uid) || is_taken {
            return Ok(None);
        }
        annotations.insert(keys::SELECTED_NODE.to_string(), own.to_string());
        let updated = claims.replace(&key.name, &PostParams::default(), &found).await?;
        Ok(updated.try_parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_drawn_by_lot() {
        let interval = Backoff {
            min: Duration::from_secs(20),
            max: Duration::from_secs(60),
        };
        let cases = [
            (0, 0.0, 20),
            (0, 0.5, 10),
            (0, 1.0, 0),
            (1, 0.0, 40),
            (1, 1.0, 20),
            (2, 0.0, 60),
            (9, 0.5, 50),
        ];
        for (tries, lot, expected) in cases {
            assert_eq!(
                pause(&interval, tries, lot),
                Duration::from_secs(expected),
                "{tries} {lot}"
            );
        }
    }

    #[test]
    fn room_is_what_the_driver_says() {
        let cases: [(&[Option<i64>], bool); 5] = [
            (&[], true),
            (&[Some(10)], true),
            (&[Some(9)], false),
            (&[Some(1), Some(11)], true),
            (&[Some(1), None], true),
        ];
        for (answers, expected) in cases {
            assert_eq!(has_room(answers, 10), expected, "{answers:?}");
        }
    }
}
