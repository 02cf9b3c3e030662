//! The parts of a cluster, wired together in one process.
//!
//! ```text
//! store <- API server <- kube::Client <- informers <- controllers, scheduler, kubelet, sidecars
//!                                                      sidecars, kubelet -> csi.sock <- driver
//!                                                      registrar -> plugins_registry <- kubelet
//! ```
//!
//! Parts are started from left to right and stopped from right to left, so that no part loses what it stands on.
//! Killed instead of stopped, the next start reads the same state directory and goes on.

use std::{
    collections::BTreeMap,
    fmt::Display,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use k8s_openapi::api::{core::v1::Node, storage::v1::CSINode};
use moorline_apiserver::ApiServer;
use moorline_container_runtime::{EmbeddedConfig, EmbeddedRuntime};
use moorline_kubelet as kubelet;
use moorline_mount::durable;
use moorline_runtime::Informers;
use moorline_store::{EmbeddedOptions, EmbeddedStore, Store};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    args::DriverBackend,
    defaults, driver, image_socket,
    state_dir::{StateDir, StateLock},
};

/// Everything listens on loopback: one machine is the whole cluster.
const NODE_IP: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Upstream's default is 110; here a pod costs a shim of a few MiB at the most.
const MAX_PODS: u32 = 500;

/// What a cluster consists of; checked values.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Where everything is kept.
    pub state: StateDir,
    /// Address of the Kubernetes API.
    pub listen: SocketAddr,
    /// Name of this node.
    pub node_name: String,
    /// The reference driver and its sidecars, if wanted.
    pub driver: Option<DriverBackend>,
    /// Whether this machine is a node.
    pub kubelet: bool,
    /// Whether the volume controllers run in this process.
    pub controllers: bool,
    /// Whether pods may use the machine's own root as an image.
    pub host_image: bool,
    /// Whether the snapshot kinds, and the driver's snapshot classes, are made.
    pub snapshots: bool,
    /// How long older states of objects can be read.
    pub compaction_interval: Duration,
}

/// A running cluster. Dropped without [`Cluster::shutdown`], it ends as with `kill -9`.
pub struct Cluster {
    config: ClusterConfig,
    server: ApiServer,
    store: Arc<dyn Store>,
    informers: Informers,
    informers_stop: CancellationToken,
    parts: Parts,
    plugins: Parts,
    server_stop: CancellationToken,
    failures: tokio::sync::Mutex<mpsc::Receiver<anyhow::Error>>,
    _lock: StateLock,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Parts that are stopped together.
#[derive(Debug)]
struct Parts {
    stop: CancellationToken,
    tasks: TaskTracker,
    failures: mpsc::Sender<anyhow::Error>,
}

impl Parts {
    fn new(failures: mpsc::Sender<anyhow::Error>) -> Self {
        Self {
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            failures,
        }
    }

    /// Runs a part until it ends. Ending before it was asked to is a failure of the cluster.
    fn start<E: Display + Send>(
        &self,
        name: &'static str,
        part: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (stop, failures) = (self.stop.clone(), self.failures.clone());
        self.tasks.spawn(async move {
            let failure = match Box::pin(part).await {
                Ok(()) if stop.is_cancelled() => return,
                Ok(()) => anyhow!("{name} ended by itself"),
                Err(error) => anyhow!("{name}: {error:#}"),
            };
            tracing::error!(part = name, error = %failure, "A part of the cluster failed");
            // The first failure decides; with the channel full or closed somebody has heard one already.
            failures.try_send(failure).ok();
        });
    }

    async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Cluster {
    /// Takes the state directory and starts every part. Returns as soon as the API answers; see [`Cluster::ready`].
    ///
    /// # Errors
    /// When the state directory is held by another process or damaged, or an address is taken.
    pub async fn start(config: ClusterConfig) -> anyhow::Result<Self> {
        let lock = config.state.lock()?;
        let store = open_store(&config.state.store_file()).await?;
        let server_stop = CancellationToken::new();
        let server_config = server_config(&config);
        let server = ApiServer::start(server_config, Arc::clone(&store), server_stop.clone())
            .await
            .with_context(|| format!("start the API server on {}", config.listen))?;
        write_kubeconfig(&config.state.kubeconfig(), &server.admin_kubeconfig()).await?;
        let informers_stop = CancellationToken::new();
        let client = server.client("system:moorline", &["system:masters"]);
        let informers = Informers::new(client, informers_stop.clone());
        let (sender, failures) = mpsc::channel(1);
        let cluster = Self {
            config,
            server,
            store,
            informers,
            informers_stop,
            parts: Parts::new(sender.clone()),
            plugins: Parts::new(sender),
            server_stop,
            failures: tokio::sync::Mutex::new(failures),
            _lock: lock,
        };
        cluster.start_parts().await?;
        Ok(cluster)
    }

    async fn start_parts(&self) -> anyhow::Result<()> {
        let stop = &self.parts.stop;
        if self.config.snapshots {
            defaults::ensure_snapshot_kinds(self.informers.client()).await?;
        }
        if let Some(backend) = self.config.driver {
            defaults::ensure(self.informers.client()).await?;
            driver::start(
                &self.config,
                backend,
                |name, part| self.plugins.start(name, part),
                &self.plugins.stop,
            )?;
            let sidecars = driver::sidecars(self.config.clone(), self.informers.clone(), stop.clone());
            let has_class = self.config.snapshots;
            let (client, class_stop) = (self.informers.client().clone(), stop.clone());
            self.parts.start("the sidecars", async move {
                let class = async {
                    match has_class {
                        true => defaults::ensure_snapshot_classes(&client, &class_stop).await,
                        false => Ok(()),
                    }
                };
                let sidecars = async { sidecars.await.map_err(anyhow::Error::from) };
                Box::pin(futures::future::try_join(sidecars, class))
                    .await
                    .map(|_| ())
            });
        }
        if self.config.controllers {
            let controllers = moorline_volume_controllers::Config::default();
            self.parts.start(
                "the volume controllers",
                moorline_volume_controllers::run(controllers, self.informers.clone(), stop.clone()),
            );
        }
        let scheduler = moorline_scheduler::Config::default();
        self.parts.start(
            "the scheduler",
            moorline_scheduler::run(scheduler, self.informers.clone(), stop.clone()),
        );
        if self.config.kubelet {
            let runtime = open_runtime(&self.config.state, self.config.host_image).await?;
            let (config, informers, stop) = (self.kubelet_config(), self.informers.clone(), stop.clone());
            let images =
                image_socket::serve(self.config.state.clone(), Arc::new(runtime.clone()), stop.clone());
            self.parts.start("the image socket", async move {
                images.await.map_err(|error| format!("{error:#}"))
            });
            self.parts.start("the kubelet", async move {
                let (containers, images) = (Arc::new(runtime.clone()), Arc::new(runtime.clone()));
                let ended = Box::pin(kubelet::run(config, informers, containers, images, stop)).await;
                runtime.close().await;
                ended
            });
        }
        Ok(())
    }

    fn kubelet_config(&self) -> kubelet::Config {
        let pki = self.server.pki();
        let serving = pki.kubelet_serving();
        kubelet::Config {
            node_name: self.config.node_name.clone(),
            root_dir: self.config.state.kubelet(),
            log_dir: self.config.state.pod_logs(),
            // A free port: the node's status tells the API server which.
            listen: (NODE_IP, 0).into(),
            serving: kubelet::ServingIdentity {
                certificate_pem: serving.certificate_pem.clone(),
                key_pem: serving.key_pem.clone(),
                client_ca_pem: pki.ca_pem().to_owned(),
            },
            node_ip: NODE_IP.into(),
            labels: BTreeMap::new(),
            max_pods: MAX_PODS,
            version: format!("v1.36.0+moorline-{}", env!("CARGO_PKG_VERSION")),
            timings: kubelet::Timings::default(),
        }
    }

    /// Waits until the node is ready and the driver is registered with it.
    ///
    /// # Errors
    /// After `limit`, with what is missing; at once when a part failed.
    pub async fn ready(&self, limit: Duration) -> anyhow::Result<()> {
        if !self.config.kubelet {
            return Ok(());
        }
        let bell = Arc::new(Notify::new());
        let nodes = self.informers.cache::<Node>();
        let csi_nodes = self.informers.cache::<CSINode>();
        let ring = Arc::clone(&bell);
        nodes.on_change(move |_| ring.notify_one());
        let ring = Arc::clone(&bell);
        csi_nodes.on_change(move |_| ring.notify_one());
        let deadline = Instant::now() + limit;
        loop {
            let name = &self.config.node_name;
            let missing = if !nodes.get(None, name).is_some_and(|node| node_is_ready(&node)) {
                format!("node {name} is not Ready")
            } else if self.config.driver.is_some()
                && !csi_nodes.get(None, name).is_some_and(|node| has_driver(&node))
            {
                format!("driver {} is not registered on node {name}", driver::NAME)
            } else {
                return Ok(());
            };
            tokio::select! {
                rung = timeout_at(deadline, bell.notified()) => {
                    if rung.is_err() {
                        bail!("waited {limit:?} for the cluster to get ready: {missing}");
                    }
                }
                failed = self.failed() => failed?,
            }
        }
    }

    /// Waits until a part fails, and says which and why.
    pub async fn failed(&self) -> anyhow::Result<()> {
        match self.failures.lock().await.recv().await {
            Some(failure) => Err(failure),
            // The senders live as long as this value.
            None => Ok(()),
        }
    }

    /// Where the Kubernetes API listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Where the admin's kubeconfig was written.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.config.state.kubeconfig()
    }

    /// The admin's kubeconfig.
    pub fn admin_kubeconfig(&self) -> String {
        self.server.admin_kubeconfig()
    }

    /// Stops every part in order and closes the store. Pods go on running; the next start finds them.
    ///
    /// # Errors
    /// When running work did not finish within `grace`.
    pub async fn shutdown(self, grace: Duration) -> anyhow::Result<()> {
        let drain = async {
            self.parts.stop().await;
            self.plugins.stop().await;
            self.informers_stop.cancel();
            self.informers.shutdown().await;
            self.server_stop.cancel();
            self.server.stopped().await;
            self.store.close().await.context("close the store")
        };
        match timeout(grace, drain).await {
            Ok(closed) => closed,
            Err(_) => bail!(
                "not everything finished within {grace:?}: {} control loops and {} plugin tasks were left; the next start goes \
                 on from what is on disk",
                self.parts.tasks.len(),
                self.plugins.tasks.len()
            ),
        }
    }
}

fn node_is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn has_driver(node: &CSINode) -> bool {
    node.spec.drivers.iter().any(|entry| entry.name == driver::NAME)
}

async fn open_store(path: &Path) -> anyhow::Result<Arc<dyn Store>> {
    let owned = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&owned, EmbeddedOptions::default()));
    let store = opened
        .await
        .context("open the store")?
        .with_context(|| format!("open the store {}", path.display()))?;
    Ok(Arc::new(store))
}

fn server_config(config: &ClusterConfig) -> moorline_apiserver::Config {
    let mut server = moorline_apiserver::Config::new(config.state.pki());
    server.listen = config.listen;
    server.names.server_addresses = vec![config.listen.ip()];
    server.names.node_name = Some(config.node_name.clone());
    server.names.node_addresses = vec![NODE_IP.into()];
    server.compaction_interval = config.compaction_interval;
    server
}

/// Opens the embedded container runtime of a state directory.
///
/// # Errors
/// When its directory can't be used, or the machine lacks what containers need.
pub async fn open_runtime(state: &StateDir, host_image: bool) -> anyhow::Result<EmbeddedRuntime> {
    let mut config = EmbeddedConfig::new(state.containers());
    config.host_image = host_image;
    // Pods that see the machine's files must not see other pods' volumes and the cluster's keys.
    config.host_image_hidden = vec![state.root().to_owned()];
    EmbeddedRuntime::open(config)
        .await
        .context("open the container runtime")
}

async fn write_kubeconfig(path: &Path, text: &str) -> anyhow::Result<()> {
    let (owned, text) = (path.to_owned(), text.to_owned());
    let written = tokio::task::spawn_blocking(move || durable::write(&owned, text.as_bytes()));
    written
        .await
        .context("write the kubeconfig")?
        .with_context(|| format!("write {}", path.display()))
}
