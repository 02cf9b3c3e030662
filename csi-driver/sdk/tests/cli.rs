//! A driver as a process: its endpoints, signals and exit codes.

#![cfg(test)]
#![cfg(feature = "cli")]

use std::{
    io::Read as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use moorline_proto::csi::{
    self, ProbeRequest, controller_client::ControllerClient, identity_client::IdentityClient,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep},
};

const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Killed when the test ends, however it ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok(); // It has ended already, as a rule.
        self.0.wait().ok();
    }
}

impl Process {
    fn start(flags: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_null-csi-driver"))
            .args(flags)
            .env_remove("CSI_ENDPOINT")
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Process(child.unwrap())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Exit code, answer and log.
    async fn ended(mut self) -> (Option<i32>, String, String) {
        let child = &mut self.0;
        let status = until("the process ends", async || child.try_wait().unwrap()).await;
        let (mut out, mut err) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (status.code(), out, err)
    }
}

/// Looks until there is a value, and fails after a deadline.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(begun.elapsed() < DEADLINE, "not in time: {what}");
        sleep(LOOK_AGAIN).await;
    }
}

async fn until_probed(endpoint: &str) {
    let ready = until("the driver answers", async || {
        let mut client = IdentityClient::connect(endpoint.to_owned()).await.ok()?;
        let answer = client.probe(ProbeRequest {}).await.ok()?;
        Some(answer.into_inner().ready)
    })
    .await;
    assert_eq!(ready, Some(true));
}

async fn get(port: u16, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_driver_serves_until_it_is_asked_to_stop() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("csi.sock");
    let endpoint = format!("unix://{}", socket.display());
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let metrics = format!("127.0.0.1:{port}");
    let flags = [
        "--endpoint",
        &endpoint,
        "--metrics-address",
        &metrics,
        "--log-format",
        "json",
    ];
    let process = Process::start(&flags);
    until_probed(&endpoint).await;
    assert!(get(port, "/healthz").await.starts_with("HTTP/1.1 200"));
    let text = get(port, "/metrics").await;
    assert!(
        text.contains("csi_plugin_operations_seconds_count{driver_name=\"null.csi.moorline.dev\""),
        "{text}"
    );
    assert!(get(port, "/else").await.starts_with("HTTP/1.1 404"));
    process.signal(Signal::TERM);
    let (code, _, log) = process.ended().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(!socket.exists(), "the socket is removed");
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines.iter().any(|line| line["message"] == "Driver has stopped"),
        "{log}"
    );
}

#[tokio::test]
async fn what_is_logged_of_a_call_says_which_call_and_which_volume() {
    use csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
    let directory = tempfile::tempdir().unwrap();
    let endpoint = format!("unix://{}", directory.path().join("csi.sock").display());
    let process = Process::start(&["--endpoint", &endpoint, "--log-format", "json", "-v"]);
    until_probed(&endpoint).await;
    let mut controller = ControllerClient::connect(endpoint.clone()).await.unwrap();
    let request = csi::CreateVolumeRequest {
        name: "v1".into(),
        volume_capabilities: vec![csi::VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume::default())),
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
        }],
        ..Default::default()
    };
    controller.create_volume(request).await.unwrap();
    let refused = controller
        .create_volume(csi::CreateVolumeRequest::default())
        .await;
    refused.expect_err("a volume has a name");
    drop(controller);
    process.signal(Signal::TERM);
    let (_, _, log) = process.ended().await;
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let answered = lines.iter().find(|line| line["message"] == "Call answered");
    let answered = answered.unwrap_or_else(|| panic!("{log}"));
    let span = &answered["span"];
    assert_eq!(
        (&span["name"], &span["rpc.method"], &span["volume.id"]),
        (&"rpc".into(), &"CreateVolume".into(), &"v1".into()),
        "{answered}"
    );
    assert!(answered["duration"].is_string(), "{answered}");
}

#[tokio::test]
async fn a_stale_socket_is_no_obstacle_and_a_busy_one_is() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = format!("unix://{}", directory.path().join("csi.sock").display());
    let killed = Process::start(&["--endpoint", &endpoint]);
    until_probed(&endpoint).await;
    drop(killed);
    let second = Process::start(&["--endpoint", &endpoint]);
    until_probed(&endpoint).await;
    let (code, _, log) = Process::start(&["--endpoint", &endpoint]).ended().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("is in use by another process"), "{log}");
    second.signal(Signal::INT);
    assert_eq!(second.ended().await.0, Some(0));
}

#[tokio::test]
async fn wrong_flags_help_and_version_are_answered() {
    let (code, _, err) = Process::start(&["--endpoint", "nowhere"]).ended().await;
    assert_eq!(code, Some(2), "{err}");
    assert!(
        err.contains("--endpoint: endpoint \"nowhere\" is neither"),
        "{err}"
    );
    let (code, out, _) = Process::start(&["--version"]).ended().await;
    assert_eq!(code, Some(0));
    assert!(out.starts_with("null.csi.moorline.dev "), "{out}");
    let (code, out, _) = Process::start(&["--help"]).ended().await;
    assert_eq!(code, Some(0));
    for flag in [
        "--endpoint",
        "--tls-cert",
        "--tls-key",
        "--tls-client-ca",
        "--metrics-address",
        "--log-format",
        "--grace-period",
    ] {
        assert!(out.contains(flag), "{out}");
    }
    let (code, _, err) = Process::start(&[
        "--endpoint",
        "tcp://127.0.0.1:1",
        "--tls-cert",
        "/none",
        "--tls-key",
        "/none",
    ])
    .ended()
    .await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("use TLS: read /none"), "{err}");
}
