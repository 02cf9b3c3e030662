//! The reference CSI driver: node-local volumes over interchangeable backends.
//!
//! A pool directory holds one directory per volume with its durable record and its data. The `dir` backend keeps the
//! data as a plain directory: capacity is accounted, not enforced. The `loop` backend keeps it in a sparse file that
//! becomes a loop device, with ext4 or xfs on it or as a raw block device: capacity is enforced by the device's size.
//!
//! | module | for |
//! | --- | --- |
//! | [`config`] | flags and what they mean |
//! | `record` | the durable record of a volume: format, checksum |
//! | `pool` | the pool on disk: made, removed and recovered so that a crash leaves nothing half-made |
//! | `catalog` | the pool in memory: who exists, what is reserved |
//! | `fit` | which capabilities a volume can serve |
//! | `requested` | same volume or another one, and which size |
//! | `class` | the parameters of a StorageClass |
//! | `room` | how much more a pool can promise |
//! | `pools` | all pools, and which of them has a volume |
//! | `backend` | the trait, `dir`, `loop` and `btrfs` |
//! | `cutting` | taking the content of volumes that may be in use |
//! | `blocks` | which blocks of a snapshot hold data, and which have changed |
//! | `recovery` | what a start does with what it finds |
//! | [`check`] | what is wrong in the pools, and putting it right |
//! | `copying` | following, counting and ending long copies |
//! | [`failpoint`] | where tests kill the process |
//! | `lease`, `leases` | which node may use a volume, where several share the pools |
//! | `nodes` | the nodes that share a pool |
//! | `reach` | from where volumes can be reached |
//! | `settings` | parameters that may change while a volume is used |
//! | `controller`, `node` | the CSI calls |
//!
//! What is mounted where is asked of the kernel each time. Nothing of importance lives only in memory.

#![forbid(unsafe_code)]

mod backend;
mod blocking;
mod blocks;
mod catalog;
pub mod check;
mod class;
pub mod config;
mod controller;
mod copying;
mod cutting;
pub mod failpoint;
mod fit;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod ids;
mod lease;
mod leases;
mod node;
mod nodes;
mod pool;
mod pools;
mod reach;
mod record;
mod recovery;
mod requested;
mod room;
mod settings;

use std::sync::Arc;

pub use config::{Args, BackendKind, Config, ConfigError, PoolArgs, PoolConfig, Services};
use moorline_driver_sdk::{
    Driver, DriverError, DriverInfo, ServedElsewhere,
    cli::{ServingError, Starting},
    driver::DriverBuilder,
    request::Topology,
    traits::ExpansionTime,
};
pub use pool::PoolError;
use prometheus_client::registry::Registry;
pub use room::Overcommit;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::{
    blocking::Blocking,
    catalog::Catalog,
    controller::{LocalController, Member},
    copying::CopiedBytes,
    node::{Follower, Identity, LocalNode, OpenError},
    nodes::NodeRecord,
    pools::{Opener, Pools},
    reach::Reach,
    record::{GroupRecord, Record, SnapshotRecord},
    room::Limits,
};

/// The driver's name, unless another one is configured.
pub const DRIVER_NAME: &str = "local.csi.moorline.dev";

/// What a node process says of the controller process; the same as that one says itself.
const OF_CONTROLLER: ServedElsewhere = ServedElsewhere {
    controller: true,
    expansion: Some(ExpansionTime::Online),
    group_controller: true,
    snapshot_metadata: true,
};

/// Why the driver ended.
#[derive(Debug, Error)]
pub enum Error {
    /// The pool directory can't be used.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The pool could not be opened because the process is out of threads or stopping.
    #[error("open the pool")]
    Open(#[source] DriverError),
    /// The target root can't be opened.
    #[error("open the target root")]
    TargetRoot(#[source] moorline_mount::MountError),
    /// The driver was not served to its end.
    #[error(transparent)]
    Serving(#[from] ServingError),
}

impl From<Error> for ServingError {
    fn from(error: Error) -> Self {
        match error {
            Error::Serving(error) => error,
            error @ (Error::Pool(_) | Error::Open(_) | Error::TargetRoot(_)) => {
                ServingError::Start(error.into())
            }
        }
    }
}

/// The topology key under which this driver names a node: `topology.<driver name>/node`.
pub fn topology_key(driver_name: &str) -> String {
    format!("topology.{driver_name}/node")
}

/// The topology key under which this driver names a pool that several nodes share: `pool.<driver name>/<pool>`. The value
/// is the pool's id.
pub fn pool_topology_key(driver_name: &str, pool: &str) -> String {
    format!("pool.{driver_name}/{pool}")
}

/// Serves the driver until `stop`: recovers the pool, listens, and at the end waits for what is running. Metrics, if they
/// are wanted, can be asked for from the beginning.
///
/// # Errors
/// When the pool, the endpoint or the transport can't be used.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    let mut registry = Registry::default();
    let copied = CopiedBytes::register(&mut registry, &config.driver_name);
    let serving = config.serving.clone();
    let starting = Starting::new(&config.driver_name, serving, registry, stop.clone()).await?;
    let blocking = Blocking::new();
    let reach = reach(&config);
    let info = DriverInfo::new(config.driver_name.clone(), env!("CARGO_PKG_VERSION"));
    let mut builder = Driver::builder(info).topology().single_node_modes();

    let has_controller = config.services.has_controller();
    let opener = opener(&config);
    let (pools, is_attachable) = (config.pools.clone(), config.is_attachable);
    let opened = blocking.run("open the pools", move || {
        let pools = Pools::open(&pools, opener)?;
        if !is_attachable {
            pools.iter().try_for_each(|pool| leases::refuse_leased(pool))?;
        }
        Ok::<_, PoolError>(Arc::new(pools))
    });
    let pools = opened.await.map_err(Error::Open)??;
    let (mut controller, resting) = (None, Arc::clone(&pools));
    if has_controller {
        let members = recover(&config, &pools, &blocking).await?;
        let (reach, threads) = (reach.clone(), blocking.clone());
        let open = move || LocalController::new(members, threads, reach, stop, copied);
        let opened = blocking.run("open the controller", open).await;
        let opened = Arc::new(opened.and_then(|opened| opened).map_err(Error::Open)?);
        builder = with_controller(builder, Arc::clone(&opened), config.is_attachable);
        controller = Some(opened);
    } else {
        builder = builder.elsewhere(OF_CONTROLLER);
    }
    let follower = Arc::new(Follower::new(Arc::clone(&pools), has_controller));
    if config.services.has_node() {
        let node = open_node(&config, reach, pools, Arc::clone(&follower), &blocking).await?;
        builder = with_node(builder, Arc::new(node));
    }
    let closing = blocking.clone();
    let serving = starting.serve(builder);
    let following = async {
        if config.services.has_node() {
            follower.run(blocking).await;
        }
        std::future::pending().await
    };
    let grace_period = config.serving.grace_period;
    tokio::select! {
        served = serving => served?,
        // Never ends; what it does can be left off anywhere and is done again by the next start.
        () = following => {}
    }
    if let Some(controller) = controller
        && tokio::time::timeout(grace_period, controller.all_have_left())
            .await
            .is_err()
    {
        tracing::warn!("Data of deleted volumes is left over; the next start removes it");
    }
    let rest = move || resting.iter().try_for_each(|pool| pool.rest());
    if let Err(error) = closing
        .run("close the pools", rest)
        .await
        .and_then(|rested| Ok(rested?))
    {
        tracing::warn!(
            error = error.full_message(),
            "The pools' journals are left to the next start"
        );
    }
    Ok(())
}

fn opener(config: &Config) -> Opener {
    match (config.services.has_controller(), config.services.has_node()) {
        (false, _) => Opener::Node,
        (true, true) if !config.is_attachable => Opener::Alone,
        (true, _) => Opener::Controller,
    }
}

fn reach(config: &Config) -> Reach {
    if config.is_attachable {
        return Reach::Pools {
            driver_name: config.driver_name.clone(),
        };
    }
    let key = topology_key(&config.driver_name);
    Reach::Node(Topology::one(key, config.node_id.clone()))
}

async fn open_node(
    config: &Config,
    reach: Reach,
    pools: Arc<Pools>,
    follower: Arc<Follower>,
    blocking: &Blocking,
) -> Result<LocalNode, Error> {
    let node = NodeRecord {
        node_id: config.node_id.clone(),
        max_volumes: config.max_volumes,
    };
    let (root, threads) = (config.target_root.clone(), blocking.clone());
    let identity = Identity { node, reach };
    let open = move || LocalNode::open(pools, &root, threads, identity, follower);
    match blocking.run("open the node", open).await.map_err(Error::Open)? {
        Ok(node) => Ok(node),
        Err(OpenError::TargetRoot(error)) => Err(Error::TargetRoot(error)),
        Err(OpenError::Pool(error)) => Err(Error::Pool(error)),
    }
}

/// Brings the pools in order and reads them.
async fn recover(
    config: &Config,
    pools: &Arc<Pools>,
    blocking: &Blocking,
) -> Result<Vec<Arc<Member>>, Error> {
    let scanned = Arc::clone(pools);
    let found = blocking
        .run("recover the pools", move || recovery::recover(&scanned))
        .await
        .map_err(Error::Open)??;
    let mut members = Vec::new();
    for ((pool, settings), found) in pools.iter().zip(&config.pools).zip(found) {
        let limits = Limits {
            capacity_bytes: settings.capacity_limit_bytes,
            overcommit: settings.overcommit,
        };
        let catalog = Catalog::new(limits, found);
        let damaged = catalog.damaged_count::<Record>()
            + catalog.damaged_count::<SnapshotRecord>()
            + catalog.damaged_count::<GroupRecord>();
        tracing::info!(
            pool = pool.name(),
            directory = %pool.root().display(),
            volumes = catalog.count::<Record>(),
            snapshots = catalog.count::<SnapshotRecord>(),
            damaged,
            promised_bytes = catalog.promised().total_bytes(),
            "Pool is open"
        );
        members.push(Arc::new(Member::new(Arc::clone(pool), catalog)));
    }
    Ok(members)
}

fn with_controller(
    builder: DriverBuilder,
    controller: Arc<LocalController>,
    is_attachable: bool,
) -> DriverBuilder {
    let builder = builder.volumes(Arc::clone(&controller) as _, |mut groups| {
        if is_attachable {
            groups = groups.attachment(Arc::clone(&controller) as _);
        }
        groups
            .capacity(Arc::clone(&controller) as _)
            .listing(Arc::clone(&controller) as _)
            .lookup(Arc::clone(&controller) as _)
            .expansion(Arc::clone(&controller) as _)
            .modification(Arc::clone(&controller) as _)
            .snapshots(Arc::clone(&controller) as _)
            .snapshot_listing(Arc::clone(&controller) as _)
            .snapshot_lookup(Arc::clone(&controller) as _)
            .done();
    });
    builder
        .group_snapshots(Arc::clone(&controller) as _)
        .snapshot_metadata(controller)
}

fn with_node(builder: DriverBuilder, node: Arc<LocalNode>) -> DriverBuilder {
    builder.node(Arc::clone(&node) as _, |groups| {
        groups
            .staging(Arc::clone(&node) as _)
            .stats(Arc::clone(&node) as _)
            .node_expansion(node)
            .done();
    })
}
