//! Puts the kubelet together, runs it, and takes it apart in order.

#[cfg(feature = "simulated")]
pub mod simulated;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use moorline_container_runtime::{ContainerRuntime, ImageService};
use moorline_runtime::{Informers, Queue, Recorder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::csi::drivers::Drivers;
use crate::node::lease;
use crate::node::object::{self, Machine};
use crate::node::status::NodeReporter;
use crate::objects::Objects;
use crate::paths::Layout;
use crate::plugins::registration::{ApiOf, Registrar, RegistrationError};
use crate::plugins::watch;
use crate::pods::manager::{self as pods, PodError, PodManager};
use crate::server;
use crate::volumes::csi_mount::CsiVolumes;
use crate::volumes::error::{VolumeError, blocking};
use crate::volumes::local::LocalVolumes;
use crate::volumes::manager::VolumeManager;
use crate::volumes::tokens::Tokens;
use crate::volumes::vol_data::make_directory;
use crate::volumes::{reconcile, reconstruct};
use crate::wiring;

/// Why a kubelet could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory below the root could not be made.
    #[error("make directory {}", .path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The HTTPS port can't be had.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The certificates can't be used.
    #[error("serving certificate: {0}")]
    Certificate(String),
    /// The Node could not be registered.
    #[error("register node {node_name}")]
    Node {
        /// Its name.
        node_name: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The CSINode could not be made.
    #[error("make CSINode: {0}")]
    CsiNode(String),
    /// What earlier kubelets left could not be read, or the pods not be looked at.
    #[error("{0}")]
    State(String),
    /// The registry directory can't be watched.
    #[error("watch plugin registry {}", .path.display())]
    PluginRegistry {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

impl From<VolumeError> for Error {
    fn from(error: VolumeError) -> Self {
        Self::State(error.to_string())
    }
}

impl From<PodError> for Error {
    fn from(error: PodError) -> Self {
        Self::State(error.to_string())
    }
}

impl From<RegistrationError> for Error {
    fn from(error: RegistrationError) -> Self {
        Self::CsiNode(error.to_string())
    }
}

/// Runs a kubelet until `stop` is cancelled. Containers and mounts stay; a later kubelet goes on with them.
///
/// # Errors
/// When it can't start; while running it retries what fails.
pub async fn run(
    config: Config,
    informers: Informers,
    runtime: Arc<dyn ContainerRuntime>,
    images: Arc<dyn ImageService>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let config = Arc::new(config);
    let layout = Layout::new(config.root_dir.clone(), config.log_dir.clone());
    make_directories(&config, &layout).await?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| Error::Listen {
            address: config.listen,
            source,
        })?;
    let listen = listener.local_addr().map_err(|source| Error::Listen {
        address: config.listen,
        source,
    })?;
    let tls =
        server::tls::acceptor(&config.serving).map_err(|error| Error::Certificate(error.to_string()))?;
    let given = Given {
        config: config.clone(),
        machine: Machine::read(&config.root_dir),
        informers,
        runtime,
        images,
    };
    let parts = Parts::new(given, listen, &stop).await?;
    let tasks = TaskTracker::new();
    let node = parts.register(&config).await?;
    parts.registrar.ensure_csi_node().await?;
    parts.report(node, &config, &tasks, &stop);
    let serving = server::Server::new(
        parts.pods.clone(),
        parts.volumes.clone(),
        parts.runtime.clone(),
        config.timings.volume_stats_max_age,
    );
    tasks.spawn(server::serve(listener, tls, serving, stop.clone()));
    // Mounts must come down also while the pods' workers drain, so volumes stop after them.
    let stop_volumes = CancellationToken::new();
    tasks.spawn(reconcile::run(parts.volumes.clone(), stop_volumes.clone()));
    let registry = parts.layout.plugins_registry();
    let watching = watch::run(registry.clone(), parts.registrar.clone(), stop.clone());
    let looking = parts.pods.clone().run();
    tracing::info!(node.name = config.node_name, %listen, "Kubelet is running");
    let (watched, looked) = tokio::join!(stop_on_error(watching, &stop), stop_on_error(looking, &stop));
    stop_volumes.cancel();
    tasks.close();
    tasks.wait().await;
    parts.recorder.flush().await;
    watched.map_err(|source| Error::PluginRegistry {
        path: registry,
        source,
    })?;
    looked?;
    Ok(())
}

/// A part that fails takes the others down in order.
async fn stop_on_error<T, E>(
    part: impl Future<Output = Result<T, E>>,
    stop: &CancellationToken,
) -> Result<T, E> {
    let result = part.await;
    if result.is_err() {
        stop.cancel();
    }
    result
}

async fn make_directories(config: &Config, layout: &Layout) -> Result<(), Error> {
    let paths = [
        layout.plugins_registry(),
        layout.root().join("plugins"),
        layout.csi(),
        layout.pods(),
        config.log_dir.clone(),
    ];
    blocking(move || paths.iter().try_for_each(|path| make_directory(path)))
        .await
        .map_err(Error::from)
}

/// What the kubelet is given.
struct Given {
    config: Arc<Config>,
    machine: Machine,
    informers: Informers,
    runtime: Arc<dyn ContainerRuntime>,
    images: Arc<dyn ImageService>,
}

/// The parts of a kubelet, connected but not running.
struct Parts {
    objects: Objects,
    layout: Layout,
    volumes: Arc<VolumeManager>,
    pods: Arc<PodManager>,
    registrar: Arc<Registrar>,
    reporter: Arc<NodeReporter>,
    runtime: Arc<dyn ContainerRuntime>,
    recorder: Recorder,
}

impl Parts {
    async fn new(given: Given, listen: SocketAddr, stop: &CancellationToken) -> Result<Self, Error> {
        let Given {
            config,
            machine,
            informers,
            runtime,
            images,
        } = given;
        let layout = Layout::new(config.root_dir.clone(), config.log_dir.clone());
        let objects = Objects::new(informers, &config.node_name);
        let client = objects.client().clone();
        let recorder = Recorder::new(client.clone(), "kubelet", &config.node_name, stop.clone());
        let reporter = Arc::new(NodeReporter {
            config: config.clone(),
            machine,
            listen,
        });
        let drivers = Arc::new(Drivers::default());
        let queue = pods::queue();
        let volumes = volumes(&reporter, &objects, &layout, &drivers, &recorder, queue.clone());
        let scanned = layout.clone();
        volumes.adopt(blocking(move || reconstruct::scan(&scanned)).await?);
        let pods = PodManager::new(pods::Parts {
            config: config.clone(),
            objects: objects.clone(),
            layout: layout.clone(),
            volumes: volumes.clone(),
            runtime: runtime.clone(),
            images,
            recorder: recorder.clone(),
            queue,
            stop: stop.clone(),
        });
        wiring::connect(&objects, &drivers, &volumes, &pods);
        let registrar = Arc::new(Registrar {
            client: ApiOf(client),
            node_name: config.node_name.clone(),
            drivers,
            csi_call_timeout: config.timings.csi_call_timeout,
            writing: tokio::sync::Mutex::new(()),
        });
        Ok(Self {
            objects,
            layout,
            volumes,
            pods,
            registrar,
            reporter,
            runtime,
            recorder,
        })
    }

    /// Makes the Node, or finds it.
    async fn register(&self, config: &Config) -> Result<Node, Error> {
        let registered = self.reporter.register(self.objects.client()).await;
        registered.map_err(|source| Error::Node {
            node_name: config.node_name.clone(),
            source: Box::new(source),
        })
    }

    /// From now on tells the API server that the node lives, and how it is.
    fn report(&self, node: Node, config: &Config, tasks: &TaskTracker, stop: &CancellationToken) {
        let (client, timings) = (self.objects.client().clone(), &config.timings);
        tasks.spawn(lease::run(
            client.clone(),
            node,
            timings.lease_renew_interval,
            timings.lease_duration,
            stop.clone(),
        ));
        let (reporter, hears, stop) = (self.reporter.clone(), self.volumes.clone(), stop.clone());
        let in_use = self.volumes.in_use();
        tasks.spawn(async move { reporter.run(client, in_use, hears, stop).await });
    }
}

pub(crate) fn volumes(
    reporter: &NodeReporter,
    objects: &Objects,
    layout: &Layout,
    drivers: &Arc<Drivers>,
    recorder: &Recorder,
    pods: Queue<String>,
) -> Arc<VolumeManager> {
    let config = &reporter.config;
    let tokens = Tokens::default();
    let csi = CsiVolumes {
        objects: objects.clone(),
        layout: layout.clone(),
        drivers: drivers.clone(),
        tokens: tokens.clone(),
        node_name: config.node_name.clone(),
    };
    let local = LocalVolumes {
        objects: objects.clone(),
        layout: layout.clone(),
        tokens,
        node_ip: config.node_ip,
        allocatable: object::resources(config, &reporter.machine),
    };
    let wake_pod = Arc::new(move |uid: &str| pods.add_unless_failing(uid.to_owned()));
    Arc::new(VolumeManager::new(
        csi,
        local,
        recorder.clone(),
        &config.timings,
        wake_pod,
    ))
}
