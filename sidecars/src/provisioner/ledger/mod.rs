//! The ledger: what the provisioner is about to ask of the driver, durable before it asks.
//!
//! Killed inside `CreateVolume`, a provisioner must learn at its next start that a volume may exist, even if the claim is
//! gone by then. So the plan of a claim is in the API before the first call, in ConfigMaps of the provisioner's
//! namespace. Claims that come while a write is under way share the next one, and what is done leaves with a later
//! write: a claim alone costs one write, a thousand at once a few dozen. `docs/decisions/provisioner-ledger.md` says why
//! it is built this way.
//!
//! [`book`] decides what is written, [`intent`] is the text of one plan, this module talks to the API.

mod book;
mod intent;

use std::collections::HashMap;
use std::time::Duration;

use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::plan::Plan;
use crate::api::{WriteError, code};
use book::{Book, Refusal, SHARDS, Write};

/// The label that finds the objects; its value is the driver's name.
const LABEL: &str = "moorline.dev/provisioner-intents";
/// Names of the objects begin with it.
const NAME_PREFIX: &str = "provisioner-intents";
/// From the start of one write to the start of the next: the more claims are coming, the more share a write. A claim
/// alone is not held up.
const PACE: Duration = Duration::from_millis(20);
/// Of one write; whoever waits is told, and tries again.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries to read the ledger at the start.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);
/// How long the provisioner goes without a ledger that it may not write, until it tries again.
const FORBIDDEN_FOR: Duration = Duration::from_secs(60);
const FORBIDDEN: &str = "The provisioner may not keep its ledger: killed inside CreateVolume, it can leave a volume without \
     persistent volume. Grant get, list, create and patch on configmaps in its namespace";

/// Why an intent is not in the ledger, or not out of it.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error("record intent: {0}")]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Write(String),
}

type Answer = Result<(), LedgerError>;

/// The durable intents of one provisioner.
pub(crate) struct Ledger {
    client: Client,
    namespace: String,
    /// Of the objects, without the number of the shard.
    name: String,
    driver_name: String,
    book: Mutex<Book>,
    /// Shards that exist as objects.
    exists: Mutex<[bool; SHARDS]>,
    waiting: Mutex<Waiting>,
    changed: Notify,
    forbidden_until: Mutex<Option<Instant>>,
}

/// Who waits for what to become of which volume's intent.
type Waiting = HashMap<(Awaited, String), Vec<oneshot::Sender<Answer>>>;

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Awaited {
    Recorded,
    Cleared,
}

/// Only success matters of an answer that repeats the whole object.
#[derive(Deserialize)]
struct Ignored {}

impl Ledger {
    /// The ledger of that driver; `node_name` where each node has a provisioner of its own.
    pub(crate) fn new(
        client: Client,
        namespace: Option<&str>,
        driver_name: &str,
        node_name: Option<&str>,
    ) -> Self {
        let namespace = namespace.unwrap_or(client.default_namespace()).to_string();
        Self {
            namespace,
            name: object_name(driver_name, node_name),
            driver_name: driver_name.to_string(),
            client,
            book: Mutex::default(),
            exists: Mutex::new([false; SHARDS]),
            waiting: Mutex::default(),
            changed: Notify::new(),
            forbidden_until: Mutex::default(),
        }
    }

    /// Reads what an earlier process left, trying until it can be read. `is_done` says for which volume names nothing
    /// is left to do; the plans of all others are returned. `None` when stopped.
    pub(crate) async fn load(
        &self,
        is_done: impl Fn(&str) -> bool,
        stop: &CancellationToken,
    ) -> Option<Vec<Plan>> {
        loop {
            let objects: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
            let selector = format!("{LABEL}={}", self.driver_name);
            let params = ListParams::default().labels(&selector);
            let listed = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                listed = tokio::time::timeout(WRITE_TIMEOUT, objects.list(&params)) => listed,
            };
            let why = match listed {
                Ok(Ok(list)) => return Some(self.take(list.items, is_done)),
                Ok(Err(error)) if code(&error) == Some(403) => {
                    self.forbid();
                    return Some(Vec::new());
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {WRITE_TIMEOUT:?}"),
            };
            tracing::warn!(
                namespace = self.namespace,
                error = why,
                "The ledger can't be read, trying again"
            );
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(LOAD_INTERVAL) => {}
            }
        }
    }

    fn take(&self, objects: Vec<ConfigMap>, is_done: impl Fn(&str) -> bool) -> Vec<Plan> {
        let mut plans = Vec::new();
        let (mut book, mut exists) = (self.book.lock(), self.exists.lock());
        for object in objects {
            let name = object.metadata.name.unwrap_or_default();
            let number = name
                .strip_prefix(&self.name)
                .and_then(|rest| rest.strip_prefix('-'));
            let Some(shard) = number
                .and_then(|number| number.parse().ok())
                .filter(|n| *n < SHARDS)
            else {
                // Another node's.
                continue;
            };
            exists[shard] = true;
            for (key, text) in object.data.unwrap_or_default() {
                match intent::decode(&key, &text) {
                    Ok(plan) => {
                        let is_done = is_done(&key);
                        book.found(shard, &key, text, is_done);
                        if !is_done {
                            plans.push(plan);
                        }
                    }
                    Err(error) => tracing::error!(
                        configmap = name,
                        volume = key,
                        %error,
                        "An intent can't be read and is left alone; its volume may exist without persistent volume"
                    ),
                }
            }
        }
        plans
    }

    /// Returns once the plan is in the API. At once for a plan that is there already.
    ///
    /// # Errors
    /// The plan may not be there: nothing may be asked of the driver. Worth another try.
    pub(crate) async fn record(&self, plan: &Plan) -> Result<(), LedgerError> {
        if self.is_forbidden() {
            return Ok(());
        }
        let (key, text) = (plan.volume_name(), intent::encode(plan));
        let answer = {
            let mut book = self.book.lock();
            if book.record(key, text)? {
                return Ok(());
            }
            self.wait_for(Awaited::Recorded, key)
        };
        self.answered(answer).await
    }

    /// The plan for that volume is fulfilled or came to nothing. Costs no write of its own.
    pub(crate) fn done(&self, volume_name: &str) {
        self.book.lock().done(volume_name);
    }

    /// Returns once a done plan is out of the API; at once if there is none. To be called before the PV goes: an
    /// intent without PV says that its volume was never handed over.
    ///
    /// # Errors
    /// It may still be there. Worth another try.
    pub(crate) async fn cleared(&self, volume_name: &str) -> Result<(), LedgerError> {
        let answer = {
            let mut book = self.book.lock();
            if !book.press(volume_name) {
                return Ok(());
            }
            self.wait_for(Awaited::Cleared, volume_name)
        };
        self.answered(answer).await
    }

    /// With the book locked, so that the write can't be reported before somebody waits for it.
    fn wait_for(&self, what: Awaited, key: &str) -> oneshot::Receiver<Answer> {
        let (sender, answer) = oneshot::channel();
        self.waiting
            .lock()
            .entry((what, key.to_string()))
            .or_default()
            .push(sender);
        answer
    }

    async fn answered(&self, answer: oneshot::Receiver<Answer>) -> Answer {
        self.changed.notify_one();
        answer
            .await
            .unwrap_or_else(|_| Err(LedgerError::Write("the ledger has been closed".into())))
    }

    /// Writes what is due until `stop`. Nobody may wait for a write any more then.
    pub(crate) async fn serve(&self, stop: &CancellationToken) {
        let mut next_start = Instant::now();
        loop {
            let due = async {
                self.changed.notified().await;
                tokio::time::sleep_until(next_start).await;
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = due => {}
            }
            let Some(write) = self.book.lock().next_write() else {
                continue;
            };
            next_start = Instant::now() + PACE;
            let answer = self.write(&write).await;
            self.report(&write, answer);
            // For what came meanwhile, or did not fit in.
            self.changed.notify_one();
        }
        self.waiting.lock().clear();
    }

    fn report(&self, write: &Write, answer: Answer) {
        let mut book = self.book.lock();
        match &answer {
            Ok(()) => book.written(write),
            Err(_) => book.failed(write),
        }
        let mut waiting = self.waiting.lock();
        let puts = write.puts.iter().map(|(key, _)| (Awaited::Recorded, key.clone()));
        let drops = write.drops.iter().map(|key| (Awaited::Cleared, key.clone()));
        for sender in puts
            .chain(drops)
            .filter_map(|what| waiting.remove(&what))
            .flatten()
        {
            // Whoever asked may have been stopped meanwhile.
            sender.send(answer.clone()).ok();
        }
    }

    async fn write(&self, write: &Write) -> Answer {
        let result = tokio::time::timeout(WRITE_TIMEOUT, self.send(write)).await;
        let name = format!("{}-{}", self.name, write.shard);
        let what = format!("write ConfigMap {}/{name}", self.namespace);
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if code(&error) == Some(403) => {
                self.forbid();
                if write.drops.is_empty() {
                    return Ok(());
                }
                Err(LedgerError::Write(WriteError::new(what, error).to_string()))
            }
            Ok(Err(error)) => Err(LedgerError::Write(WriteError::new(what, error).to_string())),
            Err(_) => Err(LedgerError::Write(format!(
                "{what}: no answer within {WRITE_TIMEOUT:?}"
            ))),
        }
    }

    /// Patches the object; one that doesn't exist (any more) is made.
    async fn send(&self, write: &Write) -> Result<(), kube::Error> {
        let collection = ConfigMap::url_path(&(), Some(&self.namespace));
        let name = format!("{}-{}", self.name, write.shard);
        let puts = write.puts.iter().map(|(key, text)| (key.clone(), json!(text)));
        let mut data: Map<String, Value> = puts.collect();
        if !self.exists.lock()[write.shard] {
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
                "metadata": {"name": name, "labels": {LABEL: self.driver_name}}});
            let request = Request::post(collection.as_str())
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(object.to_string().into_bytes())
                .expect("names of objects make valid paths");
            match self.client.request::<Ignored>(request).await {
                // With drops it exists, as far as this process knows: these must be sent, too.
                Ok(Ignored {}) if write.drops.is_empty() => {
                    self.exists.lock()[write.shard] = true;
                    return Ok(());
                }
                Ok(Ignored {}) => {}
                // The answer to an earlier try was lost.
                Err(error) if code(&error) == Some(409) => {}
                Err(error) => return Err(error),
            }
            self.exists.lock()[write.shard] = true;
        }
        data.extend(write.drops.iter().map(|key| (key.clone(), Value::Null)));
        let request = Request::patch(format!("{collection}/{name}"))
            .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
            .body(json!({"data": data}).to_string().into_bytes())
            .expect("names of objects make valid paths");
        match self.client.request::<Ignored>(request).await {
            Ok(Ignored {}) => Ok(()),
            Err(error) => {
                if code(&error) == Some(404) {
                    // Somebody deleted it; the next try makes it anew.
                    self.exists.lock()[write.shard] = false;
                }
                Err(error)
            }
        }
    }

    fn forbid(&self) {
        tracing::warn!(namespace = self.namespace, "{FORBIDDEN}");
        *self.forbidden_until.lock() = Some(Instant::now() + FORBIDDEN_FOR);
    }

    fn is_forbidden(&self) -> bool {
        self.forbidden_until
            .lock()
            .is_some_and(|until| Instant::now() < until)
    }
}

/// Of the objects of one provisioner, without the number of the shard. A node's name may be too long to be a part.
fn object_name(driver_name: &str, node_name: Option<&str>) -> String {
    const NAME_LENGTH_MAX: usize = 253 - 4;
    let driver_name = driver_name.to_ascii_lowercase();
    let Some(node_name) = node_name else {
        return format!("{NAME_PREFIX}-{driver_name}");
    };
    let name = format!("{NAME_PREFIX}-{driver_name}.{node_name}");
    if name.len() <= NAME_LENGTH_MAX {
        return name;
    }
    let short = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, node_name.as_bytes());
    format!("{NAME_PREFIX}-{driver_name}.{short}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_objects() {
        let long = "n".repeat(250);
        let cases = [
            (None, "provisioner-intents-d.example"),
            (Some("n1"), "provisioner-intents-d.example.n1"),
        ];
        for (node_name, expected) in cases {
            assert_eq!(object_name("D.example", node_name), expected);
        }
        assert!(object_name("d.example", Some(&long)).len() < 100);
    }
}
