//! One csi-provisioner per node (`--node-deployment`): two nodes with storage of their own want the same claims.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_e2e::{
    cluster::TestCluster, kubectl::Kubectl, process::Part, require_kubectl, require_node, wait,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    dropins::{NAMESPACE, account, kubeconfig_of, link},
    interruptions::CSI_DRIVER,
    manifests::{claim, class, together},
    orphans::volumes,
};

const LIMIT: Duration = Duration::from_secs(120);
const NODES: [&str; 2] = ["n1", "n2"];
const CLAIMS: usize = 12;

/// A node's driver, and the provisioner beside it.
struct Node {
    name: &'static str,
    socket: PathBuf,
    driver: Part,
    provisioner: Part,
    log: PathBuf,
}

impl Node {
    fn start(cluster: &TestCluster, name: &'static str, kubeconfig: &Path) -> Self {
        let home = cluster.root().join(name);
        std::fs::create_dir_all(home.join("pool")).unwrap();
        let socket = home.join("csi.sock");
        let args = [
            "driver".to_owned(),
            format!("--node-id={name}"),
            "--backend=dir".to_owned(),
            format!("--endpoint=unix://{}", socket.display()),
            format!("--pool-dir={}", home.join("pool").display()),
            format!("--target-root={}", home.display()),
        ];
        let driver = Part::start(&args, &home.join("driver.log"));
        let args = [
            format!("--csi-address={}", socket.display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            "--node-deployment".to_owned(),
            "--node-deployment-base-delay=300ms".to_owned(),
            "--node-deployment-max-delay=1s".to_owned(),
            "--strict-topology".to_owned(),
            "--enable-capacity".to_owned(),
            "--capacity-ownerref-level=-1".to_owned(),
            "--kube-api-qps=0".to_owned(),
        ];
        let log = home.join("provisioner.log");
        let variables = [
            ("NODE_NAME", name),
            ("NAMESPACE", NAMESPACE),
            ("POD_NAMESPACE", NAMESPACE),
        ];
        let provisioner = Part::start_program(&link(cluster, "csi-provisioner"), &args, &variables, &log);
        Self {
            name,
            socket,
            driver,
            provisioner,
            log,
        }
    }

    async fn volumes(&self) -> Result<usize, String> {
        Ok(volumes(&self.socket).await?.len())
    }
}

fn get(kubectl: &Kubectl, kind: &str) -> Vec<Value> {
    let text = kubectl.run(&["get", kind, "-A", "-o", "json"]);
    let list: Value = serde_json::from_str(&text).unwrap();
    list["items"].as_array().cloned().unwrap_or_default()
}

/// How many claims each node has; every claim's volume is on the node that the claim names.
fn claims_by_node(kubectl: &Kubectl) -> BTreeMap<String, usize> {
    let of_pv: BTreeMap<String, String> = get(kubectl, "pv")
        .into_iter()
        .map(|pv| {
            let terms = &pv["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
            let node = &terms[0]["matchExpressions"][0]["values"][0];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&pv["metadata"]["name"]), text(node))
        })
        .collect();
    let mut counts = BTreeMap::new();
    for claim in get(kubectl, "pvc") {
        let Some(pv_name) = claim["spec"]["volumeName"].as_str() else {
            continue;
        };
        let chosen = &claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"];
        assert_eq!(chosen, &of_pv[pv_name], "{claim}");
        *counts.entry(of_pv[pv_name].clone()).or_default() += 1;
    }
    counts
}

fn wait_bound(kubectl: &Kubectl, count: usize) {
    wait::until(&format!("{count} claims to be bound"), LIMIT, || {
        let claims = get(kubectl, "pvc");
        let bound = claims
            .iter()
            .filter(|claim| claim["status"]["phase"] == "Bound")
            .count();
        if bound == count { Ok(()) } else { Err(bound) }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_share_the_claims_and_each_deletes_its_own_volumes() {
    require_node!();
    require_kubectl!();
    let mut cluster = TestCluster::start(&["--no-driver", "--no-kubelet"]);
    let kubectl = cluster.kubectl();
    kubectl.run(&["create", "namespace", NAMESPACE]);
    account(&kubectl, "csi-provisioner");
    let kubeconfig = kubeconfig_of(&cluster, NAMESPACE, "csi-provisioner");
    let nodes = NODES.map(|name| Node::start(&cluster, name, &kubeconfig));
    let immediate: Vec<String> = (0..CLAIMS)
        .map(|number| claim(&format!("now-{number}"), "now", "ReadWriteOnce", "1Mi"))
        .collect();
    // As if the scheduler had chosen.
    let late = claim("late", "late", "ReadWriteOnce", "1Mi").replace(
        "metadata: {name: late}",
        "metadata: {name: late, annotations: {volume.kubernetes.io/selected-node: n2}}",
    );
    kubectl.apply_ok(&together(&[
        CSI_DRIVER.to_owned(),
        class("now", "Immediate", "Delete"),
        class("late", "WaitForFirstConsumer", "Delete"),
        immediate.join("\n---\n"),
        late,
    ]));
    wait_bound(&kubectl, CLAIMS + 1);
    let counts = claims_by_node(&kubectl);
    assert_eq!(counts.values().sum::<usize>(), CLAIMS + 1, "{counts:?}");
    for node in &nodes {
        let has = node.volumes().await.unwrap();
        assert_eq!(
            has,
            counts.get(node.name).copied().unwrap_or_default(),
            "{}: {counts:?}",
            node.name
        );
    }
    wait::until("each node to tell its capacity", LIMIT, || {
        let managers: BTreeSet<String> = get(&kubectl, "csistoragecapacities")
            .iter()
            .map(|object| object["metadata"]["labels"]["csi.storage.k8s.io/managed-by"].to_string())
            .collect();
        let expected = ["\"external-provisioner-n1\"", "\"external-provisioner-n2\""].map(String::from);
        if managers == expected.into() {
            Ok(())
        } else {
            Err(managers)
        }
    });

    // No node has room: nobody takes it, and the user is told.
    kubectl.apply_ok(&claim("huge", "now", "ReadWriteOnce", "4Pi"));
    let why = kubectl.wait_event("huge", "ProvisioningFailed", LIMIT);
    assert!(why.contains("waiting for a node that has room"), "{why}");
    let chosen = "{.metadata.annotations.volume\\.kubernetes\\.io/selected-node}";
    assert_eq!(kubectl.field("pvc", "huge", chosen), "");

    kubectl.run(&["delete", "pvc", "--all", "--timeout=90s"]);
    wait::until_async("no volume to be left", LIMIT, || async {
        let left = (
            nodes[0].volumes().await?,
            nodes[1].volumes().await?,
            get(&kubectl, "pv").len(),
        );
        if left == (0, 0, 0) {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    for node in nodes {
        let log = std::fs::read_to_string(&node.log).unwrap();
        assert!(!log.contains("orbidden"), "{log}");
        node.provisioner.signal(Signal::SIGTERM);
        assert_eq!(node.provisioner.wait_exit(LIMIT), Some(0), "{}: {log}", node.name);
        node.driver.kill_9();
    }
    cluster.stop();
}
