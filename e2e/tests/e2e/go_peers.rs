//! The Go world's own programs, unmodified, in the places of our sidecars: csi-driver-host-path with everything that
//! belongs to it, from claim to pod to snapshot to restore to growth to deletion. `docs/peers.md` says how to get them.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_e2e::{
    cluster::{TestCluster, free_address},
    kubectl::Kubectl,
    process::Part,
    require, require_kubectl, require_node, wait,
};

use crate::manifests::{and_stay, claim, class, pod, together};

const LIMIT: Duration = Duration::from_secs(120);
/// Names the directory of the programs, with the published definitions in `crds`.
const DIRECTORY: &str = "MOORLINE_GO_PEERS";
const DRIVER: &str = "hostpath.csi.k8s.io";
const PROGRAMS: [&str; 8] = [
    "csi-attacher",
    "csi-node-driver-registrar",
    "csi-provisioner",
    "csi-resizer",
    "csi-snapshotter",
    "hostpathplugin",
    "livenessprobe",
    "snapshot-controller",
];

/// The directory, or why there is nothing to run.
fn programs() -> Result<PathBuf, String> {
    let Some(directory) = env::var_os(DIRECTORY).map(PathBuf::from) else {
        return Err(format!(
            "{DIRECTORY} names no directory with the Go programs (docs/peers.md)"
        ));
    };
    let missing: Vec<&str> = PROGRAMS
        .into_iter()
        .chain(["crds"])
        .filter(|name| !directory.join(name).exists())
        .collect();
    if missing.is_empty() {
        Ok(directory)
    } else {
        Err(format!("{} lacks {}", directory.display(), missing.join(", ")))
    }
}

/// The programs as they run, each with a log of its own.
struct Peers {
    root: PathBuf,
    parts: BTreeMap<&'static str, Part>,
    liveness: SocketAddr,
}

impl Peers {
    fn start(programs: &Path, cluster: &TestCluster) -> Self {
        let plugin = cluster.state().join("kubelet/plugins").join(DRIVER);
        let root = cluster.root().join("peers");
        fs::create_dir_all(&plugin).expect("make the plugin's directory");
        fs::create_dir_all(root.join("host-path")).expect("make the driver's directory");
        let socket = plugin.join("csi.sock");
        let mut peers = Self {
            root,
            parts: BTreeMap::new(),
            liveness: free_address(),
        };
        let liveness = peers.liveness.to_string();
        let text = |path: PathBuf| path.to_str().expect("temporary paths are UTF-8").to_owned();
        let address = text(socket.clone());
        let state = text(peers.root.join("host-path"));
        let registry = text(cluster.state().join("kubelet/plugins_registry"));
        let config = text(cluster.kubeconfig());
        let endpoint = format!("unix://{address}");
        let driver = [
            ("drivername", DRIVER),
            ("endpoint", &*endpoint),
            ("nodeid", "n1"),
            ("statedir", &*state),
            ("enable-attach", "true"),
        ];
        peers.run(programs, "hostpathplugin", &driver);
        let part = peers.parts.get_mut("hostpathplugin").expect("just started");
        part.wait_for_socket(&socket, LIMIT).expect("the driver listens");
        let node = [
            ("csi-address", &*address),
            ("kubelet-registration-path", &*address),
            ("plugin-registration-path", &*registry),
        ];
        peers.run(programs, "csi-node-driver-registrar", &node);
        peers.run(
            programs,
            "livenessprobe",
            &[("csi-address", &*address), ("http-endpoint", &*liveness)],
        );
        let controller = [
            ("kubeconfig", &*config),
            ("leader-election", "true"),
            ("leader-election-namespace", "kube-system"),
        ];
        peers.run(programs, "snapshot-controller", &controller);
        let sidecar = [&controller[..], &[("csi-address", &*address)]].concat();
        for name in ["csi-attacher", "csi-resizer", "csi-snapshotter"] {
            peers.run(programs, name, &sidecar);
        }
        let capacity = [("enable-capacity", "true"), ("capacity-ownerref-level", "-1")];
        let provisioner = [&sidecar[..], &capacity, &[("extra-create-metadata", "true")]].concat();
        peers.run(programs, "csi-provisioner", &provisioner);
        peers
    }

    fn run(&mut self, programs: &Path, name: &'static str, flags: &[(&str, &str)]) {
        // At this level client-go logs each request with the answer's code.
        let mut args = vec!["--v=6".to_owned()];
        args.extend(flags.iter().map(|(flag, value)| format!("--{flag}={value}")));
        let variables = [("NAMESPACE", "kube-system"), ("POD_NAME", "peers")];
        let part = Part::start_program(&programs.join(name), &args, &variables, &self.log(name));
        self.parts.insert(name, part);
    }

    fn log(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.log"))
    }

    /// What livenessprobe says of the driver.
    fn health(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.liveness)?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// What the driver still keeps.
    fn kept(&self) -> Vec<String> {
        let root = self.root.join("host-path");
        let state = fs::read(root.join("state.json")).expect("the driver's state");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("the state is JSON");
        let lists = ["Volumes", "Snapshots", "GroupSnapshots"].into_iter();
        let recorded = lists
            .flat_map(|list| state[list].as_array().cloned().unwrap_or_default())
            .map(|record| record.to_string());
        let files = fs::read_dir(root).expect("the driver's directory").map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.to_string_lossy().into_owned()
        });
        recorded
            .chain(files.filter(|name| name != "state.json"))
            .collect()
    }

    /// Ends all of them and gives what they complained of.
    fn end(mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        for (name, part) in &mut self.parts {
            if let Some(status) = part.ended().expect("look after a peer") {
                complaints.push(format!("{name} ended with {status}"));
            }
        }
        self.parts.clear();
        for name in PROGRAMS {
            let log = fs::read_to_string(self.log(name)).expect("read a log");
            complaints.extend(
                log.lines()
                    .filter(|line| is_complaint(line))
                    .map(|line| format!("{name}: {line}")),
            );
        }
        complaints
    }
}

/// What these programs also say of the reference server: each lost a race that it runs again.
const EXPECTED: [&[&str]; 9] = [
    // A patch that tests a place in the list of finalizers, from a cache that lags behind.
    &["Failed to remove finalizer from PersistentVolume"],
    &["the object has been modified; please apply your changes to the latest version"],
    // Told for each claim that was deleted while its key was queued.
    &["in work queue no longer exists"],
    // The snapshot is waited for.
    &["is not Ready"],
    // A claim that goes right after its pod: the volume is released before it is detached, and deleted on the next try.
    &["persistentvolume pvc-", "is still attached to node"],
    // Deleted, or written to, once more than there was something: the cache had not heard of the deletion yet.
    &["\\\" not found\" logger=\"UnhandledError\""],
    &[
        "failed to update snapshot on API server: volumesnapshots.snapshot.storage.k8s.io \"snapshot\" not found",
    ],
    &["failed to delete VolumeSnapshotContent", "not found"],
    // Another worker has made the content first: its own draft, which has no version, is what it then puts into its cache.
    &["failed to update content store error parsing ResourceVersion \"\" of content"],
];

/// Whether a line of klog tells of something that the server, or the kubelet, did wrong.
fn is_complaint(line: &str) -> bool {
    // Severity, month, day: `E1129 ...`.
    let is_severe = line.starts_with(['E', 'F']) && line[1..].starts_with(|c: char| c.is_ascii_digit());
    let refused = ["400", "405", "406", "413", "415", "429", "500", "501", "503"];
    let is_refused = refused
        .iter()
        .any(|code| line.contains(&format!(" status=\"{code} ")));
    let lost = ["unable to decode", "Unable to decode", "too old resource version"];
    let is_said = lost.iter().any(|words| line.contains(words));
    (is_severe || is_refused || is_said)
        && !EXPECTED
            .iter()
            .any(|words| words.iter().all(|words| line.contains(words)))
}

/// Installs the definitions as they were published.
fn install_definitions(kubectl: &Kubectl, directory: &Path) {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .expect("read the directory of definitions")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name != "kustomization.yaml"))
        .collect();
    files.sort();
    for file in files {
        let text = file.to_str().expect("paths are UTF-8");
        kubectl.run(&["create", "--validate=strict", "-f", text]);
    }
    kubectl.run(&[
        "wait",
        "crd",
        "--all",
        "--for=condition=Established",
        "--timeout=60s",
    ]);
}

fn classes() -> String {
    let driver = format!(
        "
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {{name: {DRIVER}}}
spec: {{attachRequired: true, podInfoOnMount: true, storageCapacity: true, fsGroupPolicy: File}}
"
    );
    let snapshots = format!(
        "
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotClass
metadata: {{name: snapshots}}
driver: {DRIVER}
deletionPolicy: Delete
"
    );
    let class =
        class("host-path", "WaitForFirstConsumer", "Delete").replace("local.csi.moorline.dev", DRIVER);
    together(&[driver, class, snapshots])
}

const SNAPSHOT: &str = "
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: snapshot}
spec: {volumeSnapshotClassName: snapshots, source: {persistentVolumeClaimName: data}}
";

#[test]
fn unmodified_go_sidecars_carry_a_volume_through_its_life() {
    require_node!();
    require_kubectl!();
    let programs = programs();
    require!(programs.is_ok(), programs.err().unwrap_or_default());
    let programs = programs.expect("checked");
    // The snapshot kinds and who works on them are upstream's here.
    let cluster = TestCluster::start(&["--no-driver", "--no-snapshots", "--host-image"]);
    let kubectl = cluster.kubectl();
    install_definitions(&kubectl, &programs.join("crds"));
    let peers = Peers::start(&programs, &cluster);
    kubectl.apply_ok(&classes());
    kubectl.wait_field("csinode", "n1", "{.spec.drivers[*].name}", DRIVER, LIMIT);
    wait::until("the driver to be live", LIMIT, || match peers.health() {
        Ok(answer) if answer.ends_with("ok") => Ok(()),
        other => Err(other),
    });

    kubectl.apply_ok(&together(&[
        claim("data", "host-path", "ReadWriteOnce", "8Mi"),
        pod("writer", "data", &and_stay("echo precious > /data/file && sync")),
    ]));
    kubectl.wait_field("pod", "writer", "{.status.phase}", "Running", LIMIT);
    let attached = "jsonpath={.items[*].status.attached}";
    assert_eq!(kubectl.run(&["get", "volumeattachments", "-o", attached]), "true");
    wait::until("a capacity to be published", LIMIT, || {
        let known = kubectl.run(&["get", "csistoragecapacities", "-A", "-o", "name"]);
        if known.is_empty() { Err(known) } else { Ok(()) }
    });

    kubectl.apply_ok(SNAPSHOT);
    kubectl.wait_field(
        "volumesnapshot",
        "snapshot",
        "{.status.readyToUse}",
        "true",
        LIMIT,
    );
    let from_snapshot = claim("restored", "host-path", "ReadWriteOnce", "8Mi").replace(
        "spec:",
        "spec:\n  dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: snapshot}",
    );
    kubectl.apply_ok(&together(&[
        from_snapshot,
        pod("reader", "restored", &and_stay("cat /data/file")),
    ]));
    wait::until("the reader to read", LIMIT, || {
        let answer = kubectl.call(&["logs", "reader"]);
        if answer.stdout.trim_end() == "precious" {
            Ok(())
        } else {
            Err(format!("{answer:?}\n{}", kubectl.run(&["events"])))
        }
    });

    let grow = r#"{"spec": {"resources": {"requests": {"storage": "16Mi"}}}}"#;
    kubectl.run(&["patch", "pvc", "restored", "--patch", grow]);
    kubectl.wait_field("pvc", "restored", "{.status.capacity.storage}", "16Mi", LIMIT);

    kubectl.run(&["delete", "pod/writer", "pod/reader", "--timeout=120s"]);
    kubectl.run(&[
        "delete",
        "pvc/restored",
        "volumesnapshot/snapshot",
        "pvc/data",
        "--timeout=120s",
    ]);
    wait::until("everything to go", LIMIT, || {
        let kinds = "pv,volumeattachments,volumesnapshotcontents";
        let left = kubectl.run(&["get", kinds, "-o", "name"]);
        let kept = peers.kept();
        if left.is_empty() && kept.is_empty() {
            Ok(())
        } else {
            Err((left, kept))
        }
    });
    let complaints = peers.end();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    cluster.finish();
}

#[test]
fn complaints_are_told_from_races() {
    let cases = [
        (
            "an error",
            r#"E1129 00:27:49.740016   26224 main.go:177] "Failed to list things" err="no""#,
            true,
        ),
        (
            "an answer that refuses",
            r#"I1129 00:00:00.000000 1 round_trippers.go:632] "Response" verb="PUT" url="https://a/" status="415 Unsupported Media Type" milliseconds=1"#,
            true,
        ),
        (
            "an answer that doesn't",
            r#"I1129 00:00:00.000000 1 round_trippers.go:632] "Response" verb="GET" url="https://a/" status="404 Not Found" milliseconds=1"#,
            false,
        ),
        (
            "a volume that isn't detached yet",
            r#"E1129 14:00:50.986498    6096 controller.go:1633] "Volume deletion failed" err="persistentvolume pvc-0 is still attached to node n1" PV="pvc-0""#,
            false,
        ),
        (
            "a lost race",
            r#"E1129 00:00:00.000000 1 csi_handler.go:715] "Failed to remove finalizer from PersistentVolume" err="x""#,
            false,
        ),
        (
            "a draft that came second",
            r#"E1129 00:00:00.000000 1 snapshot_controller.go:818] failed to update content store error parsing ResourceVersion "" of content "c": x"#,
            false,
        ),
        (
            "deleted twice",
            r#"E1129 00:00:00.000000 1 snapshot_controller_base.go:551] failed to delete VolumeSnapshotContent c from API server: "c not found""#,
            false,
        ),
        (
            "a deletion that was refused",
            r#"E1129 00:00:00.000000 1 snapshot_controller_base.go:551] failed to delete VolumeSnapshotContent c from API server: "forbidden""#,
            true,
        ),
        ("an ordinary line", "Event occurred", false),
        (
            "an unreadable answer",
            r#"I1129 00:00:00.000000 1 reflector.go:1] "Unable to decode an event""#,
            true,
        ),
    ];
    for (case, line, expected) in cases {
        assert_eq!(is_complaint(line), expected, "{case}");
    }
}
