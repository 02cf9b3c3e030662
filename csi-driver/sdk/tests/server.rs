//! A driver served over a real socket: claims, disconnects, panics, draining, sockets, advertised capabilities.

#![cfg(test)]

use std::{
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use moorline_driver_sdk::{
    Driver, DriverError, DriverInfo, Endpoint, EndpointError, GRACE_PERIOD_DEFAULT, ServeError, async_trait,
    request::{
        CreateVolume, DeleteVolume, NodePublishVolume, NodeUnpublishVolume, StringMap, ValidateCapabilities,
        VolumeId,
    },
    traits::{NodePublishing, Volumes},
    volume::{Confirmation, NodeDescription, Volume},
};
use moorline_proto::csi::{
    self, CreateVolumeRequest, DeleteVolumeRequest, controller_client::ControllerClient,
    identity_client::IdentityClient, node_client::NodeClient,
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Code;

const LONG: Duration = Duration::from_secs(20);

/// Waits inside each create until the test lets it go on.
struct Gated {
    gate: Semaphore,
    begun: Semaphore,
    finished: AtomicUsize,
}

impl Gated {
    fn new() -> Arc<Self> {
        Arc::new(Gated {
            gate: Semaphore::new(0),
            begun: Semaphore::new(0),
            finished: AtomicUsize::new(0),
        })
    }

    async fn wait_until_begun(&self) {
        tokio::time::timeout(LONG, self.begun.acquire())
            .await
            .expect("a create begins")
            .unwrap()
            .forget();
    }
}

#[async_trait]
impl Volumes for Gated {
    async fn create_volume(&self, request: CreateVolume) -> Result<Volume, DriverError> {
        assert!(request.name != "panic", "asked for");
        self.begun.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        self.finished.fetch_add(1, Ordering::SeqCst);
        Ok(Volume::new(VolumeId::parse(request.name)?, 1))
    }

    async fn delete_volume(&self, _request: DeleteVolume) -> Result<(), DriverError> {
        Ok(())
    }

    async fn validate_capabilities(
        &self,
        request: ValidateCapabilities,
    ) -> Result<Confirmation, DriverError> {
        Ok(Confirmation::Confirmed {
            capabilities: request.capabilities,
            volume_context: StringMap::new(),
            parameters: StringMap::new(),
            mutable_parameters: StringMap::new(),
        })
    }
}

#[async_trait]
impl NodePublishing for Gated {
    async fn describe_node(&self) -> Result<NodeDescription, DriverError> {
        Ok(NodeDescription {
            node_id: "n".into(),
            max_volumes: Some(3),
            topology: None,
        })
    }

    async fn publish_volume(&self, _request: NodePublishVolume) -> Result<(), DriverError> {
        Ok(())
    }

    async fn unpublish_volume(&self, _request: NodeUnpublishVolume) -> Result<(), DriverError> {
        Ok(())
    }
}

struct Served {
    endpoint: Endpoint,
    stop: CancellationToken,
    tasks: TaskTracker,
    result: tokio::task::JoinHandle<Result<(), ServeError>>,
    _directory: tempfile::TempDir,
}

impl Served {
    async fn start(driver: Driver, grace: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix(directory.path().join("csi.sock"));
        let listener = endpoint.listen().await.unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let result = tasks.spawn(driver.serve(listener, grace, stop.clone()));
        Served {
            endpoint,
            stop,
            tasks,
            result,
            _directory: directory,
        }
    }

    async fn controller(&self) -> ControllerClient<tonic::transport::Channel> {
        ControllerClient::connect(self.endpoint.to_string())
            .await
            .unwrap()
    }

    async fn stopped(self) -> Result<(), ServeError> {
        self.stop.cancel();
        tokio::time::timeout(LONG, self.result)
            .await
            .expect("the driver ends")
            .unwrap()
    }
}

fn gated_driver(gated: &Arc<Gated>) -> Driver {
    Driver::builder(DriverInfo::new("gated.example.com", "1"))
        .volumes(Arc::clone(gated) as _, |groups| groups.done())
        .build()
}

fn create(name: &str) -> CreateVolumeRequest {
    use csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
    CreateVolumeRequest {
        name: name.into(),
        volume_capabilities: vec![csi::VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume::default())),
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
        }],
        ..Default::default()
    }
}

#[tokio::test]
async fn the_second_create_of_one_name_is_aborted_and_of_another_is_not() {
    let gated = Gated::new();
    let served = Served::start(gated_driver(&gated), GRACE_PERIOD_DEFAULT).await;
    let mut client = served.controller().await;
    let mut first_client = client.clone();
    let first = served
        .tasks
        .spawn(async move { first_client.create_volume(create("a")).await });
    gated.wait_until_begun().await;
    let second = client.create_volume(create("a")).await.unwrap_err();
    assert_eq!(
        (second.code(), second.message()),
        (Code::Aborted, "CreateVolume is still running for a")
    );
    gated.gate.add_permits(2);
    client.create_volume(create("b")).await.expect("another name");
    first.await.unwrap().expect("the first");
    gated.gate.add_permits(1);
    client.create_volume(create("a")).await.expect("free again");
    served.stopped().await.unwrap();
}

#[tokio::test]
async fn a_create_goes_on_when_its_caller_hangs_up() {
    let gated = Gated::new();
    let served = Served::start(gated_driver(&gated), GRACE_PERIOD_DEFAULT).await;
    let mut client = served.controller().await;
    let mut request = tonic::Request::new(create("a"));
    request.set_timeout(Duration::from_millis(20));
    let given_up = client.create_volume(request).await.unwrap_err();
    assert!(
        matches!(given_up.code(), Code::Cancelled | Code::DeadlineExceeded),
        "{given_up}"
    );
    drop(client);
    gated.wait_until_begun().await;

    let mut client = served.controller().await;
    assert_eq!(
        client.create_volume(create("a")).await.unwrap_err().code(),
        Code::Aborted,
        "still at work"
    );
    gated.gate.add_permits(1);
    served.stopped().await.unwrap();
    assert_eq!(gated.finished.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_panic_is_answered_and_blocks_nobody() {
    let gated = Gated::new();
    let served = Served::start(gated_driver(&gated), GRACE_PERIOD_DEFAULT).await;
    let mut client = served.controller().await;
    for _ in 0..2 {
        assert_eq!(
            client.create_volume(create("panic")).await.unwrap_err().code(),
            Code::Internal
        );
    }
    served.stopped().await.unwrap();
}

#[tokio::test]
async fn stopping_waits_for_what_is_running() {
    let gated = Gated::new();
    let served = Served::start(gated_driver(&gated), GRACE_PERIOD_DEFAULT).await;
    let mut client = served.controller().await;
    let running = served
        .tasks
        .spawn(async move { client.create_volume(create("a")).await });
    gated.wait_until_begun().await;
    served.stop.cancel();
    gated.gate.add_permits(1);
    running.await.unwrap().expect("the running call is answered");
    let Endpoint::Unix(path) = served.endpoint.clone() else {
        panic!("a unix endpoint")
    };
    served.stopped().await.unwrap();
    assert!(!path.exists(), "the socket is removed");
}

#[tokio::test]
async fn who_asks_nothing_and_does_not_hang_up_is_not_waited_for() {
    let gated = Gated::new();
    let served = Served::start(gated_driver(&gated), 2 * LONG).await;
    let Endpoint::Unix(path) = served.endpoint.clone() else {
        panic!("a unix endpoint")
    };
    let mut idle = tokio::net::UnixStream::connect(&path).await.unwrap();
    // HTTP/2 begun, with no settings to tell; what the server says after that is read by nobody.
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    tokio::io::AsyncWriteExt::write_all(
        &mut idle,
        &[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat(),
    )
    .await
    .unwrap();
    let mut first = [0; 1];
    tokio::io::AsyncReadExt::read_exact(&mut idle, &mut first)
        .await
        .unwrap();
    served.stopped().await.unwrap();
    assert!(!path.exists(), "the socket is removed");
    drop(idle);
}

#[tokio::test]
async fn what_outlasts_the_grace_period_is_named() {
    let gated = Gated::new();
    let served = Served::start(gated_driver(&gated), Duration::from_millis(20)).await;
    let mut client = served.controller().await;
    let running = served
        .tasks
        .spawn(async move { client.create_volume(create("a")).await });
    gated.wait_until_begun().await;
    match served.stopped().await {
        Err(ServeError::GraceExceeded { operations, .. }) => assert_eq!(operations, ["CreateVolume for a"]),
        other => panic!("{other:?}"),
    }
    running.abort();
}

#[tokio::test]
async fn what_is_registered_is_what_is_advertised() {
    let gated = Gated::new();
    let plain = Served::start(gated_driver(&gated), GRACE_PERIOD_DEFAULT).await;
    let rpcs = advertised(&plain).await;
    assert_eq!(rpcs, ["CreateDeleteVolume"]);
    let missing = plain
        .controller()
        .await
        .list_volumes(csi::ListVolumesRequest::default())
        .await
        .unwrap_err();
    assert_eq!(missing.code(), Code::Unimplemented);
    let mut node = NodeClient::connect(plain.endpoint.to_string()).await.unwrap();
    assert_eq!(
        node.node_get_info(csi::NodeGetInfoRequest {})
            .await
            .unwrap_err()
            .code(),
        Code::Unimplemented
    );
    plain.stopped().await.unwrap();

    let driver = Driver::builder(DriverInfo::new("more.example.com", "2"))
        .topology()
        .single_node_modes()
        .volumes(Arc::clone(&gated) as _, |groups| groups.done())
        .node(gated, |groups| groups.done())
        .build();
    let more = Served::start(driver, GRACE_PERIOD_DEFAULT).await;
    assert_eq!(
        advertised(&more).await,
        ["CreateDeleteVolume", "SingleNodeMultiWriter"]
    );
    let mut identity = IdentityClient::connect(more.endpoint.to_string()).await.unwrap();
    let answer = identity
        .get_plugin_capabilities(csi::GetPluginCapabilitiesRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        answer.capabilities.len(),
        2,
        "controller service and topology: {answer:?}"
    );
    let mut node = NodeClient::connect(more.endpoint.to_string()).await.unwrap();
    let info = node
        .node_get_info(csi::NodeGetInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((info.node_id.as_str(), info.max_volumes_per_node), ("n", 3));
    more.stopped().await.unwrap();
}

async fn advertised(served: &Served) -> Vec<String> {
    use csi::controller_service_capability::Type;
    let mut client = served.controller().await;
    let answer = client
        .controller_get_capabilities(csi::ControllerGetCapabilitiesRequest {})
        .await
        .unwrap();
    let capabilities = answer.into_inner().capabilities;
    let mut rpcs: Vec<_> = capabilities
        .iter()
        .map(|capability| match &capability.r#type {
            Some(Type::Rpc(rpc)) => format!("{:?}", rpc.r#type()),
            None => panic!("a capability without a type"),
        })
        .collect();
    rpcs.sort();
    rpcs
}

#[tokio::test]
async fn bad_requests_never_reach_the_driver() {
    let gated = Gated::new();
    let served = Served::start(gated_driver(&gated), GRACE_PERIOD_DEFAULT).await;
    let mut client = served.controller().await;
    let cases: [(&str, CreateVolumeRequest); 4] = [
        ("no name", create("")),
        ("a source that can't be", {
            let source = csi::volume_content_source::SnapshotSource {
                snapshot_id: "s".into(),
            };
            let source = csi::volume_content_source::Type::Snapshot(source);
            CreateVolumeRequest {
                volume_content_source: Some(csi::VolumeContentSource { r#type: Some(source) }),
                ..create("a")
            }
        }),
        (
            "parameters to modify",
            CreateVolumeRequest {
                mutable_parameters: [("k".to_owned(), "v".to_owned())].into(),
                ..create("a")
            },
        ),
        ("an access mode not advertised", {
            let mut request = create("a");
            let mode = csi::volume_capability::access_mode::Mode::SingleNodeMultiWriter;
            request.volume_capabilities[0].access_mode =
                Some(csi::volume_capability::AccessMode { mode: mode.into() });
            request
        }),
    ];
    for (name, request) in cases {
        assert_eq!(
            client.create_volume(request).await.unwrap_err().code(),
            Code::InvalidArgument,
            "{name}"
        );
    }
    let no_id = client
        .delete_volume(DeleteVolumeRequest::default())
        .await
        .unwrap_err();
    assert_eq!(no_id.code(), Code::InvalidArgument);
    assert_eq!(gated.begun.available_permits(), 0);
    served.stopped().await.unwrap();
}

#[tokio::test]
async fn sockets_are_private_and_stale_ones_are_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("csi.sock");
    let endpoint = Endpoint::Unix(path.clone());
    let first = endpoint.listen().await.unwrap();
    let seen = std::fs::metadata(&path).unwrap();
    assert!(seen.file_type().is_socket());
    assert_eq!(seen.permissions().mode() & 0o777, 0o600);
    assert!(matches!(endpoint.listen().await, Err(EndpointError::InUse(_))));
    drop(first);
    assert!(!path.exists());

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a socket that nobody listens on");
    let second = endpoint.listen().await.expect("it is replaced");
    // Somebody else has taken the name meanwhile: it is not ours to remove.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "other").unwrap();
    drop(second);
    assert!(path.exists());
    assert!(matches!(
        endpoint.listen().await,
        Err(EndpointError::NotASocket(_))
    ));
}

#[tokio::test]
async fn loopback_tcp_works_and_other_addresses_are_refused() {
    let gated = Gated::new();
    let probe = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let endpoint: Endpoint = format!("tcp://127.0.0.1:{port}").parse().unwrap();
    let listener = endpoint.listen().await.unwrap();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let serving = tasks.spawn(gated_driver(&gated).serve(listener, GRACE_PERIOD_DEFAULT, stop.clone()));
    let mut client = IdentityClient::connect(format!("http://127.0.0.1:{port}"))
        .await
        .unwrap();
    assert_eq!(
        client
            .probe(csi::ProbeRequest {})
            .await
            .unwrap()
            .into_inner()
            .ready,
        Some(true)
    );
    stop.cancel();
    serving.await.unwrap().unwrap();

    let open: Endpoint = "tcp://10.0.0.1:1".parse().unwrap();
    assert!(matches!(open.listen().await, Err(EndpointError::NotLoopback(_))));
    for text in ["", "csi.sock", "http://x", "tcp://localhost:1", "unix://relative"] {
        assert!(
            matches!(text.parse::<Endpoint>(), Err(EndpointError::Malformed(_))),
            "{text:?}"
        );
    }
    for text in ["unix:///a", "unix:/a", "/a"] {
        assert_eq!(text.parse::<Endpoint>().unwrap(), Endpoint::Unix("/a".into()));
    }
}
