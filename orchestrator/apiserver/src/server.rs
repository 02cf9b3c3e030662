//! Starting and stopping.
//!
//! ```text
//! start: keys -> caches -> listener bound -> first objects -> loops, listener -> ready
//! stop:  not ready -> loops and watches end -> running requests end -> caches end
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::USER_AGENT;
use http::{HeaderValue, Request};
use jiff::Timestamp;
use moorline_schema::Registry;
use moorline_store::{Store, StoreError};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{Api, Config};
use crate::auth::User;
use crate::auth::authorize::Authorizer;
use crate::auth::token::{TokenKeyError, Tokens};
use crate::cache::{Caches, feed};
use crate::customs::Customs;
use crate::hooks::Hooks;
use crate::http::listener;
use crate::loops::event_lease::EventLeases;
use crate::loops::{self, Caller, bootstrap};
use crate::metrics::Metrics;
use crate::objects::quotas::Turns;
use crate::pki::{Pki, PkiError};
use crate::service::ApiService;
use crate::subresources::kubelet::KubeletClient;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There are no usable keys and certificates.
    #[error("prepare keys and certificates")]
    Pki(#[from] PkiError),
    /// The key for tokens is none.
    #[error("prepare tokens")]
    Tokens(#[from] TokenKeyError),
    /// The store cannot be read.
    #[error("read the store")]
    Store(#[from] StoreError),
    /// The address is taken or not allowed.
    #[error("listen on {address}")]
    Listen {
        /// Where it should listen.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The objects every cluster has cannot be made.
    #[error("make the first objects: {0}")]
    Bootstrap(String),
}

/// A running server. It runs until the token given to [`ApiServer::start`] is cancelled.
#[derive(Debug)]
pub struct ApiServer {
    api: Arc<Api>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl ApiServer {
    /// Starts a server on a store and returns when it is ready.
    ///
    /// # Errors
    /// See [`StartError`]; all of them are final, and nothing is left running.
    pub async fn start(
        config: Config,
        store: Arc<dyn Store>,
        stop: CancellationToken,
    ) -> Result<ApiServer, StartError> {
        let pki = Pki::open(
            &config.pki_dir,
            &config.cluster_name,
            &config.names,
            Timestamp::now(),
        )?;
        let address = config.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| StartError::Listen { address, source })?;
        let address = listener
            .local_addr()
            .map_err(|source| StartError::Listen { address, source })?;
        let tls = Arc::new(pki.server_tls()?);
        let registry = Registry::builtin();
        let caches = Arc::new(Caches::new(registry));
        let loaded = feed::load(&*store, &caches).await?;
        let customs = Customs::default();
        let established = loops::definitions::established(registry, &caches);
        customs.serve(registry, &caches, &*store, &established).await?;
        let tasks = TaskTracker::new();
        let api = Arc::new(Api {
            registry,
            store: Arc::clone(&store),
            authorizer: Authorizer::new(&caches),
            hooks: Hooks::new(&caches),
            customs,
            caches: Arc::clone(&caches),
            address,
            tokens: Tokens::new(pki.service_account_key_pem())?,
            event_leases: EventLeases::new(config.event_ttl),
            metrics: Metrics::new(),
            service_numbers: Arc::default(),
            quota_turns: Turns::default(),
            kubelets: KubeletClient::new(pki.kubelet_client_tls()?, tasks.clone()),
            watches_stop: stop.child_token(),
            is_ready: AtomicBool::new(false),
            pki,
            config,
        });
        // The feed outlives everything that waits for its writes.
        let feed_stop = CancellationToken::new();
        let feed = TaskTracker::new();
        feed.spawn(feed::run(store, caches, loaded, feed_stop.clone()));
        feed.close();
        let bootstrapped = Box::pin(bootstrap::run(&Caller::unseen(Arc::clone(&api)))).await;
        if let Err(failure) = bootstrapped {
            feed_stop.cancel();
            feed.wait().await;
            return Err(StartError::Bootstrap(failure.to_string()));
        }
        loops::start(&api, &tasks, &stop);
        tasks.spawn(listener::run(Arc::clone(&api), listener, tls, stop.clone()));
        api.is_ready.store(true, Ordering::Release);
        let ended = TaskTracker::new();
        ended.spawn(end(Arc::clone(&api), tasks, feed, (stop.clone(), feed_stop)));
        ended.close();
        Ok(ApiServer {
            api,
            tasks: ended,
            stop,
        })
    }

    /// A client for somebody inside this process: no socket, no TLS, the same rules.
    #[must_use]
    pub fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        let identity = User::authenticated(user, groups.iter().map(|&group| group.to_owned()));
        let service = ApiService::new(Arc::clone(&self.api), Some(Arc::new(identity)));
        // What no client says of itself: the manager of the fields it writes.
        let name = user.rsplit(':').next().unwrap_or(user);
        let agent = HeaderValue::from_str(name).unwrap_or_else(|_| HeaderValue::from_static("moorline"));
        let service =
            tower::util::MapRequest::new(service, move |mut request: Request<kube::client::Body>| {
                let headers = request.headers_mut();
                headers.entry(USER_AGENT).or_insert_with(|| agent.clone());
                request
            });
        kube::Client::new(service, "default")
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.api.address
    }

    /// Keys and certificates of the cluster.
    #[must_use]
    pub fn pki(&self) -> &Pki {
        &self.api.pki
    }

    /// A kubeconfig for the administrator. It contains a private key.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> String {
        let name = &self.api.config.cluster_name;
        let (pki, encode) = (&self.api.pki, |pem: &str| BASE64_STANDARD.encode(pem));
        let mut address = self.api.address;
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": name, "cluster": {
                "server": format!("https://{address}"),
                "certificate-authority-data": encode(pki.ca_pem()),
            }}],
            "users": [{ "name": "admin", "user": {
                "client-certificate-data": encode(&pki.admin().certificate_pem),
                "client-key-data": encode(&pki.admin().key_pem),
            }}],
            "contexts": [{ "name": name, "context": { "cluster": name, "user": "admin" }}],
            "current-context": name,
        });
        // Plain strings have a YAML form.
        serde_saphyr::to_string(&config).unwrap_or_else(|_| config.to_string())
    }

    /// Waits until the server has stopped: all requests ended, nothing running.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
        self.tasks.wait().await;
    }
}

/// Waits for the stop and ends things in order.
async fn end(
    api: Arc<Api>,
    tasks: TaskTracker,
    feed: TaskTracker,
    (stop, feed_stop): (CancellationToken, CancellationToken),
) {
    stop.cancelled().await;
    api.is_ready.store(false, Ordering::Release);
    tasks.close();
    tasks.wait().await;
    api.hooks.close().await;
    feed_stop.cancel();
    feed.wait().await;
}
