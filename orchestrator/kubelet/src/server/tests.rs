//! The HTTPS port from the outside: who is let in, and logs while they are written.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Server, serve, tls};
use crate::config::ServingIdentity;
use crate::pods::manager_tests::World;

const LIMIT: Duration = Duration::from_secs(20);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn authority(name: &str) -> Authority {
    let mut parameters = CertificateParams::new(vec![]).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let pem = parameters.self_signed(&key).unwrap().pem();
    Authority {
        issuer: Issuer::new(parameters, key),
        pem,
    }
}

impl Authority {
    /// Certificate and key, PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (
            parameters.signed_by(&key, &self.issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    }
}

struct Port {
    address: SocketAddr,
    authority: Authority,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Port {
    async fn open(server: Server) -> Self {
        let authority = authority("cluster");
        let (certificate_pem, key_pem) = authority.issue("node");
        let identity = ServingIdentity {
            certificate_pem,
            key_pem,
            client_ca_pem: authority.pem.clone(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(serve(
            listener,
            tls::acceptor(&identity).unwrap(),
            server,
            stop.clone(),
        ));
        Self {
            address,
            authority,
            tasks,
            stop,
        }
    }

    async fn connect(&self, identity: Option<(String, String)>) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.authority.pem.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from("node").unwrap(), stream)
            .await
    }

    /// Sends a request; the body is read by the caller.
    async fn get(
        &self,
        identity: Option<(String, String)>,
        path: &str,
    ) -> Result<hyper::Response<hyper::body::Incoming>, String> {
        let stream = self.connect(identity).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        self.tasks.spawn(async move {
            connection.await.ok(); // The request hears of it.
        });
        let request = Request::get(path)
            .header("host", "node")
            .body(Empty::<Bytes>::new())
            .unwrap();
        sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())
    }

    async fn text(&self, path: &str) -> (StatusCode, String) {
        let response = self
            .get(Some(self.authority.issue("client")), path)
            .await
            .unwrap();
        let status = response.status();
        let body = tokio::time::timeout(LIMIT, response.into_body().collect())
            .await
            .unwrap()
            .unwrap();
        (status, String::from_utf8(body.to_bytes().to_vec()).unwrap())
    }

    async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A running pod `ns/p` with a log file, and the port in front of it.
async fn world_with_log() -> (World, Port, PathBuf) {
    let world = World::new();
    let log = world.directory().join("c.log");
    std::fs::write(
        &log,
        "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stdout F two\n",
    )
    .unwrap();
    world.runtime.log_to(&log);
    world.put(
        json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "1"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "image"}]}}),
    );
    world.shows("/status/phase", json!("Running")).await;
    let (pods, volumes) = world.managers();
    let server = Server::new(
        pods,
        volumes,
        Arc::new(world.runtime.clone()),
        Duration::from_secs(1),
    );
    (world, Port::open(server).await, log)
}

#[tokio::test]
async fn only_clients_of_the_cluster_are_let_in() {
    let (world, port, _) = world_with_log().await;
    assert!(port.get(None, "/healthz").await.is_err(), "no certificate");
    let stranger = authority("elsewhere").issue("client");
    assert!(
        port.get(Some(stranger), "/healthz").await.is_err(),
        "certificate of another authority"
    );
    assert_eq!(port.text("/healthz").await, (StatusCode::OK, "ok".to_owned()));
    port.close().await;
    world.end().await;
}

#[tokio::test]
async fn answers_are_found_by_path() {
    let (world, port, _) = world_with_log().await;
    let cases = [
        ("/containerLogs/ns/p/c", StatusCode::OK, "one\ntwo\n"),
        (
            "/containerLogs/ns/p/c?tailLines=1&timestamps=true",
            StatusCode::OK,
            "2026-01-01T00:00:02Z two\n",
        ),
        (
            "/containerLogs/ns/p/c?tailLines=x",
            StatusCode::BAD_REQUEST,
            "tailLines: \"x\" is not a number\n",
        ),
        (
            "/containerLogs/ns/p/c?previous=true",
            StatusCode::BAD_REQUEST,
            "previous terminated container \"c\" not found in pod \"p\"\n",
        ),
        (
            "/containerLogs/ns/p/z",
            StatusCode::NOT_FOUND,
            "container \"z\" not found in pod \"p\"\n",
        ),
        (
            "/containerLogs/ns/q/c",
            StatusCode::NOT_FOUND,
            "pod \"q\" not found in namespace \"ns\"\n",
        ),
        ("/nothing", StatusCode::NOT_FOUND, "404 page not found\n"),
    ];
    for (path, status, text) in cases {
        assert_eq!(port.text(path).await, (status, text.to_owned()), "{path}");
    }
    let (_, pods) = port.text("/pods").await;
    let pods: serde_json::Value = serde_json::from_str(&pods).unwrap();
    assert_eq!(pods["items"][0]["metadata"]["name"], json!("p"));
    assert!(port.text("/metrics").await.1.contains("kubelet_working_pods 1\n"));
    port.close().await;
    world.end().await;
}

#[tokio::test]
async fn followed_log_ends_with_its_container() {
    let (world, port, log) = world_with_log().await;
    let path = "/containerLogs/ns/p/c?follow=true&tailLines=1";
    let response = port
        .get(Some(port.authority.issue("client")), path)
        .await
        .unwrap();
    let mut body = response.into_body();
    let mut next = async || {
        let frame = tokio::time::timeout(LIMIT, body.frame()).await.unwrap();
        frame.map(|frame| String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
    };
    assert_eq!(next().await.as_deref(), Some("two\n"));
    let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    file.write_all(b"2026-01-01T00:00:03Z stdout F thr").unwrap();
    file.write_all(b"ee\n").unwrap();
    assert_eq!(next().await.as_deref(), Some("three\n"));
    world.runtime.exit("c", 0);
    assert_eq!(next().await, None);
    port.close().await;
    world.end().await;
}

/// A WebSocket that is open; what else the server says is plain frames.
async fn upgraded(port: &Port, path: &str, protocol: &str) -> TlsStream<TcpStream> {
    let mut stream = port.connect(Some(port.authority.issue("client"))).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: node\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: {protocol}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(read_byte(&mut stream).await);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(
        head.starts_with("HTTP/1.1 101") && head.contains(protocol),
        "{head}"
    );
    stream
}

async fn read_byte(stream: &mut TlsStream<TcpStream>) -> u8 {
    tokio::time::timeout(LIMIT, stream.read_u8())
        .await
        .unwrap()
        .unwrap()
}

/// A short frame, as a client masks it.
async fn send(stream: &mut TlsStream<TcpStream>, content: &[u8]) {
    let mut frame = vec![0x82, 0x80 | u8::try_from(content.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(content);
    stream.write_all(&frame).await.unwrap();
}

/// The kind and content of a short frame.
async fn receive(stream: &mut TlsStream<TcpStream>) -> (u8, Vec<u8>) {
    let kind = read_byte(stream).await;
    let length = match read_byte(stream).await {
        126 => u16::from_be_bytes([read_byte(stream).await, read_byte(stream).await]),
        short => u16::from(short),
    };
    let mut content = vec![0; usize::from(length)];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut content))
        .await
        .unwrap()
        .unwrap();
    (kind, content)
}

#[tokio::test]
async fn commands_are_talked_to_over_websockets() {
    let (world, port, _) = world_with_log().await;
    let path = "/exec/ns/p/c?command=echo&command=3&input=1&output=1";
    let mut stream = upgraded(&port, path, "v5.channel.k8s.io").await;
    send(&mut stream, b"\x00hello").await;
    assert_eq!(receive(&mut stream).await, (0x82, b"\x01hello".to_vec()));
    send(&mut stream, b"\xff\x00").await;
    let (kind, last) = receive(&mut stream).await;
    let status: serde_json::Value = serde_json::from_slice(&last[1..]).unwrap();
    assert_eq!((kind, last[0]), (0x82, 3));
    assert_eq!(status["details"]["causes"][0]["message"], "3", "{status}");
    assert_eq!(receive(&mut stream).await, (0x88, 1000u16.to_be_bytes().to_vec()));
    drop(stream);
    // Whoever leaves ends the command.
    let before = |world: &World| {
        let calls = world.runtime.calls();
        calls.iter().filter(|call| *call == "exec over").count()
    };
    let stream = upgraded(&port, path, "v4.channel.k8s.io").await;
    drop(stream);
    let deadline = tokio::time::Instant::now() + LIMIT;
    while before(&world) < 2 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{:?}",
            world.runtime.calls()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (status, why) = port.text("/exec/ns/p/c?command=true").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{why}");
    port.close().await;
    world.end().await;
}
