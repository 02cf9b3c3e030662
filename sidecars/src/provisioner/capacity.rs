//! Tells the scheduler how much room there is: one CSIStorageCapacity object for each pair of topology segment and
//! storage class, kept near what the driver's `GetCapacity` says.
//!
//! Keys are values (class and segment), so that many reasons to look again are one look.

mod object;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::storage::v1::{CSIStorageCapacity, StorageClass};
use kube::api::{Api, DeleteParams, PostParams};
use moorline_model::claim;
use moorline_proto::csi::{GetCapacityRequest, Topology};
use moorline_runtime::{Cache, Change, Informers, Outcome, Queue, run_workers};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::class_parameters::without_reserved;
use super::config::{CapacityConfig, ProvisionerConfig};
use super::segments::NodeTopology;
use super::topology::Segment;
use crate::api::{WriteError, code, merge_patch};
use crate::connection::call;
use crate::driver::Driver;
use crate::rpc_class::describe;
use object::{Producer, Room, Write, item_of, writes};

/// After a volume came or went: changes of one burst become one look.
const REFRESH_DELAY: Duration = Duration::from_secs(1);

/// What one object speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Item {
    pub(crate) class_name: String,
    pub(crate) segment: Segment,
}

/// Why an item is looked at again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CapacityError {
    #[error("GetCapacity: {0}")]
    Driver(String),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The producer for one driver.
pub(crate) struct CapacityProducer {
    driver: Driver,
    producer: Producer,
    config: CapacityConfig,
    timeout: Duration,
    objects: Api<CSIStorageCapacity>,
    client: kube::Client,
    cache: Cache<CSIStorageCapacity>,
    classes: Cache<StorageClass>,
    topology: Option<NodeTopology>,
    goal: Arc<Mutex<BTreeSet<Item>>>,
    goal_changed: Arc<Notify>,
    queue: Queue<Item>,
}

impl CapacityProducer {
    pub(crate) fn new(
        driver: Driver,
        config: (&ProvisionerConfig, CapacityConfig),
        informers: &Informers,
        topology: Option<NodeTopology>,
    ) -> Self {
        let (provisioner, config) = config;
        let client = informers.client().clone();
        Self {
            producer: Producer::new(&driver.facts.driver_name, provisioner.node_name.as_deref()),
            driver,
            timeout: provisioner.timeout,
            objects: Api::namespaced(client.clone(), &config.namespace),
            client,
            cache: informers.cache(),
            classes: informers.cache(),
            topology,
            goal: Arc::default(),
            goal_changed: Arc::new(Notify::new()),
            queue: Queue::new(provisioner.retry_interval),
            config,
        }
    }

    /// Produces until `stop`. The caller has waited for the caches of classes and nodes.
    pub(crate) async fn serve(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = self.cache.synced() => {}
        }
        self.feed(&stop);
        let producer = self.clone();
        let working = run_workers(self.queue.clone(), 1, stop.clone(), move |item| {
            let producer = producer.clone();
            async move { producer.reconcile(item).await }
        });
        let aiming = async {
            let mut topology_changes = self.topology.as_ref().map(NodeTopology::changes);
            loop {
                self.aim();
                let topology_changed = async {
                    match &mut topology_changes {
                        // Can't fail: the producer holds the sender.
                        Some(changes) => changes.changed().await.is_ok(),
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    _ = topology_changed => {}
                    () = self.goal_changed.notified() => {}
                }
            }
        };
        futures::future::join(working, aiming).await;
    }

    /// A volume of that class came, went, or found no room.
    pub(crate) fn refresh(&self, class_name: &str) {
        let goal = self.goal.lock();
        for item in goal.iter().filter(|item| item.class_name == class_name) {
            self.queue.add_after(item.clone(), REFRESH_DELAY);
        }
    }

    fn feed(&self, stop: &CancellationToken) {
        let goal_changed = self.goal_changed.clone();
        self.classes
            .on_change_until(stop.clone(), move |_| goal_changed.notify_one());
        let (queue, goal) = (self.queue.clone(), self.goal.clone());
        let producer = self.producer.clone();
        self.cache
            .on_change_until(stop.clone(), move |change| match change {
                // One that nobody wants (any more); the wanted ones are our own.
                Change::Added(object) => {
                    let item = item_of(object, &producer).filter(|item| !goal.lock().contains(item));
                    item.into_iter().for_each(|item| queue.add(item));
                }
                // One that somebody took away.
                Change::Removed(object) => {
                    item_of(object, &producer)
                        .into_iter()
                        .for_each(|item| queue.add(item));
                }
                // Our own updates; the poll sees those of others.
                Change::Updated { .. } => {}
            });
    }

    /// Computes what shall exist; has a look at all that is new or no longer wanted.
    fn aim(&self) {
        let segments: Vec<Segment> = match &self.topology {
            Some(topology) => topology.segments().all(),
            // No topology: everything is reachable from everywhere.
            None => vec![Segment::new()],
        };
        let classes = self.classes.list();
        let ours = classes.iter().filter(|class| self.is_ours(class));
        let wanted: BTreeSet<Item> = ours
            .flat_map(|class| {
                let class_name = class.metadata.name.clone().unwrap_or_default();
                segments.iter().map(move |segment| Item {
                    class_name: class_name.clone(),
                    segment: segment.clone(),
                })
            })
            .collect();
        let mut goal = self.goal.lock();
        goal.symmetric_difference(&wanted)
            .for_each(|item| self.queue.add(item.clone()));
        *goal = wanted;
    }

    fn is_ours(&self, class: &StorageClass) -> bool {
        class.provisioner == self.driver.facts.driver_name
            && (self.config.for_immediate_binding || claim::is_delayed(class))
    }

    async fn reconcile(&self, item: Item) -> Result<Outcome, CapacityError> {
        let is_wanted = self.goal.lock().contains(&item);
        let class = self.classes.get(None, &item.class_name).filter(|_| is_wanted);
        let producer = &self.producer;
        let existing: Vec<Arc<CSIStorageCapacity>> = self
            .cache
            .list()
            .into_iter()
            .filter(|object| item_of(object, producer).as_ref() == Some(&item))
            .collect();
        let room = match &class {
            Some(class) => Some(self.ask(class, &item.segment).await?),
            None => None,
        };
        for write in writes(&existing, room, &item, producer, self.config.owner.as_ref()) {
            self.write(write).await?;
        }
        Ok(match class {
            Some(_) => Outcome::After(self.config.poll_interval),
            None => Outcome::Settled,
        })
    }

    async fn ask(&self, class: &StorageClass, segment: &Segment) -> Result<Room, CapacityError> {
        let has_topology = self.driver.facts.has_topology();
        let segments = segment.clone().into_iter().collect();
        let request = GetCapacityRequest {
            parameters: without_reserved(class.parameters.as_ref()).into_iter().collect(),
            accessible_topology: has_topology.then_some(Topology { segments }),
            volume_capabilities: Vec::new(),
        };
        let mut controller = self.driver.connection.controller();
        let answer = call(self.timeout, request, |request| controller.get_capacity(request))
            .await
            .map_err(|status| CapacityError::Driver(describe(&status)))?;
        Ok(Room {
            capacity: answer.available_capacity,
            maximum_volume_size: answer.maximum_volume_size,
        })
    }

    async fn write(&self, write: Write) -> Result<(), CapacityError> {
        match write {
            Write::Create(object) => {
                let created = self.objects.create(&PostParams::default(), &object).await;
                self.cache
                    .observe(created.map_err(|error| WriteError::new("create storage capacity", error))?);
            }
            Write::Update { name, patch } => {
                let key = (Some(self.config.namespace.as_str()), name.as_str());
                let updated = merge_patch(&self.client, key, None, patch).await;
                self.cache
                    .observe(updated.map_err(|error| WriteError::new("update storage capacity", error))?);
            }
            Write::Delete { name } => match self.objects.delete(&name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(error) if code(&error) == Some(404) => {}
                Err(error) => return Err(WriteError::new("delete storage capacity", error).into()),
            },
        }
        Ok(())
    }
}
