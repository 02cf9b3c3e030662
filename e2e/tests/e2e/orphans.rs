//! The sidecars killed inside CreateVolume and the claim deleted before they are back: no volume without persistent volume
//! is left in the backend.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use moorline_e2e::{cluster::TestCluster, require_kubectl, require_node, wait};
use moorline_proto::csi::{ListVolumesRequest, controller_client::ControllerClient};

use crate::{
    interruptions::{CSI_DRIVER, driver_socket, start_driver, start_sidecars_at},
    manifests::{claim, class, together},
};

const LIMIT: Duration = Duration::from_secs(60);

/// A socket before the driver's that hands on every call; from some moment on, no answer comes back.
pub(crate) struct MuteProxy {
    pub(crate) socket: PathBuf,
    is_mute: Arc<AtomicBool>,
}

impl MuteProxy {
    pub(crate) fn start(dir: &Path, driver: PathBuf) -> Self {
        let socket = dir.join("proxy.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let is_mute = Arc::new(AtomicBool::new(false));
        let mute = Arc::clone(&is_mute);
        // Ends with the test's process; both sides of each connection end it for its threads.
        std::thread::spawn(move || {
            for caller in listener.incoming().map_while(Result::ok) {
                let Ok(driver) = UnixStream::connect(&driver) else {
                    continue;
                };
                let (from_caller, to_driver) = (caller.try_clone().unwrap(), driver.try_clone().unwrap());
                std::thread::spawn(move || forward(from_caller, to_driver, || false));
                let mute = Arc::clone(&mute);
                std::thread::spawn(move || forward(driver, caller, || mute.load(Ordering::SeqCst)));
            }
        });
        Self { socket, is_mute }
    }

    pub(crate) fn mute(&self) {
        self.is_mute.store(true, Ordering::SeqCst);
    }
}

/// Hands on what comes until the end, or drops it.
fn forward(mut from: UnixStream, mut to: UnixStream, is_mute: impl Fn() -> bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || (!is_mute() && to.write_all(&buffer[..count]).is_err()) {
            break;
        }
    }
    // The other side may be gone already.
    to.shutdown(Shutdown::Both).ok();
}

/// The volumes that the driver has, asked past the proxy.
pub(crate) async fn volumes(socket: &Path) -> Result<Vec<String>, String> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("unix://{}", socket.display()))
        .map_err(|error| error.to_string())?;
    let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
    let answer = ControllerClient::new(channel)
        .list_volumes(ListVolumesRequest::default())
        .await
        .map_err(|status| status.to_string())?
        .into_inner();
    let volumes = answer.entries.into_iter().filter_map(|entry| entry.volume);
    Ok(volumes.map(|volume| volume.volume_id).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_killed_inside_create_volume_and_the_claim_deleted_leave_no_volume() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--no-driver"]);
    let kubectl = cluster.kubectl();
    let socket = driver_socket(&cluster);
    let driver = start_driver(&cluster, &[]);
    wait::until("the driver's socket", LIMIT, || {
        if socket.exists() { Ok(()) } else { Err("not there") }
    });
    let proxy = MuteProxy::start(cluster.root(), socket.clone());
    let sidecars = start_sidecars_at(&cluster, &proxy.socket);
    kubectl.apply_ok(&together(&[
        CSI_DRIVER.to_owned(),
        class("now", "Immediate", "Delete"),
        claim("before", "now", "ReadWriteOnce", "1Mi"),
    ]));
    kubectl.wait_field("pvc", "before", "{.status.phase}", "Bound", LIMIT);
    proxy.mute();
    kubectl.apply_ok(&claim("lost", "now", "ReadWriteOnce", "1Mi"));
    let made = wait::until_async("the driver to make the second volume", LIMIT, || async {
        let volumes = volumes(&socket).await?;
        if volumes.len() == 2 {
            Ok(volumes)
        } else {
            Err(format!("{volumes:?}"))
        }
    })
    .await;
    sidecars.kill_9();
    assert_eq!(
        kubectl.run(&["get", "pv", "-o", "name"]).lines().count(),
        1,
        "the answer got through"
    );
    kubectl.run(&["delete", "pvc", "lost", "--timeout=60s"]);
    assert_eq!(
        volumes(&socket).await.unwrap(),
        made,
        "nobody is there to delete it yet"
    );

    let sidecars = start_sidecars_at(&cluster, &socket);
    wait::until_async("the lost volume to be deleted", LIMIT, || async {
        let volumes = volumes(&socket).await?;
        if volumes.len() == 1 {
            Ok(())
        } else {
            Err(format!("{volumes:?}"))
        }
    })
    .await;
    wait::until("its persistent volume to go", LIMIT, || {
        let left = kubectl.run(&["get", "pv", "-o", "name"]);
        if left.lines().count() == 1 {
            Ok(())
        } else {
            Err(left)
        }
    });
    assert_eq!(kubectl.field("pvc", "before", "{.status.phase}"), "Bound");
    kubectl.run(&["delete", "pvc", "before", "--timeout=60s"]);
    wait::until("all volumes to be gone", LIMIT, || {
        let left = kubectl.call(&["get", "pv", "-o", "name"]).stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    sidecars.kill_9();
    driver.kill_9();
    cluster.finish();
}
