//! Around the calls: TLS, metrics, logs without secrets.

#![cfg(test)]

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use moorline_driver_sdk::{
    Driver, DriverInfo, Endpoint, EndpointError, GRACE_PERIOD_DEFAULT, OperationMetrics, ReadySwitch, Tls,
    TlsError, TlsFiles, null,
};
use moorline_proto::csi::{
    self, DeleteVolumeRequest, ProbeRequest, controller_client::ControllerClient,
    identity_client::IdentityClient,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code,
    transport::{self, Certificate, ClientTlsConfig, Identity},
};

fn null_driver() -> moorline_driver_sdk::driver::DriverBuilder {
    null::add_to(Driver::builder(DriverInfo::new("null.example.com", "1")))
}

/// A driver at work while `calls` make calls.
async fn with_driver(driver: Driver, endpoint: &Endpoint, tls: Option<Tls>, calls: impl Future<Output = ()>) {
    let listener = match tls {
        Some(tls) => endpoint.listen_tls(tls).await.unwrap(),
        None => endpoint.listen().await.unwrap(),
    };
    let stop = CancellationToken::new();
    let serving = driver.serve(listener, GRACE_PERIOD_DEFAULT, stop.clone());
    let calling = async {
        calls.await;
        stop.cancel();
    };
    let both = Box::pin(async { tokio::join!(serving, calling) });
    let (served, ()) = tokio::time::timeout(Duration::from_secs(30), both)
        .await
        .expect("in time");
    served.unwrap();
}

struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            issuer: rcgen::Issuer::new(params, key),
            pem,
        }
    }

    /// Certificate and key for a name.
    fn sign(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

fn write_files(directory: &Path, authority: &Authority) -> TlsFiles {
    let (cert, key) = authority.sign("127.0.0.1");
    let write = |name: &str, text: &str| {
        std::fs::write(directory.join(name), text).unwrap();
        directory.join(name)
    };
    TlsFiles {
        cert: write("cert.pem", &cert),
        key: write("key.pem", &key),
        client_ca: Some(write("ca.pem", &authority.pem)),
    }
}

async fn probe(address: &str, tls: Option<ClientTlsConfig>) -> Result<Option<bool>, String> {
    let mut endpoint = transport::Endpoint::new(address.to_owned()).unwrap();
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls).unwrap();
    }
    let channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
    let answer = IdentityClient::new(channel).probe(ProbeRequest {}).await;
    answer
        .map(|answer| answer.into_inner().ready)
        .map_err(|status| status.to_string())
}

async fn free_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn only_callers_with_a_certificate_are_heard() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let tls = write_files(directory.path(), &authority).load().unwrap();
    let port = free_port().await;
    let endpoint: Endpoint = format!("tcp://127.0.0.1:{port}").parse().unwrap();
    let trust = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority.pem));
    let known = {
        let (cert, key) = authority.sign("caller");
        trust().identity(Identity::from_pem(cert, key))
    };
    let unknown = {
        let (cert, key) = stranger.sign("caller");
        trust().identity(Identity::from_pem(cert, key))
    };
    let address = format!("https://127.0.0.1:{port}");
    let calls = async {
        assert_eq!(probe(&address, Some(known)).await, Ok(Some(true)));
        assert!(probe(&address, Some(trust())).await.is_err(), "no certificate");
        assert!(
            probe(&address, Some(unknown)).await.is_err(),
            "somebody else's certificate"
        );
        assert!(
            probe(&format!("http://127.0.0.1:{port}"), None).await.is_err(),
            "no TLS"
        );
    };
    with_driver(null_driver().build(), &endpoint, Some(tls), calls).await;
}

#[tokio::test]
async fn tls_is_refused_where_it_makes_no_sense() {
    let directory = tempfile::tempdir().unwrap();
    let files = write_files(directory.path(), &Authority::new());
    let mutual = files.load().unwrap();
    let one_sided = TlsFiles {
        client_ca: None,
        ..files.clone()
    };
    let unix = Endpoint::Unix(directory.path().join("csi.sock"));
    assert!(matches!(
        unix.listen_tls(mutual).await,
        Err(EndpointError::TlsOnUnix(_))
    ));
    let open: Endpoint = "tcp://192.0.2.1:1".parse().unwrap();
    let refused = open.listen_tls(one_sided.load().unwrap()).await;
    assert!(
        matches!(refused, Err(EndpointError::NotLoopback(_))),
        "anybody could call"
    );

    let missing = TlsFiles {
        cert: directory.path().join("none.pem"),
        ..files.clone()
    };
    assert!(matches!(missing.load(), Err(TlsError::Read { .. })));
    let (_, other_key) = Authority::new().sign("127.0.0.1");
    std::fs::write(&files.key, other_key).unwrap();
    assert!(
        matches!(files.load(), Err(TlsError::Unusable { .. })),
        "another key"
    );
}

#[tokio::test]
async fn calls_are_measured_with_their_codes() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Unix(directory.path().join("csi.sock"));
    let mut registry = Registry::default();
    let metrics = OperationMetrics::register(&mut registry, "null.example.com");
    let address = endpoint.to_string();
    let calls = async {
        let channel = transport::Endpoint::new(address)
            .unwrap()
            .connect()
            .await
            .unwrap();
        let mut identity = IdentityClient::new(channel.clone());
        for _ in 0..3 {
            identity.probe(ProbeRequest {}).await.unwrap();
        }
        let mut controller = ControllerClient::new(channel.clone());
        let refused = controller.delete_volume(DeleteVolumeRequest::default()).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
        let path = http::uri::PathAndQuery::from_static("/csi.v1.Controller/MadeUp");
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<ProbeRequest, csi::ProbeResponse>::default();
        let made_up = grpc
            .unary(tonic::Request::new(ProbeRequest {}), path, codec)
            .await;
        assert_eq!(made_up.unwrap_err().code(), Code::Unimplemented);
    };
    with_driver(null_driver().metrics(metrics).build(), &endpoint, None, calls).await;
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let count = |method: &str, code: &str| {
        let line = text.lines().find(|line| {
            line.starts_with("csi_plugin_operations_seconds_count{driver_name=\"null.example.com\"")
                && line.contains(&format!("method_name=\"/csi.v1.{method}\""))
                && line.contains(&format!("grpc_status_code=\"{code}\""))
        });
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
    };
    assert_eq!(count("Identity/Probe", "OK"), Some(3), "{text}");
    assert_eq!(
        count("Controller/DeleteVolume", "InvalidArgument"),
        Some(1),
        "{text}"
    );
    assert!(!text.contains("MadeUp"), "{text}");
    assert!(text.contains("le=\"600.0\""), "{text}");
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn requests_are_logged_without_their_secrets() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("moorline_driver_sdk=trace")
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // The runtime of this test has one thread, so that the server logs here as well.
    let _guard = tracing::subscriber::set_default(subscriber);
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Unix(directory.path().join("csi.sock"));
    let address = endpoint.to_string();
    let calls = async {
        let mut controller = ControllerClient::connect(address).await.unwrap();
        let request = DeleteVolumeRequest {
            volume_id: "volume-1".into(),
            secrets: HashMap::from([("password".into(), "hunter2".into())]),
        };
        controller.delete_volume(request).await.unwrap();
    };
    with_driver(null_driver().build(), &endpoint, None, calls).await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let line = text
        .lines()
        .find(|line| line.contains("Call received"))
        .expect("a line");
    assert!(
        line.contains("DeleteVolume") && line.contains("volume-1"),
        "{line}"
    );
    assert!(line.contains("***stripped***"), "{line}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn a_driver_is_ready_when_it_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Unix(directory.path().join("csi.sock"));
    let switch = ReadySwitch::new();
    let driver = null_driver().readiness(Arc::new(switch.clone())).build();
    let address = endpoint.to_string();
    let calls = async {
        assert_eq!(probe(&address, None).await, Ok(Some(false)));
        switch.set(true);
        assert_eq!(probe(&address, None).await, Ok(Some(true)));
    };
    with_driver(driver, &endpoint, None, calls).await;
}
