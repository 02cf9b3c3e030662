//! Fifty pods with fifty claims at once.

use std::time::Duration;

use moorline_e2e::{cluster::TestCluster, require_kubectl, require_node, wait};

use crate::manifests::{and_stay, claim, class, pod, together};

const PODS: usize = 50;
const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn fifty_pods_with_fifty_claims_at_once_all_run_and_all_go() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--host-image"]);
    let kubectl = cluster.kubectl();
    let mut documents = vec![class("many", "WaitForFirstConsumer", "Delete")];
    for number in 0..PODS {
        documents.push(claim(&format!("data-{number}"), "many", "ReadWriteOnce", "1Mi"));
        let script = and_stay("echo $HOSTNAME > /data/name");
        documents.push(pod(&format!("app-{number}"), &format!("data-{number}"), &script));
    }
    kubectl.apply_ok(&together(&documents));
    wait::until("all pods to run", LIMIT, || {
        let phases = kubectl
            .call(&["get", "pods", "-o", "jsonpath={.items[*].status.phase}"])
            .stdout;
        let running = phases
            .split_whitespace()
            .filter(|phase| *phase == "Running")
            .count();
        if running == PODS {
            Ok(())
        } else {
            Err(format!("{running} of {PODS} run"))
        }
    });
    kubectl.run(&["delete", "pods", "--all", "--timeout=120s"]);
    kubectl.run(&["delete", "pvc", "--all", "--timeout=120s"]);
    wait::until("all volumes to be gone", LIMIT, || {
        let left = kubectl.call(&["get", "pv", "-o", "name"]).stdout;
        if left.is_empty() {
            Ok(())
        } else {
            Err(left.lines().count())
        }
    });
    cluster.finish();
}
