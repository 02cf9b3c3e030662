//! The runtime's process killed at any moment, its pods going on, everything found again. Needs root.

#[cfg(test)]
#[expect(dead_code, reason = "not every test file uses all of it")]
mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use moorline_container_runtime::{ContainerRuntime, ContainerState, SandboxState};
use support::{Bed, can_run};

/// Says to the process inside which state directory to work on.
const INSIDE: &str = "MOORLINE_TEST_VICTIM";

/// Makes and removes pods for ever. Does nothing unless the test below starts it.
#[tokio::test]
async fn victim() {
    let Some(dir) = std::env::var_os(INSIDE) else {
        return;
    };
    let bed = Bed::at(Path::new(&dir)).await;
    for round in 0_u64.. {
        let pod = format!("victim-{}-{round}", std::process::id());
        let sandbox = bed.sandbox(&pod).await;
        let id = bed
            .run(&sandbox, bed.script("main", "while :; do sleep 0.02; done").await)
            .await;
        bed.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
        if round % 2 == 0 {
            bed.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
        }
    }
}

#[tokio::test]
async fn runtime_killed_at_any_moment_is_found_again() {
    if !can_run("runtime_killed_at_any_moment_is_found_again") {
        return;
    }
    let mut bed = Bed::new().await;
    let sandbox = bed.sandbox("survivor").await;
    let survivor = bed
        .run(
            &sandbox,
            bed.script("main", "echo up; while :; do sleep 0.02; done").await,
        )
        .await;
    bed.logged("survivor", "main", "up").await;
    let (mut ready, mut seen) = (0, 0);
    for round in 0..12_u64 {
        bed.release().await;
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env(INSIDE, bed.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(60 + 17 * round)).await;
        victim.kill().unwrap();
        victim.wait().unwrap();
        bed.reopen().await;
        assert_eq!(
            bed.status(&survivor).await.state,
            ContainerState::Running,
            "round {round}"
        );
        for found in bed.runtime.list_pod_sandboxes().await.unwrap() {
            if found.id != sandbox {
                seen += 1;
                ready += usize::from(found.state == SandboxState::Ready);
                bed.runtime.remove_pod_sandbox(&found.id).await.unwrap();
            }
        }
        assert_eq!(
            bed.processes().len(),
            1,
            "only the survivor's shim is left in round {round}"
        );
    }
    assert!(
        seen > 0,
        "the victim was always killed before it had done anything"
    );
    eprintln!("{seen} sandboxes found after 12 kills, {ready} of them alive");
    bed.assert_clean_end().await;
}
