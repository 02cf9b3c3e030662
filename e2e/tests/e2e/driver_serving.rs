//! `moorline driver` is served as every driver of the SDK: metrics, mutual TLS, all faults of its flags at once, draining.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_e2e::{
    process::{self, Part},
    wait,
};
use moorline_proto::csi::{
    self, controller_client::ControllerClient, identity_client::IdentityClient, volume_capability as wire,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const LONG: Duration = Duration::from_secs(60);
const COPIED_BYTES: usize = 300_000;

/// A driver of directories, in a temporary directory.
struct Driver {
    part: Part,
    log: PathBuf,
    directory: tempfile::TempDir,
}

impl Driver {
    fn start(flags: &[String]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().display();
        let mut args: Vec<_> = ["driver", "--node-id=n1"].map(str::to_owned).into();
        args.extend([
            format!("--pool-dir={root}/pool"),
            format!("--target-root={root}"),
            format!("--endpoint=unix://{root}/csi.sock"),
        ]);
        // The last endpoint is not the only one allowed: a test that names another one replaces ours.
        if flags.iter().any(|flag| flag.starts_with("--endpoint")) {
            args.pop();
        }
        args.extend_from_slice(flags);
        let log = directory.path().join("driver.log");
        Driver {
            part: Part::start(&args, &log),
            log,
            directory,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    async fn connect(&mut self) -> Channel {
        let socket = self.path("csi.sock");
        if let Err(error) = self.part.wait_for_socket(&socket, LONG) {
            panic!("{error:#}: {}", self.log());
        }
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
        endpoint.connect().await.unwrap()
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LONG))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The value of the metric whose name and labels begin so.
fn value(metrics: &str, begins: &str) -> Option<f64> {
    let line = metrics.lines().find(|line| line.starts_with(begins))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_calls_and_copies_are_served() {
    let address = free_address();
    let mut driver = Driver::start(&[
        format!("--metrics-address={address}"),
        "--grace-period=5".to_owned(),
    ]);
    let channel = driver.connect().await;
    // It listens a moment before it says that it has started.
    wait::until("the driver is healthy", LONG, || {
        let answer = get(address, "/healthz").map_err(|error| error.to_string())?;
        if answer.starts_with("HTTP/1.1 200") {
            Ok(())
        } else {
            Err(answer)
        }
    });
    let mut controller = ControllerClient::new(channel);
    let create = csi::CreateVolumeRequest {
        name: "v".to_owned(),
        volume_capabilities: vec![csi::VolumeCapability {
            access_type: Some(wire::AccessType::Mount(wire::MountVolume::default())),
            access_mode: Some(wire::AccessMode {
                mode: wire::access_mode::Mode::SingleNodeWriter.into(),
            }),
        }],
        ..Default::default()
    };
    let volume = controller
        .create_volume(create)
        .await
        .unwrap()
        .into_inner()
        .volume;
    let volume_id = volume.unwrap().volume_id;
    let data = driver.path("pool/volumes").join(&volume_id).join("data");
    fs::write(data.join("file"), vec![1; COPIED_BYTES]).unwrap();
    let snapshot = csi::CreateSnapshotRequest {
        name: "s".to_owned(),
        source_volume_id: volume_id,
        ..Default::default()
    };
    controller.create_snapshot(snapshot).await.unwrap();
    let metrics = get(address, "/metrics").unwrap();
    let label = "{driver_name=\"local.csi.moorline.dev\"";
    let copied = value(&metrics, &format!("moorline_driver_copy_bytes_total{label}"));
    assert!(copied >= Some(300_000.0), "{copied:?} in {metrics}");
    let calls = format!(
        "csi_plugin_operations_seconds_count{label},method_name=\"/csi.v1.Controller/CreateSnapshot\""
    );
    assert_eq!(value(&metrics, &calls), Some(1.0), "{metrics}");
    drop(controller);
    let log = driver.log.clone();
    driver.part.terminate(LONG).unwrap();
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("Driver has stopped"), "{log}");
    assert!(!driver.directory.path().join("csi.sock").exists());
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

async fn probe(address: SocketAddr, tls: Option<ClientTlsConfig>) -> Result<bool, String> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).unwrap();
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls).unwrap();
    }
    let channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
    let answer = IdentityClient::new(channel).probe(csi::ProbeRequest {}).await;
    answer
        .map(|answer| answer.into_inner().ready == Some(true))
        .map_err(|status| status.to_string())
}

fn write_file(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_callers_with_a_certificate_are_heard() {
    let files = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (cert, key) = authority.sign("127.0.0.1");
    let address = free_address();
    let flags = [
        format!("--endpoint=tcp://{address}"),
        format!("--tls-cert={}", write_file(files.path(), "cert.pem", &cert)),
        format!("--tls-key={}", write_file(files.path(), "key.pem", &key)),
        format!(
            "--tls-client-ca={}",
            write_file(files.path(), "ca.pem", &authority.pem)
        ),
    ];
    let mut driver = Driver::start(&flags);
    let trust = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority.pem));
    let signed_by = |by: &Authority| {
        let (cert, key) = by.sign("caller");
        trust().identity(Identity::from_pem(cert, key))
    };
    let known = signed_by(&authority);
    let ready = wait::until_async("the driver answers over TLS", LONG, || {
        let ended = driver.part.try_ended().unwrap();
        assert_eq!(ended, None, "{}", driver.log());
        probe(address, Some(known.clone()))
    })
    .await;
    assert!(ready);
    probe(address, Some(trust()))
        .await
        .expect_err("without a certificate");
    probe(address, Some(signed_by(&stranger)))
        .await
        .expect_err("with a certificate of somebody else");
    probe(address, None).await.expect_err("without TLS");
    driver.part.terminate(LONG).unwrap();
}

#[test]
fn all_faults_of_the_flags_are_told_at_once() {
    let flags = [
        "driver",
        "--node-id=-",
        "--endpoint=x",
        "--metrics-address=y",
        "--capacity=5X",
    ];
    let (code, _, stderr) = process::run(&flags);
    assert_eq!(code, Some(2), "{stderr}");
    for text in [
        "--endpoint: endpoint \"x\" is neither",
        "--metrics-address: \"y\" is not ADDRESS:PORT",
        "--node-id: \"-\" must have",
        "--capacity:",
        "Usage: moorline driver",
    ] {
        assert!(stderr.contains(text), "{text} in {stderr}");
    }
    let world = ["driver", "--node-id=n", "--endpoint=tcp://0.0.0.0:1"];
    let (code, _, stderr) = process::run(&world);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("can be reached from other machines"), "{stderr}");
    let half = ["driver", "--node-id=n", "--tls-cert=c"];
    let (code, _, stderr) = process::run(&half);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--tls-key"), "{stderr}");
}
