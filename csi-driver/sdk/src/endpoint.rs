//! Where a driver listens: a unix socket that only its owner can open, or a TCP port.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use rustix::{
    fs::Mode,
    net::{AddressFamily, SocketFlags, SocketType},
};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

use crate::tls::Tls;

/// Nobody but the owner may connect.
const SOCKET_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const BACKLOG: i32 = 128;

/// An address to listen on: `unix:///absolute/path`, `/absolute/path` or `tcp://127.0.0.1:10000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
}

/// Why an address can't be listened on.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// Not one of the forms above.
    #[error("endpoint {0:?} is neither unix:///absolute/path nor tcp://address:port")]
    Malformed(String),
    /// Calls carry secrets and change volumes, and neither the transport nor a certificate keeps strangers away.
    #[error(
        "endpoint tcp://{0} can be reached from other machines; only loopback addresses are allowed without TLS and \
         certificates of the callers"
    )]
    NotLoopback(SocketAddr),
    /// Unix sockets are private already.
    #[error("TLS is for tcp:// endpoints, not for the socket {}", .0.display())]
    TlsOnUnix(PathBuf),
    /// Somebody else listens there.
    #[error("socket {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket is there.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// A system call failed.
    #[error("{action} {endpoint}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        endpoint: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let malformed = || EndpointError::Malformed(text.to_owned());
        if let Some(address) = text.strip_prefix("tcp://") {
            let address: SocketAddr = address.parse().map_err(|_| malformed())?;
            return Ok(Endpoint::Tcp(address));
        }
        let path = text
            .strip_prefix("unix://")
            .or_else(|| text.strip_prefix("unix:"))
            .unwrap_or(text);
        if Path::new(path).is_absolute() {
            Ok(Endpoint::Unix(path.into()))
        } else {
            Err(malformed())
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
            Endpoint::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// An endpoint that is listened on. Connections wait until a driver serves it.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket.
    Unix(UnixSocket),
    /// A TCP port.
    Tcp {
        /// The port.
        listener: TcpListener,
        /// How connections are protected.
        tls: Option<Tls>,
    },
}

/// A listening unix socket; its file is removed when this is dropped, unless somebody has replaced it.
#[derive(Debug)]
pub struct UnixSocket {
    pub(crate) listener: Option<UnixListener>,
    path: PathBuf,
    identity: (u64, u64),
}

impl Endpoint {
    /// May it be listened on? `tls` says whether TLS is used, and then whether callers have to show certificates.
    pub(crate) fn check(&self, tls: Option<bool>) -> Result<(), EndpointError> {
        match (self, tls) {
            (Endpoint::Unix(_), None) | (Endpoint::Tcp(_), Some(true)) => Ok(()),
            (Endpoint::Unix(path), Some(_)) => Err(EndpointError::TlsOnUnix(path.clone())),
            (Endpoint::Tcp(address), _) if address.ip().is_loopback() => Ok(()),
            (Endpoint::Tcp(address), _) => Err(EndpointError::NotLoopback(*address)),
        }
    }

    /// Begins to listen. A socket that a dead process left behind is removed.
    ///
    /// # Errors
    /// [`EndpointError::InUse`] when somebody answers there.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn listen(&self) -> Result<Listener, EndpointError> {
        self.listen_with(None).await
    }

    /// Begins to listen on a TCP port for connections with TLS.
    ///
    /// # Errors
    /// [`EndpointError::TlsOnUnix`] for a unix socket.
    pub async fn listen_tls(&self, tls: Tls) -> Result<Listener, EndpointError> {
        self.listen_with(Some(tls)).await
    }

    async fn listen_with(&self, tls: Option<Tls>) -> Result<Listener, EndpointError> {
        self.check(tls.as_ref().map(|tls| tls.asks_for_client_certificates))?;
        match self {
            Endpoint::Unix(path) => self.listen_unix(path).map(Listener::Unix),
            Endpoint::Tcp(address) => {
                let listener = TcpListener::bind(address).await;
                let listener = listener.map_err(|source| self.error("listen on", source))?;
                Ok(Listener::Tcp { listener, tls })
            }
        }
    }

    fn listen_unix(&self, path: &Path) -> Result<UnixSocket, EndpointError> {
        self.remove_stale(path)?;
        let listener = bind_private(path).map_err(|source| self.error("listen on", source))?;
        let seen = fs::metadata(path).map_err(|source| self.error("look at", source))?;
        let listener = UnixListener::from_std(listener).map_err(|source| self.error("listen on", source))?;
        Ok(UnixSocket {
            listener: Some(listener),
            path: path.to_owned(),
            identity: (seen.dev(), seen.ino()),
        })
    }

    fn remove_stale(&self, path: &Path) -> Result<(), EndpointError> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(self.error("look at", source)),
            Ok(seen) if !seen.file_type().is_socket() => {
                return Err(EndpointError::NotASocket(path.to_owned()));
            }
            Ok(_) => {}
        }
        match UnixStream::connect(path) {
            Ok(_) => Err(EndpointError::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                tracing::debug!(path = %path.display(), "Removing a socket that nobody listens on");
                fs::remove_file(path).map_err(|source| self.error("remove the stale socket of", source))
            }
            Err(source) => Err(self.error("find out who listens on", source)),
        }
    }

    fn error(&self, action: &'static str, source: io::Error) -> EndpointError {
        EndpointError::Io {
            action,
            endpoint: self.to_string(),
            source,
        }
    }
}

/// The mode is set before there is a file, so that there is no moment in which others can connect.
fn bind_private(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, SOCKET_MODE)?;
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(std::os::unix::net::UnixListener::from(socket))
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|seen| (seen.dev(), seen.ino()) == self.identity);
        if is_ours {
            fs::remove_file(&self.path).ok(); // A leftover is recognised as stale by the next start.
        }
    }
}
