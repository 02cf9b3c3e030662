//! Tells users what happened to an object, as core/v1 Events, without making the caller wait.
//!
//! Callers put into a bounded queue; one task writes. What doesn't fit is dropped and counted: events are advice, the
//! truth is in the objects. Repeated events become a higher `count` of one Event ([`crate::recorder::correlator`]).

mod correlator;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::{Client, Resource};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use correlator::{Correlator, Known, Occurrence, Write};

/// Events that wait to be written; more are dropped.
const QUEUE_CAPACITY: usize = 4096;
/// Events taken from the queue at once and written concurrently.
const BATCH: usize = 32;
/// Tries to write one event when the API server can't be reached.
const WRITE_TRIES: u32 = 4;
const WRITE_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How long writing goes on after `stop`.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether an event is news or trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something happened as it should.
    Normal,
    /// Something needs, or may need, somebody's attention.
    Warning,
}

impl EventType {
    /// The word in `Event.type`.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

enum Message {
    Event(Box<Occurrence>),
    Flush(oneshot::Sender<()>),
}

struct Inner {
    sender: mpsc::Sender<Message>,
    dropped: AtomicU64,
    tasks: TaskTracker,
}

/// Writes Events in the name of one component. Cheap to clone; clones share the queue.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

impl Recorder {
    /// A recorder for `component` (such as `persistentvolume-controller`) running as `instance` (a node or pod name,
    /// or empty). After `stop` it writes what is queued, for two seconds at most, and takes no more.
    pub fn new(client: Client, component: &str, instance: &str, stop: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let tasks = TaskTracker::new();
        let writer = Writer {
            client,
            component: component.to_string(),
            instance: instance.to_string(),
            last_name: 0,
        };
        tasks.spawn(run(writer, receiver, stop));
        tasks.close();
        Self {
            inner: Arc::new(Inner {
                sender,
                dropped: AtomicU64::new(0),
                tasks,
            }),
        }
    }

    /// Queues an event about `object`. Returns at once; drops the event when the queue is full.
    pub fn event(&self, object: &ObjectReference, event_type: EventType, reason: &str, message: String) {
        let occurrence = Occurrence {
            object: object.clone(),
            event_type,
            reason: reason.to_string(),
            message,
            at: Timestamp::now(),
        };
        if self
            .inner
            .sender
            .try_send(Message::Event(Box::new(occurrence)))
            .is_err()
        {
            self.inner.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Like [`Recorder::event`], for an object at hand.
    pub fn event_on<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        event_type: EventType,
        reason: &str,
        message: String,
    ) {
        self.event(&object.object_ref(&()), event_type, reason, message);
    }

    /// Events dropped so far because the queue was full or closed.
    pub fn dropped(&self) -> u64 {
        self.inner.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything queued before the call has been written or given up.
    pub async fn flush(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.inner.sender.send(Message::Flush(sender)).await.is_ok() {
            receiver.await.ok(); // The writer ended meanwhile: nothing is left to wait for.
        }
    }

    /// Waits until the writer has ended, which it does after `stop`.
    pub async fn stopped(&self) {
        self.inner.tasks.wait().await;
    }
}

async fn run(mut writer: Writer, mut receiver: mpsc::Receiver<Message>, stop: CancellationToken) {
    let mut correlator = Correlator::default();
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            // Cancel safe: `recv_many` takes nothing unless it completes.
            taken = receiver.recv_many(&mut batch, BATCH) => if taken == 0 { return },
            () = stop.cancelled() => break,
        }
        writer
            .write_batch(&mut correlator, std::mem::take(&mut batch))
            .await;
    }
    receiver.close();
    let drain = async {
        while receiver.recv_many(&mut batch, BATCH).await > 0 {
            writer
                .write_batch(&mut correlator, std::mem::take(&mut batch))
                .await;
        }
    };
    if tokio::time::timeout(DRAIN_TIMEOUT, drain).await.is_err() {
        tracing::debug!("Events were left unwritten at the end");
    }
}

struct Writer {
    client: Client,
    component: String,
    instance: String,
    /// The number in the last event's name; names must differ even within one tick of the clock.
    last_name: u128,
}

impl Writer {
    async fn write_batch(&mut self, correlator: &mut Correlator, batch: Vec<Message>) {
        let mut flushes = Vec::new();
        let now = Instant::now();
        for message in batch {
            match message {
                Message::Event(occurrence) => {
                    let suffix = self.name_suffix(occurrence.at);
                    correlator.take(*occurrence, &suffix, now);
                }
                Message::Flush(done) => flushes.push(done),
            }
        }
        let writes = correlator.writes();
        join_all(writes.into_iter().map(|write| self.write(write))).await;
        for done in flushes {
            done.send(()).ok(); // The caller of `flush` has gone.
        }
    }

    fn name_suffix(&mut self, at: Timestamp) -> String {
        let nanos = u128::try_from(at.as_nanosecond()).unwrap_or(0);
        self.last_name = nanos.max(self.last_name + 1);
        format!("{:x}", self.last_name)
    }

    async fn write(&self, write: Write) {
        for attempt in 1..=WRITE_TRIES {
            match self.try_write(&write).await {
                Ok(()) => return,
                // Forbidden in a namespace that is going away, or refused for its content: no retry can help.
                Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                    tracing::debug!(event = write.known.name, error = status.message, "Event refused");
                    return;
                }
                Err(error) if attempt == WRITE_TRIES => {
                    tracing::debug!(event = write.known.name, %error, "Event given up");
                }
                Err(_) => tokio::time::sleep(WRITE_RETRY_INTERVAL * attempt).await,
            }
        }
    }

    async fn try_write(&self, write: &Write) -> Result<(), kube::Error> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &write.known.namespace);
        if write.is_repeat {
            let patch = json!({
                "count": write.known.count,
                "lastTimestamp": Time(write.occurrence.at),
            });
            match events
                .patch(&write.known.name, &PatchParams::default(), &Patch::Merge(patch))
                .await
            {
                // Its time to live is over: it starts anew below.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(()),
            }
        }
        match events.create(&PostParams::default(), &self.event(write)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if is_already_written(&status) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn event(&self, write: &Write) -> Event {
        let Write {
            known:
                Known {
                    name,
                    namespace,
                    count,
                    first,
                    ..
                },
            occurrence,
            ..
        } = write;
        let host = (!self.instance.is_empty()).then(|| self.instance.clone());
        Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                ..Default::default()
            },
            involved_object: occurrence.object.clone(),
            type_: Some(occurrence.event_type.as_str().to_string()),
            reason: Some(occurrence.reason.clone()),
            message: Some(occurrence.message.clone()),
            count: Some(*count),
            first_timestamp: Some(Time(*first)),
            last_timestamp: Some(Time(occurrence.at)),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: host.clone(),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(host.unwrap_or_default()),
            ..Default::default()
        }
    }
}

/// The answer of an earlier try was lost, the event is there.
fn is_already_written(status: &Status) -> bool {
    status.code == 409 && status.reason == "AlreadyExists"
}

#[cfg(test)]
mod tests;
