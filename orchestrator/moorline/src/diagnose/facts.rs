//! What the deciders rest on, read once from the API server.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{Event, Pod},
        storage::v1::VolumeAttributesClass,
    },
};
use kube::{Api, Client, Resource, api::ListParams};
use moorline_model::group_snapshot::VolumeGroupSnapshot;
use moorline_model::snapshot::{VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};
use moorline_runtime::Cache;
use moorline_scheduler::snapshot::Objects;
use serde::de::DeserializeOwned;

/// Objects of one page of a list.
const PAGE: u32 = 500;
/// The namespace that events about objects without one are in.
const CLUSTER_EVENTS: &str = "default";

/// Everything that was read. A kind that the cluster doesn't serve has no objects.
#[derive(Debug)]
pub(super) struct Facts {
    /// What the scheduler looks at.
    pub objects: Objects,
    /// Pods.
    pub pods: Cache<Pod>,
    /// VolumeAttributesClasses.
    pub attributes_classes: Cache<VolumeAttributesClass>,
    /// VolumeSnapshots.
    pub snapshots: Cache<VolumeSnapshot>,
    /// Their contents.
    pub contents: Cache<VolumeSnapshotContent>,
    /// Their classes.
    pub snapshot_classes: Cache<VolumeSnapshotClass>,
    /// VolumeGroupSnapshots.
    pub groups: Cache<VolumeGroupSnapshot>,
    /// Events.
    pub events: Vec<Event>,
    /// Kinds that could not be read.
    pub unread: Vec<Unread>,
    /// Kinds that were read in the one namespace only.
    pub partial: Vec<String>,
    /// When this was read.
    pub now: Timestamp,
}

/// A kind that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unread {
    /// Its name in the API, such as `persistentvolumes`.
    pub kind: String,
    /// Why; `None`: who asks may not read it.
    pub why: Option<String>,
}

/// What came of reading one kind.
enum Outcome {
    Whole,
    /// The one namespace only.
    Partial(String),
    Failed(Unread),
}

impl Facts {
    /// Nothing.
    pub(super) fn none(now: Timestamp) -> Self {
        Self {
            objects: Objects::detached(),
            pods: Cache::detached(),
            attributes_classes: Cache::detached(),
            snapshots: Cache::detached(),
            contents: Cache::detached(),
            snapshot_classes: Cache::detached(),
            groups: Cache::detached(),
            events: Vec::new(),
            unread: Vec::new(),
            partial: Vec::new(),
            now,
        }
    }

    /// Reads all kinds at once. What may not be read in the whole cluster is read in the namespace.
    pub(super) async fn read(client: &Client, namespace: &str, now: Timestamp) -> Self {
        let mut facts = Self::none(now);
        let objects = &facts.objects;
        let events = events(client, namespace);
        let (events, outcomes) = futures::join!(events, async {
            let volumes = futures::join!(
                fill(client, &objects.pvs),
                fill(client, &objects.classes),
                fill(client, &objects.attachments),
                fill(client, &objects.csi_drivers),
                fill(client, &objects.csi_nodes),
                fill(client, &objects.capacities),
                fill(client, &objects.nodes),
                fill(client, &facts.attributes_classes),
            );
            let others = futures::join!(
                fill(client, &facts.contents),
                fill(client, &facts.snapshot_classes),
                fill_in(client, namespace, &objects.claims),
                fill_in(client, namespace, &facts.pods),
                fill_in(client, namespace, &facts.snapshots),
                fill_in(client, namespace, &facts.groups),
            );
            [
                volumes.0, volumes.1, volumes.2, volumes.3, volumes.4, volumes.5, volumes.6, volumes.7,
                others.0, others.1, others.2, others.3, others.4, others.5,
            ]
        });
        for outcome in outcomes {
            match outcome {
                Outcome::Whole => {}
                Outcome::Partial(kind) => facts.partial.push(kind),
                Outcome::Failed(unread) => facts.unread.push(unread),
            }
        }
        match events {
            Ok(events) => facts.events = events,
            Err(error) => facts.unread.push(unread::<Event>(&error)),
        }
        facts
    }

    /// Whether not everything of a kind is known. `persistentvolumeclaims`: in the namespace; `persistentvolumeclaims/*`:
    /// anywhere.
    pub(super) fn is_unread(&self, kind: &str) -> bool {
        let (plain, is_everywhere) = match kind.strip_suffix("/*") {
            Some(plain) => (plain, true),
            None => (kind, false),
        };
        self.unread.iter().any(|unread| unread.kind == plain)
            || (is_everywhere && self.partial.iter().any(|partial| partial == plain))
    }

    /// What could not be read, in few lines.
    pub(super) fn unread_lines(&self) -> Vec<String> {
        let forbidden: Vec<&str> = self
            .unread
            .iter()
            .filter(|unread| unread.why.is_none())
            .map(|unread| unread.kind.as_str())
            .collect();
        let others = self.unread.iter().filter_map(|unread| {
            let why = unread.why.as_ref()?;
            Some(format!("{}: {why}", unread.kind))
        });
        let mut lines: Vec<String> = others.collect();
        if !forbidden.is_empty() {
            lines.push(format!("you may not list {}", forbidden.join(", ")));
        }
        lines
    }

    /// The latest of all events about an object.
    pub(super) fn last_told(&self, uid: Option<&str>) -> Option<&Event> {
        let uid = uid?;
        let about = self
            .events
            .iter()
            .filter(|event| event.involved_object.uid.as_deref() == Some(uid));
        about.max_by_key(|event| last_seen(event))
    }

    /// The latest event about an object with this reason. `is_teller` judges the component that wrote it.
    pub(super) fn event(
        &self,
        uid: Option<&str>,
        reason: &str,
        is_teller: impl Fn(&str) -> bool,
    ) -> Option<&Event> {
        let uid = uid?;
        self.events
            .iter()
            .filter(|event| event.involved_object.uid.as_deref() == Some(uid))
            .filter(|event| event.reason.as_deref() == Some(reason) && is_teller(component(event)))
            .max_by_key(|event| last_seen(event))
    }

    /// When an object was first told this.
    pub(super) fn told_since(&self, uid: Option<&str>, reason: &str) -> Option<Timestamp> {
        first_seen(self.event(uid, reason, |_| true)?)
    }
}

/// The part that wrote an event.
fn component(event: &Event) -> &str {
    let source = event.source.as_ref();
    source
        .and_then(|source| source.component.as_deref())
        .filter(|component| !component.is_empty())
        .or(event.reporting_component.as_deref())
        .unwrap_or_default()
}

/// When an event was written last.
fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event
        .series
        .as_ref()
        .and_then(|series| series.last_observed_time.as_ref());
    let times = [
        series.map(|time| time.0),
        event.last_timestamp.as_ref().map(|time| time.0),
        event.event_time.as_ref().map(|time| time.0),
        event.first_timestamp.as_ref().map(|time| time.0),
    ];
    times.into_iter().flatten().max()
}

/// When an event was written first.
pub(super) fn first_seen(event: &Event) -> Option<Timestamp> {
    let first = event.first_timestamp.as_ref().map(|time| time.0);
    first.or_else(|| event.event_time.as_ref().map(|time| time.0))
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

fn is_not_served(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// The error in one line: the API server's own words, or the causes of there being none.
pub(super) fn say(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => with_causes(other),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

fn unread<K: Resource<DynamicType = ()>>(error: &kube::Error) -> Unread {
    Unread {
        kind: K::plural(&()).into_owned(),
        why: (!is_forbidden(error)).then(|| say(error)),
    }
}

/// All objects of an API; none where the cluster doesn't serve the kind.
async fn list<K>(api: Api<K>) -> Result<Vec<K>, kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let mut items = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = match api.list(&params).await {
            Ok(page) => page,
            Err(error) if is_not_served(&error) => return Ok(items),
            Err(error) => return Err(error),
        };
        items.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(items),
        }
    }
}

fn keep<K>(cache: &Cache<K>, listed: Result<Vec<K>, kube::Error>) -> Outcome
where
    K: Resource<DynamicType = ()>,
{
    match listed {
        Ok(items) => {
            items.into_iter().for_each(|item| cache.observe(item));
            Outcome::Whole
        }
        Err(error) => Outcome::Failed(unread::<K>(&error)),
    }
}

/// Reads a kind without namespaces.
async fn fill<K>(client: &Client, cache: &Cache<K>) -> Outcome
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    keep(cache, list(Api::all(client.clone())).await)
}

/// Reads a kind in all namespaces, or in the one.
async fn fill_in<K>(client: &Client, namespace: &str, cache: &Cache<K>) -> Outcome
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    match list(Api::all(client.clone())).await {
        Err(error) if is_forbidden(&error) => {
            match keep(cache, list(Api::namespaced(client.clone(), namespace)).await) {
                Outcome::Whole => Outcome::Partial(K::plural(&()).into_owned()),
                failed => failed,
            }
        }
        other => keep(cache, other),
    }
}

/// Events about the namespace's objects, and about objects without a namespace where they may be read.
async fn events(client: &Client, namespace: &str) -> Result<Vec<Event>, kube::Error> {
    let mut events = list(Api::namespaced(client.clone(), namespace)).await?;
    if namespace != CLUSTER_EVENTS {
        match list(Api::namespaced(client.clone(), CLUSTER_EVENTS)).await {
            Ok(more) => events.extend(more),
            // A user of one namespace doesn't see them, and hardly misses them.
            Err(error) if is_forbidden(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(events)
}
