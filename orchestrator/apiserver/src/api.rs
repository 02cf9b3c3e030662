//! What all handlers share, and the settings they obey.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use moorline_schema::Registry;
use moorline_store::Store;
use tokio_util::sync::CancellationToken;

use crate::auth::authorize::Authorizer;
use crate::auth::token::Tokens;
use crate::cache::Caches;
use crate::customs::Customs;
use crate::hooks::Hooks;
use crate::loops::event_lease::EventLeases;
use crate::metrics::Metrics;
use crate::objects::quotas::Turns;
use crate::pki::{Names, Pki};
use crate::subresources::kubelet::KubeletClient;

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where its keys and certificates are.
    pub pki_dir: PathBuf,
    /// Names the cluster in the kubeconfig and in the authority's certificate.
    pub cluster_name: String,
    /// Further names and addresses under which server and local node are reached.
    pub names: Names,
    /// How long events are kept.
    pub event_ttl: Duration,
    /// How long old revisions can be read.
    pub compaction_interval: Duration,
    /// A request other than a watch or a log stream is given up after this.
    pub request_timeout: Duration,
    /// How long a stop waits for running requests.
    pub drain_timeout: Duration,
}

impl Config {
    /// Upstream's defaults, on a free local port.
    #[must_use]
    pub fn new(pki_dir: PathBuf) -> Self {
        Config {
            listen: SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0),
            pki_dir,
            cluster_name: "moorline".to_owned(),
            names: Names::default(),
            event_ttl: Duration::from_secs(3600),
            compaction_interval: Duration::from_secs(300),
            request_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// What all handlers share.
pub(crate) struct Api {
    pub(crate) registry: &'static Registry,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) caches: Arc<Caches>,
    pub(crate) customs: Customs,
    pub(crate) config: Config,
    /// The address it listens on.
    pub(crate) address: SocketAddr,
    pub(crate) pki: Pki,
    pub(crate) tokens: Tokens,
    pub(crate) authorizer: Authorizer,
    pub(crate) hooks: Hooks,
    pub(crate) event_leases: EventLeases,
    pub(crate) metrics: Metrics,
    pub(crate) kubelets: KubeletClient,
    /// Held while a service is given its addresses and ports, until it is stored.
    pub(crate) service_numbers: Arc<tokio::sync::Mutex<()>>,
    /// Whose turn it is to charge the quotas of a namespace.
    pub(crate) quota_turns: Turns,
    /// Ends all watches and log streams.
    pub(crate) watches_stop: CancellationToken,
    /// Everything is there, and no stop was asked for.
    pub(crate) is_ready: AtomicBool,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
