//! Containers of the host image, run for real. Needs root; says so and passes where it can't have it.

mod support;

use std::time::Duration;

use moorline_container_runtime::{ContainerRuntime, ContainerState, RuntimeError};
use support::{Bed, can_run};

#[tokio::test]
async fn hello_world() {
    if !can_run("hello_world") {
        return;
    }
    let bed = Bed::new().await;
    let config = bed.script("main", "echo hello; echo trouble >&2; exit 3").await;
    let (status, log) = bed.run_to_end("hello", config).await;
    assert_eq!(
        (status.exit_code, status.reason.as_str(), status.signal),
        (Some(3), "Error", None),
        "{status:?}"
    );
    assert!(log.contains("hello\n") && log.contains("trouble\n"), "{log:?}");
    assert!(status.started_at.is_some() && status.finished_at >= status.started_at);
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn command_that_does_not_exist() {
    if !can_run("command_that_does_not_exist") {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox("nope").await;
    let mut config = bed.script("main", "").await;
    config.command = vec!["/no/such/program".to_owned()];
    let id = bed.runtime.create_container(&sandbox, config).await.unwrap();
    let error = bed.runtime.start_container(&id).await.unwrap_err();
    assert!(
        matches!(&error, RuntimeError::StartFailed { why, .. } if why.contains("/no/such/program")),
        "{error}"
    );
    let status = bed.status(&id).await;
    assert_eq!(
        (status.state, status.exit_code),
        (ContainerState::Exited, Some(128))
    );
    assert_eq!(status.reason, "StartError");
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn stop_waits_for_the_grace_and_then_kills() {
    if !can_run("stop_waits_for_the_grace_and_then_kills") {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox("stop").await;
    let polite = bed
        .script(
            "polite",
            "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.02; done",
        )
        .await;
    let polite = bed.run(&sandbox, polite).await;
    bed.logged("stop", "polite", "up").await;
    bed.runtime
        .stop_container(&polite, Duration::from_secs(30))
        .await
        .unwrap();
    let status = bed.status(&polite).await;
    assert_eq!(
        (status.state, status.exit_code),
        (ContainerState::Exited, Some(7))
    );
    let deaf = bed
        .script("deaf", "trap '' TERM; echo up; while :; do sleep 0.02; done")
        .await;
    let deaf = bed.run(&sandbox, deaf).await;
    bed.logged("stop", "deaf", "up").await;
    bed.runtime
        .stop_container(&deaf, Duration::from_millis(100))
        .await
        .unwrap();
    let status = bed.status(&deaf).await;
    assert_eq!(
        (status.exit_code, status.signal, status.oom_killed),
        (Some(137), Some(9), false)
    );
    bed.assert_clean_end().await;
}
