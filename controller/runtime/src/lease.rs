//! Leader election on a Lease, compatible with upstream's: at most one of several equal processes acts.
//!
//! ```text
//!   watching --lease free or expired--> leading --renewed every retry period--> leading
//!      ^                                   | not renewed within the renew deadline, or stopped
//!      +----- somebody else was faster     v
//!                                       ended (after the work has stopped; the lease is given back)
//! ```
//!
//! Expiry is judged by how long *this* process has seen the lease unchanged, never by comparing clocks of machines.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The clockwork of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Others wait this long after the last renewal before they take over.
    pub lease_duration: Duration,
    /// A leader that can't renew for this long gives up. Must be below `lease_duration`.
    pub renew_deadline: Duration,
    /// Between two tries to acquire or renew.
    pub retry_period: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(5),
        }
    }
}

/// How an election ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `stop` was cancelled; if this process led, the lease has been given back.
    Stopped,
    /// The work ended by itself; the lease has been given back.
    Finished,
    /// The lease could not be renewed in time. Whoever led must not act any more.
    Lost,
}

/// One candidate for a Lease.
pub struct LeaderElection {
    leases: Api<Lease>,
    name: String,
    identity: String,
    timings: Timings,
    labels: BTreeMap<String, String>,
    keeps_lease: bool,
    health: ElectionHealth,
}

/// How long beyond its lease a leader may be without renewal until it is taken for stuck.
const STUCK_AFTER: Duration = Duration::from_secs(20);

/// What a health endpoint says of an election: a leader that renews no more is stuck and should be restarted. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct ElectionHealth {
    lease_duration: Duration,
    /// The last renewal; `None` while this process doesn't lead.
    renewed: Arc<Mutex<Option<Instant>>>,
}

impl ElectionHealth {
    /// Whether all is well.
    ///
    /// # Errors
    /// What is wrong: this process leads, and its lease ran out a while ago.
    pub fn check(&self) -> Result<(), String> {
        let Some(age) = self.renewed.lock().map(|renewed| renewed.elapsed()) else {
            return Ok(());
        };
        if age <= self.lease_duration + STUCK_AFTER {
            return Ok(());
        }
        Err(format!(
            "failed election to renew leadership: the last renewal was {} s ago",
            age.as_secs()
        ))
    }

    /// Whether this process leads.
    pub fn is_leading(&self) -> bool {
        self.renewed.lock().is_some()
    }
}

impl fmt::Debug for LeaderElection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderElection")
            .field("name", &self.name)
            .field("identity", &self.identity)
            .finish()
    }
}

/// Leadership as the leading work sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership {
    renewed: Arc<Mutex<Instant>>,
    renew_deadline: Duration,
    ended: CancellationToken,
}

impl Leadership {
    /// Whether writing is allowed now, by the clock: to be asked right before each write.
    pub fn is_held(&self) -> bool {
        !self.ended.is_cancelled() && self.renewed.lock().elapsed() < self.renew_deadline
    }

    /// Cancelled when leadership ends, or shall end.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

/// The Lease object's name for a lock: characters that names can't have become dashes.
pub fn object_name(lock_name: &str) -> String {
    let mut name: String = lock_name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    if name.ends_with('-') {
        name.push('X');
    }
    name
}

/// What is known of the lease.
#[derive(Clone, Debug, Default)]
struct Observed {
    lease: Option<Lease>,
    /// When this process first saw it in this state.
    since: Option<Instant>,
}

/// What a candidate does about the lease.
#[derive(Clone, Debug, PartialEq)]
enum Next {
    Create(Lease),
    /// Take over, or renew.
    Replace(Lease),
    /// Somebody else holds it.
    Wait,
}

impl LeaderElection {
    /// A candidate named `identity` (unique among candidates: a pod's or machine's name) for the Lease `name`.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, timings: Timings) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: object_name(name),
            identity: identity.to_string(),
            timings,
            labels: BTreeMap::new(),
            keeps_lease: false,
            health: ElectionHealth {
                lease_duration: timings.lease_duration,
                renewed: Arc::default(),
            },
        }
    }

    /// The same candidate; the Lease gets these labels when it leads.
    #[must_use]
    pub fn with_labels(self, labels: BTreeMap<String, String>) -> Self {
        Self { labels, ..self }
    }

    /// The same candidate; when stopped it keeps the lease, so that others wait until it has run out.
    #[must_use]
    pub fn keeping_lease(self) -> Self {
        Self {
            keeps_lease: true,
            ..self
        }
    }

    /// For the health endpoint.
    pub fn health(&self) -> ElectionHealth {
        self.health.clone()
    }

    /// Waits for leadership, then runs `lead`, which has to end soon after [`Leadership::ended`] is cancelled. The
    /// lease is given back only after `lead` has ended.
    pub async fn run<F, Fut>(&self, stop: &CancellationToken, lead: F) -> Ended
    where
        F: FnOnce(Leadership) -> Fut,
        Fut: Future<Output = ()>,
    {
        let mut observed = Observed::default();
        let acquired = tokio::select! {
            biased;
            () = stop.cancelled() => return Ended::Stopped,
            acquired = self.acquire(&mut observed) => acquired,
        };
        tracing::info!(lease = self.name, identity = self.identity, "Leading");
        *self.health.renewed.lock() = Some(acquired);
        let ended = self.led(stop, lead, observed, acquired).await;
        *self.health.renewed.lock() = None;
        ended
    }

    async fn led<F, Fut>(
        &self,
        stop: &CancellationToken,
        lead: F,
        mut observed: Observed,
        acquired: Instant,
    ) -> Ended
    where
        F: FnOnce(Leadership) -> Fut,
        Fut: Future<Output = ()>,
    {
        let leadership = Leadership {
            renewed: Arc::new(Mutex::new(acquired)),
            renew_deadline: self.timings.renew_deadline,
            ended: stop.child_token(),
        };
        let mut working = std::pin::pin!(lead(leadership.clone()));
        let finished = tokio::select! {
            // Stopping first: it is what makes the work end, and both are ready then.
            biased;
            () = stop.cancelled() => None,
            () = &mut working => Some(Ended::Finished),
            () = self.keep(&mut observed, &leadership) => Some(Ended::Lost),
        };
        leadership.ended.cancel();
        match finished {
            Some(Ended::Lost) => {
                tracing::error!(lease = self.name, identity = self.identity, "Leadership is lost");
                working.await;
                Ended::Lost
            }
            Some(Ended::Finished) => {
                self.release(observed).await;
                Ended::Finished
            }
            Some(Ended::Stopped) | None => {
                // Still renewing, so that nobody else begins before the last worker here has ended.
                let is_held = tokio::select! {
                    biased;
                    () = &mut working => true,
                    () = self.keep(&mut observed, &leadership) => false,
                };
                if is_held {
                    self.release(observed).await;
                } else {
                    // Too late to give it back: somebody else may have it. The work still has to end.
                    working.await;
                }
                Ended::Stopped
            }
        }
    }

    /// Returns the moment from which others count, at the earliest.
    async fn acquire(&self, observed: &mut Observed) -> Instant {
        loop {
            let started = Instant::now();
            match self.attempt(observed).await {
                Ok(true) => return started,
                Ok(false) => {}
                Err(error) => tracing::debug!(lease = self.name, %error, "Lease can't be acquired now"),
            }
            // Spread, so that candidates that wait together don't try together.
            let jitter = 1.0 + rand::random::<f64>() * 0.2;
            tokio::time::sleep(self.timings.retry_period.mul_f64(jitter)).await;
        }
    }

    /// Renews until that has failed for too long.
    async fn keep(&self, observed: &mut Observed, leadership: &Leadership) {
        loop {
            tokio::time::sleep(self.timings.retry_period).await;
            let left = self
                .timings
                .renew_deadline
                .saturating_sub(leadership.renewed.lock().elapsed());
            let started = Instant::now();
            match tokio::time::timeout(left, self.attempt(observed)).await {
                // From before the call: the server may have counted from any moment since.
                Ok(Ok(true)) => {
                    *leadership.renewed.lock() = started;
                    *self.health.renewed.lock() = Some(started);
                }
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "Lease can't be renewed now"),
                Err(_) => return,
            }
            if leadership.renewed.lock().elapsed() >= self.timings.renew_deadline {
                return;
            }
        }
    }

    /// One try to acquire or renew; whether this process holds the lease afterwards.
    async fn attempt(&self, observed: &mut Observed) -> Result<bool, kube::Error> {
        let current = self.leases.get_opt(&self.name).await?;
        let now = Instant::now();
        let has_changed =
            current.as_ref().map(|lease| &lease.spec) != observed.lease.as_ref().map(|lease| &lease.spec);
        if has_changed || observed.since.is_none() {
            observed.since = Some(now);
        }
        observed.lease = current;
        let unchanged_for = observed
            .since
            .map_or(Duration::ZERO, |since| now.duration_since(since));
        let wanted = decide(observed.lease.as_ref(), unchanged_for, self, Timestamp::now());
        let written = match wanted {
            Next::Wait => return Ok(false),
            Next::Create(lease) => self.leases.create(&PostParams::default(), &lease).await,
            Next::Replace(lease) => {
                self.leases
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await
            }
        };
        // With a conflict somebody else was faster; whether they hold it now is seen next time.
        observed.lease = Some(written?);
        observed.since = Some(Instant::now());
        Ok(true)
    }

    async fn release(&self, observed: Observed) {
        let Some(mut lease) = observed.lease.filter(|_| !self.keeps_lease) else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let params = PostParams::default();
        let releasing = self.leases.replace(&self.name, &params, &lease);
        match tokio::time::timeout(self.timings.retry_period, releasing).await {
            Ok(Ok(_)) => tracing::debug!(lease = self.name, "Lease is given back"),
            Ok(Err(error)) => {
                tracing::debug!(lease = self.name, %error, "Lease can't be given back, it will expire")
            }
            Err(_) => tracing::debug!(
                lease = self.name,
                "Lease can't be given back in time, it will expire"
            ),
        }
    }
}

fn decide(
    lease: Option<&Lease>,
    unchanged_for: Duration,
    candidate: &LeaderElection,
    now: Timestamp,
) -> Next {
    let own = |held: Option<&LeaseSpec>| {
        let is_holder = held.and_then(|spec| spec.holder_identity.as_deref()) == Some(&candidate.identity);
        let transitions = held.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(candidate.identity.clone()),
            lease_duration_seconds: i32::try_from(candidate.timings.lease_duration.as_secs()).ok(),
            acquire_time: held
                .filter(|_| is_holder)
                .and_then(|spec| spec.acquire_time.clone())
                .or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if is_holder || held.is_none() {
                transitions
            } else {
                transitions + 1
            }),
            ..Default::default()
        }
    };
    let Some(lease) = lease else {
        let metadata = ObjectMeta {
            name: Some(candidate.name.clone()),
            labels: (!candidate.labels.is_empty()).then(|| candidate.labels.clone()),
            ..Default::default()
        };
        return Next::Create(Lease {
            metadata,
            spec: Some(own(None)),
        });
    };
    let held = lease.spec.as_ref();
    let holder = held
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    let seconds = held.and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
    let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let is_free = holder.is_empty() || holder == candidate.identity || unchanged_for >= duration;
    if !is_free {
        return Next::Wait;
    }
    // The resourceVersion that was read goes with it: of two who find it free only one gets it.
    let mut lease = lease.clone();
    lease.spec = Some(own(held));
    if !candidate.labels.is_empty() {
        let labels = lease.metadata.labels.get_or_insert_default();
        labels.extend(candidate.labels.clone());
    }
    lease.managed_fields_mut().clear();
    Next::Replace(lease)
}

#[cfg(test)]
mod tests;
