//! The sidecars and the controllers as programs of their own: under upstream's names and flags, each with an account that may
//! do what its manifest in `deploy` says and nothing else.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_e2e::{
    cluster::TestCluster,
    kubectl::Kubectl,
    process::{self, Part},
    require_kubectl, require_node, wait,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    deploy::{Request, deploy, is_allowed, rules_of},
    interruptions::{DRIVER, driver_socket, start_driver},
    manifests::{and_stay, claim, class, pod, together},
    orphans::volumes,
};

const LIMIT: Duration = Duration::from_secs(90);
pub(crate) const NAMESPACE: &str = "csi";
/// A CSIDriver whose volumes are attached.
const ATTACHED_DRIVER: &str = "
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: local.csi.moorline.dev}
spec: {attachRequired: true, fsGroupPolicy: File}
";
/// So that the log holds each request, and nothing else that is long.
pub(crate) const LOG_REQUESTS: (&str, &str) = ("RUST_LOG", "info,moorline::requests=trace");

/// A link to the binary under a sidecar's name.
pub(crate) fn link(cluster: &TestCluster, name: &str) -> PathBuf {
    let dir = cluster.root().join("bin");
    std::fs::create_dir_all(&dir).unwrap();
    let link = dir.join(name);
    if !link.exists() {
        std::os::unix::fs::symlink(process::binary(), &link).unwrap();
    }
    link
}

/// An address on loopback that nobody listens on.
pub(crate) fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// What an HTTP endpoint answers, head and body; empty when nobody listens.
fn get(address: &str, path: &str) -> String {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        // A server that is just ending may close in between.
        stream.write_all(request.as_bytes()).ok();
        stream.read_to_string(&mut text).ok();
    }
    text
}

pub(crate) fn wait_for(address: &str, path: &str, parts: &[&str]) {
    wait::until(&format!("{parts:?} at {path}"), LIMIT, || {
        let text = get(address, path);
        if parts.iter().all(|part| text.contains(part)) {
            Ok(())
        } else {
            Err(text)
        }
    });
}

/// A kubeconfig of a service account, made from the admin's.
pub(crate) fn kubeconfig_of(cluster: &TestCluster, namespace: &str, account: &str) -> PathBuf {
    let kubectl = cluster.kubectl();
    let token = kubectl.run(&["-n", namespace, "create", "token", account]);
    let text = kubectl.run(&["config", "view", "--raw", "-o", "json"]);
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let user = config["users"][0]["name"].clone();
    config["users"] = json!([{"name": user, "user": {"token": token}}]);
    let path = cluster.root().join(format!("{account}.kubeconfig"));
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// Makes an account that may do what its manifest says.
pub(crate) fn account(kubectl: &Kubectl, name: &str) {
    let role = format!("moorline-{name}");
    let subject = format!("--serviceaccount={NAMESPACE}:{name}");
    let manifest = deploy().join(format!("rbac/{name}.yaml"));
    kubectl.run(&["-n", NAMESPACE, "apply", "-f", manifest.to_str().unwrap()]);
    kubectl.run(&["-n", NAMESPACE, "create", "serviceaccount", name]);
    kubectl.run(&[
        "create",
        "clusterrolebinding",
        name,
        &format!("--clusterrole={role}"),
        &subject,
    ]);
    kubectl.run(&[
        "-n",
        NAMESPACE,
        "create",
        "rolebinding",
        name,
        &format!("--role={role}"),
        &subject,
    ]);
}

/// A running drop-in.
pub(crate) struct Sidecar {
    pub(crate) name: &'static str,
    pub(crate) part: Part,
    pub(crate) address: String,
    pub(crate) log: PathBuf,
}

fn start(cluster: &TestCluster, name: &'static str, more: &[String]) -> Sidecar {
    let mut args = vec![format!("-csi-address={}", driver_socket(cluster).display())];
    args.extend_from_slice(more);
    start_alone(cluster, name, &args)
}

/// Starts a program that need not have a driver.
pub(crate) fn start_alone(cluster: &TestCluster, name: &'static str, more: &[String]) -> Sidecar {
    let address = free_address();
    let log = cluster.root().join(format!("{name}.log"));
    let mut args = vec![
        format!("--http-endpoint={address}"),
        "--logging-format".to_owned(),
        "json".to_owned(),
        "-v=2".to_owned(),
        "--automaxprocs".to_owned(),
    ];
    args.extend_from_slice(more);
    let part = Part::start_program(&link(cluster, name), &args, &[LOG_REQUESTS], &log);
    Sidecar {
        name,
        part,
        address,
        log,
    }
}

/// Starts a sidecar under an account that has its role.
pub(crate) fn start_controller(cluster: &TestCluster, name: &'static str) -> Sidecar {
    start_controller_with(cluster, name, &[])
}

/// The same, with more flags.
pub(crate) fn start_controller_with(cluster: &TestCluster, name: &'static str, more: &[&str]) -> Sidecar {
    account(&cluster.kubectl(), name);
    let kubeconfig = kubeconfig_of(cluster, NAMESPACE, name);
    let mut args = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--leader-election".to_owned(),
        format!("--leader-election-namespace={NAMESPACE}"),
        "-timeout=15s".to_owned(),
        "--kube-api-qps=50".to_owned(),
    ];
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    start(cluster, name, &args)
}

/// The requests for resources that a program has logged; which kinds there are, every account may ask.
pub(crate) fn requests(log: &Path) -> BTreeSet<Request> {
    let text = std::fs::read_to_string(log).unwrap();
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["message"] == "API request")
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            Request::parse(&text("method"), &text("path"), &text("query"))
        })
        .filter(|request| !request.resource.is_empty())
        .collect()
}

/// What only some drivers or volumes need, or only old API servers.
fn is_occasional(request: &Request) -> bool {
    let resource = request.resource.as_str();
    let of_capacity = [
        "csistoragecapacities",
        "pods",
        "replicasets",
        "statefulsets",
        "daemonsets",
    ];
    of_capacity.contains(&resource)
        || matches!(resource, "secrets" | "volumeattributesclasses")
        || matches!(resource, "volumesnapshots" | "volumesnapshotcontents")
        || matches!(
            (resource, request.verb.as_str()),
            (_, "list")
                | ("configmaps" | "events", "patch")
                | ("persistentvolumeclaims", "get" | "patch" | "update")
                | ("persistentvolumes" | "volumeattachments", "get")
                | ("leases", "create" | "update")
        )
}

fn check_requests(kubectl: &Kubectl, sidecar: &Sidecar) {
    check_requests_in(kubectl, NAMESPACE, sidecar, is_occasional);
}

/// Checks that a program asked for nothing but what its roles allow, and that they allow nothing that it never asks for.
pub(crate) fn check_requests_in(
    kubectl: &Kubectl,
    namespace: &str,
    sidecar: &Sidecar,
    is_occasional: impl Fn(&Request) -> bool,
) {
    let log = std::fs::read_to_string(&sidecar.log).unwrap();
    assert!(!log.contains("orbidden"), "{}: {log}", sidecar.name);
    let rules = rules_of(kubectl, namespace, &format!("moorline-{}", sidecar.name));
    let asked = requests(&sidecar.log);
    assert!(!asked.is_empty(), "{} logs no requests", sidecar.name);
    for request in &asked {
        assert!(is_allowed(&rules, request), "{}: {request:?}", sidecar.name);
    }
    let unused: Vec<Request> = rules
        .iter()
        .flat_map(crate::deploy::grants)
        .filter(|grant| !asked.contains(grant) && !is_occasional(grant))
        .collect();
    assert!(
        unused.is_empty(),
        "{} may do what it never does: {unused:?}",
        sidecar.name
    );
}

fn check_endpoints(sidecars: &[Sidecar]) {
    for sidecar in sidecars {
        wait_for(&sidecar.address, "/healthz", &["200 OK", "ok"]);
        if sidecar.name != "csi-node-driver-registrar" && sidecar.name != "livenessprobe" {
            wait_for(&sidecar.address, "/healthz/leader-election", &["200 OK"]);
            wait_for(
                &sidecar.address,
                "/metrics",
                &[
                    "process_start_time_seconds",
                    "leader_election_master_status{name=\"",
                ],
            );
        }
    }
    let called = |method: &str| {
        format!(
            "csi_sidecar_operations_seconds_count{{driver_name=\"{DRIVER}\",method_name=\"/csi.v1.{method}\",grpc_status_code=\"OK\"}}"
        )
    };
    let expected: [(&str, Vec<String>); 4] = [
        (
            "csi-provisioner",
            vec![
                called("Controller/CreateVolume"),
                called("Controller/DeleteVolume"),
                "workqueue_adds_total{name=\"claims\"}".into(),
                "leader_election_master_status{name=\"local-csi-moorline-dev\"} 1".into(),
                "controller_persistentvolumeclaim_provision_total{class=\"now\",source=\"\"} 1".into(),
                "controller_persistentvolume_delete_total{class=\"now\"} 1".into(),
            ],
        ),
        (
            "csi-attacher",
            vec![
                called("Controller/ControllerPublishVolume"),
                called("Controller/ControllerUnpublishVolume"),
                "workqueue_work_duration_seconds_count{name=\"csi-attacher-va\"}".into(),
            ],
        ),
        ("csi-resizer", vec![called("Controller/ControllerExpandVolume")]),
        ("livenessprobe", vec![called("Identity/Probe")]),
    ];
    for (name, parts) in expected {
        let sidecar = sidecars.iter().find(|sidecar| sidecar.name == name).unwrap();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        wait_for(&sidecar.address, "/metrics", &parts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_under_upstreams_names_serve_a_volumes_life_with_the_roles_of_their_manifests() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--no-driver", "--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.run(&["create", "namespace", NAMESPACE]);
    let kubelet = cluster.state().join("kubelet");
    let driver = start_driver(&cluster, &["--attachable"]);
    let sidecars = [
        start_controller(&cluster, "csi-provisioner"),
        start_controller(&cluster, "csi-attacher"),
        start_controller(&cluster, "csi-resizer"),
        start(
            &cluster,
            "csi-node-driver-registrar",
            &[
                format!(
                    "--kubelet-registration-path={}",
                    driver_socket(&cluster).display()
                ),
                format!(
                    "--plugin-registration-path={}/plugins_registry",
                    kubelet.display()
                ),
            ],
        ),
        start(&cluster, "livenessprobe", &["--probe-timeout=5s".to_owned()]),
    ];
    kubectl.apply_ok(&together(&[
        ATTACHED_DRIVER.to_owned(),
        class("now", "Immediate", "Delete"),
        claim("data", "now", "ReadWriteOnce", "1Mi"),
        pod("app", "data", &and_stay("echo kept > /data/file")),
    ]));
    kubectl.wait_field("pod", "app", "{.status.phase}", "Running", LIMIT);
    kubectl.run(&[
        "patch",
        "pvc",
        "data",
        "-p",
        r#"{"spec":{"resources":{"requests":{"storage":"2Mi"}}}}"#,
    ]);
    kubectl.wait_field("pvc", "data", "{.status.capacity.storage}", "2Mi", LIMIT);
    kubectl.run(&["delete", "pod/app", "pvc/data", "--timeout=90s"]);
    wait::until_async("no volume to be left", LIMIT, || async {
        let left = volumes(&driver_socket(&cluster)).await?;
        let pvs = kubectl
            .call(&["get", "pv,volumeattachments", "-o", "name"])
            .stdout;
        if left.is_empty() && pvs.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?} {pvs}"))
        }
    })
    .await;
    check_endpoints(&sidecars);
    driver.kill_9();
    wait_for(&sidecars[4].address, "/healthz", &["500 Internal Server Error"]);
    for sidecar in sidecars {
        if ["csi-provisioner", "csi-attacher", "csi-resizer"].contains(&sidecar.name) {
            check_requests(&kubectl, &sidecar);
        }
        let log = std::fs::read_to_string(&sidecar.log).unwrap();
        assert!(log.contains("--automaxprocs has no effect"), "{log}");
        sidecar.part.signal(Signal::SIGTERM);
        assert_eq!(sidecar.part.wait_exit(LIMIT), Some(0), "{}: {log}", sidecar.name);
    }
    let holders = kubectl.run(&[
        "-n",
        NAMESPACE,
        "get",
        "leases",
        "-o",
        "jsonpath={range .items[*]}{.metadata.name}={.spec.holderIdentity};{end}",
    ]);
    assert_eq!(
        holders,
        "external-attacher-leader-local-csi-moorline-dev=;external-resizer-local-csi-moorline-dev=;local-csi-moorline-dev=;",
        "each lease is given back"
    );
    assert!(
        !kubelet
            .join(format!("plugins_registry/{DRIVER}-reg.sock"))
            .exists()
    );
    cluster.finish();
}

#[test]
fn controllers_alone_bind_claims_with_the_role_of_their_manifest() {
    require_kubectl!();
    let mut cluster = TestCluster::start(&["--no-kubelet", "--no-driver", "--no-controllers"]);
    let kubectl = cluster.kubectl();
    let manifest = deploy().join("controllers/rbac.yaml");
    kubectl.run(&["apply", "--server-side", "-f", manifest.to_str().unwrap()]);
    let kubeconfig = kubeconfig_of(&cluster, "kube-system", "moorline-controllers");
    let log = cluster.root().join("controllers.log");
    let address = free_address();
    let args = [
        "controllers".to_owned(),
        format!("--kubeconfig={}", kubeconfig.display()),
        "--controllers=*,-attachdetach".to_owned(),
        format!("--http-endpoint={address}"),
        "--leader-elect-retry-period=1s".to_owned(),
        "--logging-format=json".to_owned(),
        "-v=2".to_owned(),
    ];
    let controllers = Part::start_program(&process::binary(), &args, &[LOG_REQUESTS], &log);
    wait_for(
        &address,
        "/metrics",
        &["leader_election_master_status{name=\"moorline-controllers\"} 1"],
    );
    kubectl.apply_ok(&together(&[
        "
apiVersion: v1
kind: PersistentVolume
metadata: {name: static}
spec:
  storageClassName: none
  accessModes: [ReadWriteOnce]
  capacity: {storage: 1Gi}
  csi: {driver: d.example, volumeHandle: v1}
"
        .to_owned(),
        claim("data", "none", "ReadWriteOnce", "1Gi"),
    ]));
    kubectl.wait_field("pvc", "data", "{.status.phase}", "Bound", LIMIT);
    kubectl.wait_field("pv", "static", "{.status.phase}", "Bound", LIMIT);
    kubectl.run(&["delete", "pvc", "data", "--timeout=60s"]);
    kubectl.wait_field("pv", "static", "{.status.phase}", "Released", LIMIT);
    let rules = rules_of(&kubectl, "kube-system", "moorline-controllers");
    for request in requests(&log) {
        assert!(is_allowed(&rules, &request), "{request:?}");
    }
    controllers.signal(Signal::SIGTERM);
    let ended = controllers.wait_exit(LIMIT);
    assert_eq!(ended, Some(0), "{}", std::fs::read_to_string(&log).unwrap());
    let lease = [
        "-n",
        "kube-system",
        "get",
        "lease",
        "moorline-controllers",
        "-o",
        "jsonpath={.spec.holderIdentity}",
    ];
    assert_eq!(kubectl.run(&lease), "");
    cluster.stop();
}

#[test]
fn wrong_command_lines_of_drop_ins_are_refused_in_one_line() {
    let cases: &[(&[&str], i32, &str)] = &[
        (
            &["sidecar", "csi-provisioner", "--timout=5s"],
            2,
            "unknown flag --timout (did you mean --timeout?)",
        ),
        (
            &["sidecar", "provisioner", "--timeout=5"],
            2,
            "\"5\" is no duration",
        ),
        (&["sidecar", "csi-nothing"], 2, "no sidecar \"csi-nothing\""),
        (
            &["sidecar", "attacher", "-worker-threads=0"],
            1,
            "--worker-threads must be above 0",
        ),
        (
            &["sidecar", "csi-snapshotter", "--node-deployment"],
            1,
            "--node-deployment needs NODE_NAME",
        ),
        (
            &["sidecar", "snapshot-controller", "--csi-address=/x"],
            2,
            "unknown flag --csi-address",
        ),
        (
            &["sidecar", "csi-node-driver-registrar"],
            1,
            "--kubelet-registration-path is required",
        ),
        (
            &["controllers", "--controllers=deployment"],
            1,
            "\"deployment\" is none of the volume controllers",
        ),
        (
            &["controllers", "--kubeconfig=/nowhere"],
            1,
            "read kubeconfig /nowhere",
        ),
        (&["sidecars", "--run=provisoner"], 1, "no sidecar \"provisoner\""),
        (
            &["sidecars", "--run=node-driver-registrar"],
            1,
            "needs --plugin-registration-dir",
        ),
    ];
    for (args, code, part) in cases {
        let (found, _, stderr) = process::run(args);
        let last = stderr.lines().last().unwrap_or_default();
        assert_eq!(found, Some(*code), "{args:?}: {stderr}");
        assert!(
            last.starts_with("error: ") && last.contains(part),
            "{args:?}: {stderr}"
        );
    }
    for args in [
        &["sidecar", "csi-attacher", "--help"][..],
        &["controllers", "-h"],
        &["sidecar", "csi-resizer", "-version"],
    ] {
        let (code, stdout, stderr) = process::run(args);
        assert_eq!(code, Some(0), "{args:?}: {stderr}");
        assert!(!stdout.is_empty(), "{args:?}");
    }
}
