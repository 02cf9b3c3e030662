//! Parts that go away in mid-work, a pool that is full, a device that is busy: told clearly, and gone on with when the
//! cause is gone.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::PostParams,
    runtime::{WatchStreamExt as _, watcher},
};
use moorline_e2e::{cluster::TestCluster, process::Part, require_kubectl, require_node, wait};

use crate::manifests::{and_stay, claim, class, pod, together};

const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const DRIVER: &str = "local.csi.moorline.dev";
pub(crate) const CSI_DRIVER: &str = "
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: local.csi.moorline.dev}
spec: {attachRequired: false, fsGroupPolicy: File}
";

/// Starts the reference driver as a process of its own beside a cluster.
pub(crate) fn start_driver(cluster: &TestCluster, more: &[&str]) -> Part {
    let kubelet = cluster.state().join("kubelet");
    let plugin = kubelet.join("plugins").join(DRIVER);
    std::fs::create_dir_all(&plugin).unwrap();
    let mut args = vec![
        "driver".to_owned(),
        "--node-id=n1".to_owned(),
        "--backend=dir".to_owned(),
        format!("--endpoint=unix://{}/csi.sock", plugin.display()),
        format!("--pool-dir={}", cluster.state().join("pool").display()),
        format!("--target-root={}", kubelet.display()),
    ];
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    Part::start(&args, &cluster.root().join("driver.log"))
}

/// The socket of that driver.
pub(crate) fn driver_socket(cluster: &TestCluster) -> PathBuf {
    cluster.state().join(format!("kubelet/plugins/{DRIVER}/csi.sock"))
}

/// Starts all sidecars of that driver as another process.
fn start_sidecars(cluster: &TestCluster) -> Part {
    start_sidecars_at(cluster, &driver_socket(cluster))
}

/// The same, with the driver behind another socket.
pub(crate) fn start_sidecars_at(cluster: &TestCluster, socket: &Path) -> Part {
    let kubelet = cluster.state().join("kubelet");
    let args = [
        "sidecars".to_owned(),
        format!("--csi-address={}", socket.display()),
        format!("--kubeconfig={}", cluster.kubeconfig().display()),
        format!("--plugin-registration-dir={}/plugins_registry", kubelet.display()),
    ];
    Part::start(&args, &cluster.root().join("sidecars.log"))
}

fn bound(kubectl: &moorline_e2e::kubectl::Kubectl) -> usize {
    let phases = kubectl
        .call(&["get", "pvc", "-o", "jsonpath={.items[*].status.phase}"])
        .stdout;
    phases
        .split_whitespace()
        .filter(|phase| *phase == "Bound")
        .count()
}

#[test]
fn a_driver_killed_in_mid_call_is_waited_for_and_every_claim_gets_one_volume() {
    require_node!();
    require_kubectl!();
    const CLAIMS: usize = 60;
    let cluster = TestCluster::start(&["--no-driver", "--host-image"]);
    let kubectl = cluster.kubectl();
    let driver = start_driver(&cluster, &[]);
    let sidecars = start_sidecars(&cluster);
    let claims: Vec<String> = (0..CLAIMS)
        .map(|number| claim(&format!("c-{number}"), "now", "ReadWriteOnce", "1Mi"))
        .collect();
    kubectl.apply_ok(&together(&[
        CSI_DRIVER.to_owned(),
        class("now", "Immediate", "Delete"),
    ]));
    let manifest = together(&claims);
    let applying = {
        let kubectl = kubectl.clone();
        std::thread::spawn(move || kubectl.apply_ok(&manifest))
    };
    wait::until("the first claims to be bound", LIMIT, || match bound(&kubectl) {
        0 => Err("none is"),
        _ => Ok(()),
    });
    driver.kill_9();
    applying.join().unwrap();
    let driver = start_driver(&cluster, &[]);
    wait::until("all claims to be bound", LIMIT, || match bound(&kubectl) {
        CLAIMS => Ok(()),
        some => Err(format!("{some} of {CLAIMS}")),
    });
    // The driver comes back for the kubelet, too.
    kubectl.apply_ok(&pod("app", "c-0", &and_stay("echo hello > /data/file")));
    kubectl.wait_field("pod", "app", "{.status.phase}", "Running", LIMIT);
    let pvs = kubectl.run(&["get", "pv", "-o", "jsonpath={.items[*].spec.csi.volumeHandle}"]);
    let handles: BTreeSet<&str> = pvs.split_whitespace().collect();
    assert_eq!(handles.len(), CLAIMS, "one volume for each claim");
    kubectl.run(&["delete", "pod", "app", "--timeout=60s"]);
    kubectl.run(&["delete", "pvc", "--all", "--timeout=60s"]);
    wait::until("all volumes to be gone", LIMIT, || {
        let left = kubectl.call(&["get", "pv", "-o", "name"]).stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    sidecars.kill_9();
    driver.kill_9();
    cluster.finish();
}

#[test]
fn a_full_pool_says_so_and_goes_on_when_there_is_room_again() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--no-driver"]);
    let kubectl = cluster.kubectl();
    let driver = start_driver(&cluster, &["--capacity=64Mi"]);
    let sidecars = start_sidecars(&cluster);
    kubectl.apply_ok(&together(&[
        CSI_DRIVER.to_owned(),
        class("now", "Immediate", "Delete"),
        claim("first", "now", "ReadWriteOnce", "48Mi"),
    ]));
    kubectl.wait_field("pvc", "first", "{.status.phase}", "Bound", LIMIT);
    kubectl.apply_ok(&claim("second", "now", "ReadWriteOnce", "48Mi"));
    let why = kubectl.wait_event("second", "ProvisioningFailed", LIMIT);
    assert!(why.contains("ResourceExhausted"), "{why}");
    assert_eq!(kubectl.field("pvc", "second", "{.status.phase}"), "Pending");
    kubectl.run(&["delete", "pvc", "first", "--timeout=60s"]);
    kubectl.wait_field("pvc", "second", "{.status.phase}", "Bound", LIMIT);
    kubectl.run(&["delete", "pvc", "second", "--timeout=60s"]);
    wait::until("all volumes to be gone", LIMIT, || {
        let left = kubectl.call(&["get", "pv", "-o", "name"]).stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    sidecars.kill_9();
    driver.kill_9();
    cluster.finish();
}

#[test]
fn a_volume_that_is_busy_at_unmount_keeps_its_pod_until_it_is_free() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--host-image", "--driver-backend", "loop"]);
    let kubectl = cluster.kubectl();
    kubectl.apply_ok(&together(&[
        class("busy", "WaitForFirstConsumer", "Delete"),
        claim("data", "busy", "ReadWriteOnce", "16Mi"),
        pod("app", "data", &and_stay("true")),
    ]));
    kubectl.wait_field("pod", "app", "{.status.phase}", "Running", LIMIT);
    let uid = kubectl.field("pod", "app", "{.metadata.uid}");
    let pv = kubectl.field("pvc", "data", "{.spec.volumeName}");
    let mounted = cluster
        .state()
        .join(format!("kubelet/pods/{uid}/volumes/kubernetes.io~csi/{pv}/mount"));
    let mut squatter = Command::new("sleep")
        .arg("3600")
        .current_dir(&mounted)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    kubectl.run(&["delete", "pod", "app", "--wait=false"]);
    let why = wait::until("somebody to say that the volume is busy", LIMIT, || {
        let events = kubectl
            .call(&["events", "--types=Warning", "--no-headers"])
            .stdout;
        let said = format!("{events}{}", cluster.log_text());
        if said.to_lowercase().contains("busy") {
            Ok(said)
        } else {
            Err(said)
        }
    });
    assert!(
        !kubectl.field("pod", "app", "{.metadata.name}").is_empty(),
        "the pod went too early: {why}"
    );
    squatter.kill().unwrap();
    squatter.wait().unwrap();
    wait::until("the pod to go", LIMIT, || {
        let left = kubectl.field("pod", "app", "{.metadata.name}");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    kubectl.run(&["delete", "pvc", "data", "--timeout=60s"]);
    cluster.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_see_everything_over_restarts_of_the_api_server() {
    let mut cluster = TestCluster::start(&["--no-kubelet", "--no-driver"]);
    let client = cluster.client().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let mut seen = watcher(api.clone(), watcher::Config::default().labels("test=restart"))
        .default_backoff()
        .applied_objects()
        .boxed();
    let mut names = BTreeSet::new();
    for round in 0..4 {
        let name = format!("round-{round}");
        let object: ConfigMap = serde_json::from_value(
            serde_json::json!({"metadata": {"name": name, "labels": {"test": "restart"}}}),
        )
        .unwrap();
        wait::until_async("the API to take an object", LIMIT, || async {
            match api.create(&PostParams::default(), &object).await {
                Ok(_) => Ok(()),
                // The first try may have been taken, and its answer lost with the server.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        let until_seen = async {
            while !names.contains(&name) {
                // Errors of the watch are what a restart is; it goes on by itself.
                match seen.try_next().await {
                    Ok(Some(object)) => drop(names.insert(object.name_any())),
                    Ok(None) => panic!("the watch ended for good"),
                    Err(error) => println!("the watch was cut: {error}"),
                }
            }
        };
        tokio::time::timeout(LIMIT, until_seen)
            .await
            .expect("the watcher sees the object in time");
        cluster.kill_9();
        cluster.up();
    }
    assert_eq!(names.len(), 4);
}
