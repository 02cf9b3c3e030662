//! What the demo can see of the cluster, the way any user could: objects and logs through the Kubernetes API, mounts
//! in the kernel's table. Nothing is asked of the parts themselves.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::api::{
    core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::{CSIDriver, VolumeAttachment},
};
use kube::{Api, Client, api::LogParams};
use moorline_mount::mountinfo;
use moorline_runtime::{Cache, Informers};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::timeline::Timeline;

/// How often the mount table's watcher looks whether it should end.
const MOUNT_POLL_MS: u16 = 100;

/// Caches, logs and mounts, and a bell that rings when any of them changes.
pub(super) struct Facts {
    /// For writes and one-shot reads.
    pub(super) client: Client,
    /// All claims.
    pub(super) claims: Cache<PersistentVolumeClaim>,
    /// All volumes.
    pub(super) pvs: Cache<PersistentVolume>,
    /// All pods.
    pub(super) pods: Cache<Pod>,
    /// All nodes.
    pub(super) nodes: Cache<Node>,
    /// All attachments.
    pub(super) attachments: Cache<VolumeAttachment>,
    /// All drivers' own words.
    pub(super) drivers: Cache<CSIDriver>,
    /// All events; shown when something does not happen.
    pub(super) events: Cache<Event>,
    logs: Arc<Mutex<Vec<(String, String)>>>,
    bell: Arc<Notify>,
    informers: Informers,
    tasks: TaskTracker,
    stop: CancellationToken,
    mounts_stop: Arc<AtomicBool>,
}

/// Something that shall become true: a name for it, and a test that gives its particulars once it is.
pub(super) type Condition<'a> = (
    &'static str,
    Box<dyn Fn(&Facts) -> Option<String> + Send + Sync + 'a>,
);

/// Puts a condition together.
pub(super) fn when<'a>(
    name: &'static str,
    test: impl Fn(&Facts) -> Option<String> + Send + Sync + 'a,
) -> Condition<'a> {
    (name, Box::new(test))
}

impl Facts {
    /// Starts to watch through `client`.
    pub(super) async fn watch(client: Client) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let informers = Informers::new(client.clone(), stop.clone());
        let bell = Arc::new(Notify::new());
        let mounts_stop = Arc::new(AtomicBool::new(false));
        watch_mounts(Arc::clone(&bell), Arc::clone(&mounts_stop))?;
        let facts = Self {
            client,
            claims: informers.cache(),
            pvs: informers.cache(),
            pods: informers.cache(),
            nodes: informers.cache(),
            attachments: informers.cache(),
            drivers: informers.cache(),
            events: informers.cache(),
            logs: Arc::default(),
            bell,
            informers,
            tasks: TaskTracker::new(),
            stop,
            mounts_stop,
        };
        facts.ring_on_changes();
        facts.claims.synced().await;
        facts.pvs.synced().await;
        facts.pods.synced().await;
        Ok(facts)
    }

    fn ring_on_changes(&self) {
        let bell = || {
            let bell = Arc::clone(&self.bell);
            move || bell.notify_one()
        };
        let ring = bell();
        self.claims.on_change(move |_| ring());
        let ring = bell();
        self.pvs.on_change(move |_| ring());
        let ring = bell();
        self.pods.on_change(move |_| ring());
        let ring = bell();
        self.nodes.on_change(move |_| ring());
        let ring = bell();
        self.attachments.on_change(move |_| ring());
        let ring = bell();
        self.drivers.on_change(move |_| ring());
    }

    /// Follows a pod's log; its lines become facts.
    pub(super) fn follow_log(&self, namespace: &str, pod: &str) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let (pod, logs, bell) = (pod.to_owned(), Arc::clone(&self.logs), Arc::clone(&self.bell));
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let follow = async {
                let parameters = LogParams {
                    follow: true,
                    ..LogParams::default()
                };
                let mut lines = api.log_stream(&pod, &parameters).await?.lines();
                while let Some(line) = lines.try_next().await? {
                    logs.lock().push((pod.clone(), line));
                    bell.notify_one();
                }
                anyhow::Ok(())
            };
            tokio::select! {
                () = stop.cancelled() => {}
                outcome = follow => if let Err(error) = outcome {
                    tracing::warn!(%pod, %error, "The log ended early");
                },
            }
        });
    }

    /// Drops what was read of a pod's log, so that only lines from here on count.
    pub(super) fn forget_log(&self, pod: &str) {
        self.logs.lock().retain(|(of, _)| of != pod);
    }

    /// The last line of a pod's log that `pick` accepts.
    pub(super) fn log_line<T>(&self, pod: &str, pick: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.logs
            .lock()
            .iter()
            .rev()
            .filter(|(of, _)| of == pod)
            .find_map(|(_, line)| pick(line))
    }

    /// The first mount point that `accept` accepts.
    pub(super) fn mount_point(&self, accept: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        let table = mountinfo::read().ok()?;
        table
            .into_iter()
            .map(|entry| entry.mount_point)
            .find(|point| accept(point))
    }

    /// Waits until all conditions have been true once, and records each with the moment it turned true.
    ///
    /// # Errors
    /// After `limit` without them, with what is missing and the latest warning events.
    pub(super) async fn all(
        &self,
        timeline: &mut Timeline,
        limit: Duration,
        conditions: Vec<Condition<'_>>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        let mut open = conditions;
        loop {
            let now = Instant::now();
            let mut still_open = Vec::new();
            for condition in open {
                match (condition.1)(self) {
                    Some(detail) => timeline.step(condition.0, detail, now),
                    None => still_open.push(condition),
                }
            }
            open = still_open;
            let Some(next) = open.first() else { return Ok(()) };
            timeline.waiting(next.0);
            if timeout_at(deadline, self.bell.notified()).await.is_err() {
                let missing: Vec<_> = open.iter().map(|condition| condition.0).collect();
                bail!("waited {limit:?} for: {}{}", missing.join(", "), self.warnings());
            }
        }
    }

    /// The latest warning events, for an error message.
    fn warnings(&self) -> String {
        let mut events = self.events.list();
        events.retain(|event| event.type_.as_deref() == Some("Warning"));
        let show = |event: &Event| {
            let of = &event.involved_object;
            format!(
                "\n  {} {}: {}: {}",
                of.kind.as_deref().unwrap_or_default(),
                of.name.as_deref().unwrap_or_default(),
                event.reason.as_deref().unwrap_or_default(),
                event.message.as_deref().unwrap_or_default()
            )
        };
        if events.is_empty() {
            return String::from("; there are no warning events");
        }
        events.iter().take(5).map(|event| show(event)).collect()
    }

    /// Ends all watching.
    pub(super) async fn close(self) {
        self.stop.cancel();
        self.mounts_stop.store(true, Ordering::Relaxed);
        self.tasks.close();
        self.tasks.wait().await;
        self.informers.shutdown().await;
    }
}

impl std::fmt::Debug for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts").finish_non_exhaustive()
    }
}

impl Drop for Facts {
    fn drop(&mut self) {
        self.stop.cancel();
        self.mounts_stop.store(true, Ordering::Relaxed);
    }
}

/// Rings the bell at each change of the mount table; the kernel reports that as an exceptional condition on the file.
fn watch_mounts(bell: Arc<Notify>, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    let table = std::fs::File::open("/proc/self/mountinfo").context("open /proc/self/mountinfo")?;
    std::thread::Builder::new()
        .name("mount-watch".into())
        .spawn(move || {
            use std::os::fd::AsFd as _;
            while !stop.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(
                    table.as_fd(),
                    PollFlags::POLLPRI | PollFlags::POLLERR,
                )];
                match poll(&mut fds, PollTimeout::from(MOUNT_POLL_MS)) {
                    Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                    Ok(_) => bell.notify_one(),
                    Err(error) => {
                        tracing::warn!(%error, "Can't watch the mount table");
                        return;
                    }
                }
            }
        })
        .context("start the mount table's watcher")?;
    Ok(())
}
