//! The whole process killed with SIGKILL at random moments of the story: each start goes on to the same end.

use std::time::{Duration, Instant};

use moorline_e2e::{cluster::TestCluster, kubectl, require_kubectl, require_node, wait};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::manifests::{and_stay, claim, class, pod, together};

const ROUNDS: u64 = 20;
const LIMIT: Duration = Duration::from_secs(90);
/// The story takes about this long on a busy machine; kills fall anywhere in it.
const LATEST_KILL_MS: u64 = 2500;

/// Carries the story on from wherever it is. Every call may fail because the process is being killed.
fn tell(kubectl: &kubectl::Kubectl, manifests: &str) {
    kubectl.apply(manifests);
}

#[test]
fn killed_at_random_moments_of_the_story_each_start_goes_on_to_the_same_end() {
    require_node!();
    require_kubectl!();
    let seed = std::env::var("MOORLINE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    println!("MOORLINE_SEED={seed} repeats this run's moments");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = TestCluster::start(&["--driver-backend", "loop", "--host-image"]);
    let kubectl = cluster.kubectl();
    kubectl.apply_ok(&class("crash", "WaitForFirstConsumer", "Delete"));

    for round in 0..ROUNDS {
        let deleting = round % 2 == 1;
        let kill_after = Duration::from_millis(random.random_range(0..LATEST_KILL_MS));
        println!(
            "round {round}: {} and killed after {kill_after:?}",
            if deleting { "deleting" } else { "creating" }
        );
        let number = round / 2;
        let manifests = together(&[
            claim(&format!("data-{number}"), "crash", "ReadWriteOnce", "16Mi"),
            pod(
                &format!("app-{number}"),
                &format!("data-{number}"),
                &and_stay("echo kept >> /data/file; sync; cat /data/file"),
            ),
        ]);
        let names = [format!("pod/app-{number}"), format!("pvc/data-{number}")];
        let started = Instant::now();
        let teller = {
            let (kubectl, manifests, names) = (kubectl.clone(), manifests.clone(), names.clone());
            std::thread::spawn(move || {
                if deleting {
                    kubectl.call(&[
                        "delete",
                        &names[0],
                        &names[1],
                        "--wait=false",
                        "--ignore-not-found",
                    ]);
                } else {
                    tell(&kubectl, &manifests);
                }
            })
        };
        std::thread::sleep(kill_after.saturating_sub(started.elapsed()));
        cluster.kill_9();
        teller.join().expect("kubectl was started");
        cluster.up();

        if deleting {
            kubectl.call(&[
                "delete",
                &names[0],
                &names[1],
                "--wait=false",
                "--ignore-not-found",
            ]);
            wait::until("pod, claim and volume to be gone", LIMIT, || {
                let left = kubectl.call(&["get", "pods,pvc,pv", "-o", "name"]);
                if left.code == Some(0) && left.stdout.is_empty() {
                    Ok(())
                } else {
                    Err(left)
                }
            });
        } else {
            // What the killed call did not get through is asked for again; what it did is found.
            kubectl.apply_ok(&manifests);
            kubectl.wait_field(
                "pod",
                &format!("app-{number}"),
                "{.status.phase}",
                "Running",
                LIMIT,
            );
            wait::until("data on the volume", LIMIT, || {
                let log = kubectl.call(&["logs", &format!("app-{number}")]);
                if log.stdout.contains("kept") {
                    Ok(())
                } else {
                    Err(log)
                }
            });
        }
    }
    cluster.finish();
}
