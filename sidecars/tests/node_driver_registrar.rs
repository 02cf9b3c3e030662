//! The registrar as the kubelet sees it.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use moorline_proto::pluginregistration::registration_client::RegistrationClient;
use moorline_proto::pluginregistration::{InfoRequest, RegistrationStatus};
use moorline_sidecars::registrar::{self, RegistrarConfig};
use support::{DRIVER, World};
use tonic::transport::{Channel, Endpoint};

async fn dial(path: &Path) -> RegistrationClient<Channel> {
    let path = path.to_path_buf();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
    });
    let channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await;
    RegistrationClient::new(channel.expect("registration socket answers"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_driver_is_announced_and_withdrawn() {
    let world = World::new(&[]).await;
    let directory = world.directory.path().join("plugins_registry");
    let socket = registrar::socket_path(&directory, DRIVER);
    std::fs::create_dir(&directory).expect("directory");
    // What an earlier process left behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("stale socket"));
    let config = RegistrarConfig {
        csi_address: world.csi_address(),
        plugin_registration_dir: directory.clone(),
        kubelet_registration_path: "/var/lib/kubelet/plugins/x/csi.sock".to_string(),
        timeout: Duration::from_secs(1),
    };
    let stop = world.stop.clone();
    world
        .tasks
        .spawn(async move { registrar::run(config, stop).await.expect("registrar") });
    let is_served = || std::os::unix::net::UnixStream::connect(&socket).ok().map(drop);
    world.until("socket not served", is_served).await;
    let mode = std::fs::metadata(&socket).expect("socket").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let left: Vec<_> = std::fs::read_dir(&directory)
        .expect("list")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, [socket.file_name().expect("name")]);

    let mut client = dial(&socket).await;
    let info = client.get_info(InfoRequest {}).await.expect("info").into_inner();
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", DRIVER));
    assert_eq!(info.endpoint, "/var/lib/kubelet/plugins/x/csi.sock");
    assert_eq!(info.supported_versions, ["1.0.0"]);
    for plugin_registered in [false, true] {
        let status = RegistrationStatus {
            plugin_registered,
            error: "scripted".to_string(),
        };
        client.notify_registration_status(status).await.expect("notified");
    }
    drop(client);
    world.end().await;
    assert!(!socket.exists(), "the socket is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_was_removed_is_made_again() {
    let world = World::new(&[]).await;
    let directory = world.directory.path().join("plugins_registry");
    let socket = registrar::socket_path(&directory, DRIVER);
    let config = RegistrarConfig {
        csi_address: world.csi_address(),
        plugin_registration_dir: directory,
        kubelet_registration_path: "/csi.sock".to_string(),
        timeout: Duration::from_secs(1),
    };
    let stop = world.stop.clone();
    world
        .tasks
        .spawn(async move { registrar::run(config, stop).await.expect("registrar") });
    world.until("no socket", || socket.exists().then_some(())).await;
    std::fs::remove_file(&socket).expect("remove");
    world
        .until("socket not made again", || socket.exists().then_some(()))
        .await;
    dial(&socket).await.get_info(InfoRequest {}).await.expect("info");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_in_the_sockets_place_is_not_touched() {
    let world = World::new(&[]).await;
    let directory = world.directory.path().to_path_buf();
    let socket = registrar::socket_path(&directory, DRIVER);
    std::fs::write(&socket, "precious").expect("write");
    let config = RegistrarConfig {
        csi_address: world.csi_address(),
        plugin_registration_dir: directory,
        kubelet_registration_path: "/csi.sock".to_string(),
        timeout: Duration::from_secs(1),
    };
    let error = registrar::run(config, world.stop.clone())
        .await
        .expect_err("refused");
    assert!(
        matches!(error, registrar::RegistrarError::NotASocket(_)),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(&socket).expect("still there"), "precious");
    world.end().await;
}
