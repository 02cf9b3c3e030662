//! `node-driver-registrar`: announces the node plugin to the kubelet through a socket in its registration directory.
//!
//! The socket is made under a hidden name, closed to others, and then renamed into place: the kubelet never sees it
//! half-made, and a stale one is replaced in the same step. If somebody removes it, it is made again.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use moorline_proto::pluginregistration::registration_client::RegistrationClient;
use moorline_proto::pluginregistration::registration_server::{Registration, RegistrationServer};
use moorline_proto::pluginregistration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

use crate::connection::{AddressError, DriverConnection, call};
use crate::discovery::{DiscoveryError, discover_name};

/// What the kubelet's plugin watcher expects for CSI drivers.
const PLUGIN_TYPE: &str = "CSIPlugin";
/// Versions of the registration protocol.
const SUPPORTED_VERSIONS: [&str; 1] = ["1.0.0"];
/// How often the socket is looked after.
const SOCKET_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// What the registrar needs to know.
#[derive(Clone, Debug)]
pub struct RegistrarConfig {
    /// The driver's socket as this process sees it.
    pub csi_address: String,
    /// The directory that the kubelet watches, `plugins_registry` below its root.
    pub plugin_registration_dir: PathBuf,
    /// The driver's socket as the kubelet sees it.
    pub kubelet_registration_path: String,
    /// Deadline of the calls to the driver.
    pub timeout: Duration,
}

/// Why the registrar ended.
#[derive(Debug, thiserror::Error)]
pub enum RegistrarError {
    /// The driver's address is wrong.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The driver refuses to say who it is.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// A file that isn't a socket has the socket's name.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The socket can't be made.
    #[error("{step} registration socket {}", .path.display())]
    Socket {
        /// What was tried.
        step: &'static str,
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Serving failed.
    #[error("serve registration socket {}", .path.display())]
    Serve {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: tonic::transport::Error,
    },
}

/// The path of a driver's registration socket.
pub fn socket_path(plugin_registration_dir: &Path, driver_name: &str) -> PathBuf {
    plugin_registration_dir.join(format!("{driver_name}-reg.sock"))
}

/// Why the registration isn't taken for alive.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationCheckError {
    /// There is no socket.
    #[error("registration socket does not exist")]
    Missing,
    /// There is one, and nobody answers.
    #[error("ask registration socket {}: {}", .0.display(), crate::rpc_class::describe(.1))]
    Silent(PathBuf, Box<Status>),
    /// Somebody else answers.
    #[error("registration socket speaks for driver {0:?}")]
    Foreign(String),
}

/// One check of a driver's registration, for a health endpoint: the socket is asked for its driver's name.
///
/// # Errors
/// The socket is missing, nobody answers in time, or another driver does.
pub async fn check(path: &Path, driver_name: &str, timeout: Duration) -> Result<(), RegistrationCheckError> {
    if inode_of(path).is_none() {
        return Err(RegistrationCheckError::Missing);
    }
    let dialled = path.to_path_buf();
    let connector = tower::service_fn(move |_| {
        let path = dialled.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
    let mut client = RegistrationClient::new(channel);
    let info = call(timeout, InfoRequest {}, |request| client.get_info(request))
        .await
        .map_err(|status| RegistrationCheckError::Silent(path.to_path_buf(), Box::new(status)))?;
    if info.name == driver_name {
        Ok(())
    } else {
        Err(RegistrationCheckError::Foreign(info.name))
    }
}

/// Announces the driver until `stop`; removes the socket at the end, which de-registers the driver.
///
/// # Errors
/// Final: the driver refuses `GetPluginInfo`, or the socket can't be made.
pub async fn run(config: RegistrarConfig, stop: CancellationToken) -> Result<(), RegistrarError> {
    let connection = DriverConnection::new(&config.csi_address)?;
    let driver_name = match discover_name(&connection, config.timeout, &stop).await {
        Err(DiscoveryError::Stopped) => return Ok(()),
        name => name?,
    };
    let path = socket_path(&config.plugin_registration_dir, &driver_name);
    let service = RegistrationService {
        driver_name,
        endpoint: config.kubelet_registration_path,
    };
    while !stop.is_cancelled() {
        serve_once(&path, service.clone(), &stop).await?;
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RegistrarError::Socket {
            step: "remove",
            path,
            source: error,
        }),
        _ => Ok(()),
    }
}

/// Serves one socket until `stop`, or until it is gone from its place.
async fn serve_once(
    path: &Path,
    service: RegistrationService,
    stop: &CancellationToken,
) -> Result<(), RegistrarError> {
    let listener = listen(path)?;
    let inode = inode_of(path);
    tracing::info!(driver.name = service.driver_name, path = %path.display(), "Registration socket is served");
    let done = stop.child_token();
    let guard = async {
        while inode.is_some() && inode_of(path) == inode {
            tokio::time::sleep(SOCKET_CHECK_INTERVAL).await;
        }
        tracing::warn!(path = %path.display(), "Registration socket was removed, making it again");
        done.cancel();
    };
    let serving = Server::builder()
        .add_service(RegistrationServer::new(service))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), done.cancelled());
    // Dropping the guard loses nothing: it only looks.
    let result = tokio::select! {
        result = serving => result,
        () = async { guard.await; std::future::pending().await } => Ok(()),
    };
    result.map_err(|source| RegistrarError::Serve {
        path: path.to_path_buf(),
        source,
    })
}

fn listen(path: &Path) -> Result<UnixListener, RegistrarError> {
    let fail = |step| {
        move |source| RegistrarError::Socket {
            step,
            path: path.to_path_buf(),
            source,
        }
    };
    if let Ok(found) = std::fs::symlink_metadata(path)
        && !found.file_type().is_socket()
    {
        return Err(RegistrarError::NotASocket(path.to_path_buf()));
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory).map_err(fail("create the directory of"))?;
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("reg.sock");
    let hidden = directory.join(format!(".{name}"));
    match std::fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail("clear")(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&hidden).map_err(fail("bind"))?;
    std::fs::set_permissions(&hidden, Permissions::from_mode(0o600)).map_err(fail("protect"))?;
    std::fs::rename(&hidden, path).map_err(fail("place"))?;
    Ok(listener)
}

fn inode_of(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|found| found.ino())
}

#[derive(Clone, Debug)]
struct RegistrationService {
    driver_name: String,
    endpoint: String,
}

#[tonic::async_trait]
impl Registration for RegistrationService {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: PLUGIN_TYPE.to_string(),
            name: self.driver_name.clone(),
            endpoint: self.endpoint.clone(),
            supported_versions: SUPPORTED_VERSIONS.map(String::from).to_vec(),
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!(
                driver.name = self.driver_name,
                "Driver is registered with the kubelet"
            );
        } else {
            // The kubelet asks again by itself, with a growing interval; nothing is gained by ending here.
            tracing::error!(
                driver.name = self.driver_name,
                error = status.error,
                "Kubelet could not register the driver"
            );
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
