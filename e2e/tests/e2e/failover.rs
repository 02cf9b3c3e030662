//! Two replicas of a sidecar: the one that leads is killed, or frozen, in the middle of a call to the driver. The other
//! goes on; nothing is made twice, nothing is left behind.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_e2e::{
    cluster::TestCluster, kubectl::Kubectl, process::Part, require_kubectl, require_node, wait,
};
use nix::sys::signal::Signal;

use crate::{
    dropins::link,
    interruptions::{CSI_DRIVER, driver_socket, start_driver},
    manifests::{claim, class, together},
    orphans::{MuteProxy, volumes},
};

const LIMIT: Duration = Duration::from_secs(90);
const PROVISIONER_LEASE: &str = "local-csi-moorline-dev";
const MERGED_LEASE: &str = "moorline-sidecars-local-csi-moorline-dev";

/// A replica with a pod's name, calling the driver at `socket`; `lease_seconds` is how long others wait when it is killed.
fn replica(cluster: &TestCluster, pod: &str, socket: &Path, lease_seconds: u32) -> Part {
    let args = [
        format!("--csi-address={}", socket.display()),
        format!("--kubeconfig={}", cluster.kubeconfig().display()),
        "--leader-election".to_owned(),
        "--leader-election-namespace=default".to_owned(),
        format!("--leader-election-lease-duration={lease_seconds}s"),
        format!("--leader-election-renew-deadline={}s", lease_seconds - 1),
        "--leader-election-retry-period=500ms".to_owned(),
        "--kube-api-qps=0".to_owned(),
        "--timeout=60s".to_owned(),
    ];
    let log = cluster.root().join(format!("{pod}.log"));
    Part::start_program(
        &link(cluster, "csi-provisioner"),
        &args,
        &[("POD_NAME", pod)],
        &log,
    )
}

/// Tells the kubelet of the driver: where its volumes can be is on the node object only then.
fn start_registrar(cluster: &TestCluster, socket: &Path) -> Part {
    let args = [
        format!("--csi-address={}", socket.display()),
        format!("--kubelet-registration-path={}", socket.display()),
        format!(
            "--plugin-registration-path={}",
            cluster.state().join("kubelet/plugins_registry").display()
        ),
    ];
    let log = cluster.root().join("registrar.log");
    Part::start_program(&link(cluster, "csi-node-driver-registrar"), &args, &[], &log)
}

fn wait_for_leader(kubectl: &Kubectl, lease: &str, pod: &str) {
    wait::until(&format!("{pod} to lead"), LIMIT, || {
        let holder = kubectl
            .call(&["get", "lease", lease, "-o", "jsonpath={.spec.holderIdentity}"])
            .stdout;
        if holder == pod { Ok(()) } else { Err(holder) }
    });
}

async fn wait_for_volumes(socket: &Path, count: usize) {
    wait::until_async(&format!("the driver to have {count} volumes"), LIMIT, || async {
        let found = volumes(socket).await?;
        if found.len() == count {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
}

fn pv_count(kubectl: &Kubectl) -> usize {
    kubectl.call(&["get", "pv", "-o", "name"]).stdout.lines().count()
}

async fn delete_all(kubectl: &Kubectl, socket: &Path) {
    kubectl.run(&["delete", "pvc", "--all", "--timeout=90s"]);
    wait_for_volumes(socket, 0).await;
    wait::until("all volumes' objects to be gone", LIMIT, || {
        match pv_count(kubectl) {
            0 => Ok(()),
            some => Err(some),
        }
    });
}

/// A cluster without sidecars of its own, and a driver that the kubelet knows.
struct Scene {
    /// There but for the moment between one and the next.
    driver: Option<Part>,
    registrar: Part,
    socket: PathBuf,
    /// Dropped last: the others live in it.
    cluster: TestCluster,
}

impl Scene {
    fn start() -> Self {
        let cluster = TestCluster::start(&["--no-driver"]);
        let socket = driver_socket(&cluster);
        let mut driver = start_driver(&cluster, &[]);
        driver.wait_for_socket(&socket, LIMIT).unwrap();
        Scene {
            driver: Some(driver),
            registrar: start_registrar(&cluster, &socket),
            socket,
            cluster,
        }
    }

    fn restart_driver(&mut self) {
        self.driver.take().expect("it was started").kill_9();
        let mut next = start_driver(&self.cluster, &[]);
        next.wait_for_socket(&self.socket, LIMIT).unwrap();
        self.driver = Some(next);
    }

    /// Deletes all claims and ends everything, the sidecar that still runs before the driver.
    async fn end(self, sidecar: Part) {
        delete_all(&self.cluster.kubectl(), &self.socket).await;
        sidecar.terminate(LIMIT).unwrap();
        self.registrar.terminate(LIMIT).unwrap();
        self.driver.expect("it was started").kill_9();
        self.cluster.finish();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_inside_create_volume_is_followed_without_orphan_or_double() {
    require_node!();
    require_kubectl!();
    let scene = Scene::start();
    let (kubectl, socket) = (scene.cluster.kubectl(), scene.socket.clone());
    let proxy = MuteProxy::start(scene.cluster.root(), socket.clone());
    let first = replica(&scene.cluster, "pod-a", &proxy.socket, 4);
    wait_for_leader(&kubectl, PROVISIONER_LEASE, "pod-a");
    let second = replica(&scene.cluster, "pod-b", &socket, 4);
    kubectl.apply_ok(&together(&[
        CSI_DRIVER.to_owned(),
        class("now", "Immediate", "Delete"),
        claim("before", "now", "ReadWriteOnce", "1Mi"),
    ]));
    kubectl.wait_field("pvc", "before", "{.status.phase}", "Bound", LIMIT);
    proxy.mute();
    kubectl.apply_ok(&together(&[
        claim("kept", "now", "ReadWriteOnce", "1Mi"),
        claim("gone", "now", "ReadWriteOnce", "1Mi"),
    ]));
    wait_for_volumes(&socket, 3).await;
    assert_eq!(pv_count(&kubectl), 1, "no answer came back");
    first.kill_9();
    // Before anybody leads again: only the ledger knows its volume.
    kubectl.run(&["delete", "pvc", "gone", "--timeout=60s"]);
    wait_for_leader(&kubectl, PROVISIONER_LEASE, "pod-b");
    kubectl.wait_field("pvc", "kept", "{.status.phase}", "Bound", LIMIT);
    wait_for_volumes(&socket, 2).await;
    wait::until("two volumes' objects", LIMIT, || match pv_count(&kubectl) {
        2 => Ok(()),
        some => Err(some),
    });
    scene.end(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_frozen_inside_create_volume_ends_when_it_wakes_and_its_successor_is_not_disturbed() {
    require_node!();
    require_kubectl!();
    let scene = Scene::start();
    let (kubectl, socket) = (scene.cluster.kubectl(), scene.socket.clone());
    let proxy = MuteProxy::start(scene.cluster.root(), socket.clone());
    let first = replica(&scene.cluster, "pod-a", &proxy.socket, 4);
    wait_for_leader(&kubectl, PROVISIONER_LEASE, "pod-a");
    proxy.mute();
    kubectl.apply_ok(&together(&[
        CSI_DRIVER.to_owned(),
        class("now", "Immediate", "Delete"),
        claim("data", "now", "ReadWriteOnce", "1Mi"),
    ]));
    wait_for_volumes(&socket, 1).await;
    first.signal(Signal::SIGSTOP);
    let second = replica(&scene.cluster, "pod-b", &socket, 4);
    wait_for_leader(&kubectl, PROVISIONER_LEASE, "pod-b");
    kubectl.wait_field("pvc", "data", "{.status.phase}", "Bound", LIMIT);
    first.signal(Signal::SIGCONT);
    assert_eq!(first.wait_exit(LIMIT), Some(1), "who has lost the lease ends");
    assert_eq!(
        (volumes(&socket).await.unwrap().len(), pv_count(&kubectl)),
        (1, 1)
    );
    wait_for_leader(&kubectl, PROVISIONER_LEASE, "pod-b");
    scene.end(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn merged_sidecars_hand_the_lease_over_when_they_are_asked_to_end() {
    require_node!();
    require_kubectl!();
    let mut scene = Scene::start();
    let (kubectl, socket) = (scene.cluster.kubectl(), scene.socket.clone());
    // Longer than the test waits: only a lease that is given back can be taken.
    let merged = |pod: &str| {
        let args = [
            "sidecars".to_owned(),
            format!("--csi-address={}", socket.display()),
            format!("--kubeconfig={}", scene.cluster.kubeconfig().display()),
            "--run=provisioner,csi-attacher".to_owned(),
            "--leader-election".to_owned(),
            "--leader-election-namespace=default".to_owned(),
            "--leader-election-lease-duration=10m".to_owned(),
            "--leader-election-renew-deadline=9m".to_owned(),
            "--leader-election-retry-period=500ms".to_owned(),
        ];
        let log = scene.cluster.root().join(format!("{pod}.log"));
        Part::start_program(
            &moorline_e2e::process::binary(),
            &args,
            &[("POD_NAME", pod)],
            &log,
        )
    };
    let first = merged("pod-a");
    wait_for_leader(&kubectl, MERGED_LEASE, "pod-a");
    let second = merged("pod-b");
    kubectl.apply_ok(&together(&[
        CSI_DRIVER.to_owned(),
        class("now", "Immediate", "Delete"),
        claim("one", "now", "ReadWriteOnce", "1Mi"),
    ]));
    kubectl.wait_field("pvc", "one", "{.status.phase}", "Bound", LIMIT);
    // No restart when the driver is lost: the same process goes on with it.
    scene.restart_driver();
    kubectl.apply_ok(&claim("two", "now", "ReadWriteOnce", "1Mi"));
    kubectl.wait_field("pvc", "two", "{.status.phase}", "Bound", LIMIT);
    wait_for_leader(&kubectl, MERGED_LEASE, "pod-a");
    first.terminate(LIMIT).unwrap();
    wait_for_leader(&kubectl, MERGED_LEASE, "pod-b");
    kubectl.apply_ok(&claim("three", "now", "ReadWriteOnce", "1Mi"));
    kubectl.wait_field("pvc", "three", "{.status.phase}", "Bound", LIMIT);
    scene.end(second).await;
}
