//! What containers survive: the runtime's restart; and what they don't: their shim's death. Needs root.

#[cfg(test)]
#[expect(dead_code, reason = "not every test file uses all of it")]
mod support;

use std::fs;
use std::time::Duration;

use moorline_container_runtime::{
    ContainerRuntime, ContainerState, EmbeddedConfig, EmbeddedRuntime, RuntimeError, SandboxState,
};
use support::{Bed, can_run, eventually, has_ended, kill, log_text};

const LOOP: &str = "echo up; trap 'exit 9' TERM; while :; do sleep 0.02; done";

#[tokio::test]
async fn containers_outlive_the_runtime() {
    if !can_run("containers_outlive_the_runtime") {
        return;
    }
    let mut bed = Bed::new().await;
    let sandbox = bed.sandbox("lives").await;
    let running = bed.run(&sandbox, bed.script("running", LOOP).await).await;
    let ended = bed.run(&sandbox, bed.script("ended", "exit 4").await).await;
    let created = bed
        .runtime
        .create_container(&sandbox, bed.script("created", "exit 5").await)
        .await
        .unwrap();
    bed.logged("lives", "running", "up").await;
    bed.exited(&ended).await;
    let pid = bed.status(&running).await.pid;
    bed.reopen().await;
    let status = bed.status(&running).await;
    assert_eq!((status.state, status.pid), (ContainerState::Running, pid));
    assert_eq!(bed.status(&ended).await.exit_code, Some(4));
    assert_eq!(bed.status(&created).await.state, ContainerState::Created);
    assert_eq!(bed.sandbox("lives").await, sandbox, "the sandbox is the same");
    bed.runtime.start_container(&created).await.unwrap();
    assert_eq!(bed.exited(&created).await.exit_code, Some(5));
    bed.runtime
        .stop_container(&running, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(bed.status(&running).await.exit_code, Some(9));
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn exit_during_the_runtimes_absence_is_seen() {
    if !can_run("exit_during_the_runtimes_absence_is_seen") {
        return;
    }
    let mut bed = Bed::new().await;
    let sandbox = bed.sandbox("absent").await;
    let id = bed.run(&sandbox, bed.script("main", LOOP).await).await;
    bed.logged("absent", "main", "up").await;
    let pid = bed.status(&id).await.pid.unwrap();
    bed.runtime.close().await;
    kill(pid);
    eventually(
        || async { !fs::exists(format!("/proc/{pid}")).unwrap() },
        "the process is reaped",
    )
    .await;
    bed.reopen().await;
    let status = bed.exited(&id).await;
    assert_eq!(
        (status.exit_code, status.signal, status.reason.as_str()),
        (Some(137), Some(9), "Error")
    );
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn killed_shim_ends_its_containers() {
    if !can_run("killed_shim_ends_its_containers") {
        return;
    }
    let bed = Bed::new().await;
    let mut events = bed.runtime.events();
    let sandbox = bed.sandbox("shimless").await;
    let id = bed.run(&sandbox, bed.script("main", LOOP).await).await;
    let done = bed.run(&sandbox, bed.script("done", "exit 0").await).await;
    bed.exited(&done).await;
    let pid = bed.status(&id).await.pid.unwrap();
    let shims = bed.processes();
    assert_eq!(shims.len(), 1, "one shim per pod, no helper left: {shims:?}");
    kill(shims[0]);
    let status = bed.exited(&id).await;
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (Some(137), "ContainerStatusUnknown")
    );
    assert!(status.message.contains("shim"), "{}", status.message);
    assert!(has_ended(pid), "its process is gone");
    assert_eq!(
        bed.status(&done).await.reason,
        "Completed",
        "what was known stays known"
    );
    let listed = bed.runtime.list_pod_sandboxes().await.unwrap();
    assert_eq!(listed[0].state, SandboxState::NotReady);
    let mut told = false;
    while let Ok(event) = events.try_recv() {
        told |= event.container_id.is_none();
    }
    assert!(told, "the pod is to be looked at again");
    assert_eq!(
        bed.sandbox("shimless").await,
        sandbox,
        "asked again it is made anew"
    );
    assert!(bed.runtime.list_containers().await.unwrap().is_empty());
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn shim_killed_in_the_runtimes_absence() {
    if !can_run("shim_killed_in_the_runtimes_absence") {
        return;
    }
    let mut bed = Bed::new().await;
    let sandbox = bed.sandbox("gone").await;
    let id = bed.run(&sandbox, bed.script("main", LOOP).await).await;
    bed.runtime.close().await;
    bed.processes().into_iter().for_each(kill);
    bed.reopen().await;
    let status = bed.status(&id).await;
    assert_eq!(
        (status.state, status.reason.as_str()),
        (ContainerState::Exited, "ContainerStatusUnknown")
    );
    assert_eq!(
        bed.runtime.list_pod_sandboxes().await.unwrap()[0].state,
        SandboxState::NotReady
    );
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn lost_connection_is_made_again() {
    if !can_run("lost_connection_is_made_again") {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox("talk").await;
    let id = bed.run(&sandbox, bed.script("main", LOOP).await).await;
    bed.logged("talk", "main", "up").await;
    for _ in 0..3 {
        cut_connections(&bed);
        eventually(
            || async {
                bed.runtime
                    .exec_sync(&id, &["true".to_owned()], None)
                    .await
                    .is_ok()
            },
            "commands run over another connection",
        )
        .await;
        assert_eq!(bed.status(&id).await.state, ContainerState::Running);
    }
    bed.runtime
        .stop_container(&id, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(
        bed.status(&id).await.exit_code,
        Some(9),
        "the same container all the time"
    );
    bed.assert_clean_end().await;
}

/// Shuts the shim's ends of its connections down, which the shim lends to whoever may trace it.
#[cfg(test)]
fn cut_connections(bed: &Bed) {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let shim = Pid::from_raw(i32::try_from(bed.processes()[0]).unwrap()).unwrap();
    let handle = pidfd_open(shim, PidfdFlags::empty()).unwrap();
    let mut cut = 0;
    for number in 3..64 {
        let Ok(file) = pidfd_getfd(&handle, number, PidfdGetfdFlags::empty()) else {
            continue;
        };
        if rustix::net::getpeername(&file).is_ok() {
            rustix::net::shutdown(&file, rustix::net::Shutdown::Both).unwrap();
            cut += 1;
        }
    }
    assert_eq!(cut, 1, "the runtime has one connection");
}

#[tokio::test]
async fn half_made_state_is_cleaned_at_start() {
    if !can_run("half_made_state_is_cleaned_at_start") {
        return;
    }
    let mut bed = Bed::new().await;
    let sandbox = bed.sandbox("whole").await;
    let id = bed.run(&sandbox, bed.script("main", LOOP).await).await;
    let sandboxes = bed.state().join("sandboxes");
    fs::create_dir_all(sandboxes.join("no-record/containers/x")).unwrap();
    fs::create_dir_all(sandboxes.join("torn")).unwrap();
    fs::write(sandboxes.join("torn/record.json"), "{\"format\":1,").unwrap();
    let half = sandboxes.join(&sandbox.0).join("containers/half-made");
    fs::create_dir_all(half.join("upper/deep")).unwrap();
    bed.reopen().await;
    assert!(!half.exists(), "the half-made container is gone");
    assert_eq!(
        fs::read_dir(&sandboxes).unwrap().count(),
        1,
        "only the whole sandbox is left"
    );
    assert_eq!(bed.status(&id).await.state, ContainerState::Running);
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn state_directory_has_one_owner() {
    if !can_run("state_directory_has_one_owner") {
        return;
    }
    let bed = Bed::new().await;
    let error = EmbeddedRuntime::open(EmbeddedConfig::new(bed.state()))
        .await
        .unwrap_err();
    let me = std::process::id();
    assert!(
        matches!(error, RuntimeError::StateDirectoryInUse { pid, .. } if pid == me),
        "{error}"
    );
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn shim_keeps_nothing_of_its_starter() {
    if !can_run("shim_keeps_nothing_of_its_starter") {
        return;
    }
    let bed = Bed::new().await;
    let leaky = fs::File::open("/etc/hostname").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    let sandbox = bed.sandbox("apart").await;
    let id = bed
        .run(
            &sandbox,
            bed.script("main", "ls /proc/self/fd | wc -l; env | sort").await,
        )
        .await;
    let shim = bed.processes()[0];
    let open: Vec<String> = fs::read_dir(format!("/proc/{shim}/fd"))
        .unwrap()
        .flatten()
        .map(|entry| fs::read_link(entry.path()).unwrap().display().to_string())
        .collect();
    assert!(
        !open
            .iter()
            .any(|file| file.contains("hostname") || file.ends_with("/lock")),
        "{open:?}"
    );
    let stat = fs::read_to_string(format!("/proc/{shim}/stat")).unwrap();
    let session: u32 = stat[stat.rfind(')').unwrap()..]
        .split(' ')
        .nth(4)
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(session, shim, "a session of its own");
    let log = log_text(&bed.exited(&id).await.log_path);
    // 0, 1, 2 and the directory that is being listed.
    assert!(log.starts_with("4\n"), "{log}");
    assert!(
        !log.contains("CARGO"),
        "the environment is the container's own: {log}"
    );
    let executable = rustix::fs::statvfs(format!("/proc/{shim}/exe")).unwrap();
    assert!(
        executable.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        "containers can't write to the executable through a process of it"
    );
    let threads = fs::read_dir(format!("/proc/{shim}/task")).unwrap().count();
    let status = fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
    let memory = status
        .lines()
        .filter(|line| line.starts_with("RssAnon"))
        .collect::<String>();
    eprintln!("shim: {threads} thread, {memory}");
    assert_eq!(threads, 1);
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn helpers_killed_at_any_moment_leave_nothing() {
    if !can_run("helpers_killed_at_any_moment_leave_nothing") {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox("helpless").await;
    let mut failed = 0;
    for attempt in 0..12_u32 {
        let mut config = bed.script("main", LOOP).await;
        config.attempt = attempt;
        let id = bed.runtime.create_container(&sandbox, config).await.unwrap();
        let shim = bed.processes();
        let start = bed.runtime.start_container(&id);
        let killer = async {
            // Later every time, so that all stages are met.
            tokio::time::sleep(Duration::from_millis(u64::from(attempt) * 3)).await;
            bed.processes()
                .into_iter()
                .filter(|pid| !shim.contains(pid))
                .for_each(kill);
        };
        let (result, ()) = tokio::join!(start, killer);
        let state = bed.status(&id).await;
        match result {
            Ok(()) => assert_eq!(state.state, ContainerState::Running, "{state:?}"),
            Err(error) => {
                failed += 1;
                assert!(matches!(error, RuntimeError::StartFailed { .. }), "{error}");
                assert_eq!(
                    (state.exit_code, state.reason.as_str()),
                    (Some(128), "StartError"),
                    "{state:?}"
                );
            }
        }
        bed.runtime.remove_container(&id).await.unwrap();
        eventually(
            || async { descendants(shim[0]).is_empty() },
            "all processes of the container are gone",
        )
        .await;
    }
    assert!(failed > 0, "no helper was hit");
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn shims_killed_at_any_moment_leave_nothing() {
    if !can_run("shims_killed_at_any_moment_leave_nothing") {
        return;
    }
    let bed = Bed::new().await;
    for attempt in 0..12_u32 {
        let pod = format!("mortal-{attempt}");
        let sandbox = bed.sandbox(&pod).await;
        let id = bed
            .runtime
            .create_container(&sandbox, bed.script("main", LOOP).await)
            .await
            .unwrap();
        let shim = bed.processes()[0];
        let start = bed.runtime.start_container(&id);
        let killer = async {
            tokio::time::sleep(Duration::from_millis(u64::from(attempt) * 3)).await;
            let below = descendants(shim);
            kill(shim);
            below
        };
        let (_, below) = tokio::join!(start, killer);
        eventually(
            || async { bed.runtime.list_pod_sandboxes().await.unwrap()[0].state == SandboxState::NotReady },
            "the death is noticed",
        )
        .await;
        eventually(
            || async { below.iter().all(|pid| has_ended(*pid)) },
            "what the shim had started is gone",
        )
        .await;
        assert_ne!(bed.status(&id).await.state, ContainerState::Running);
        bed.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    }
    bed.assert_clean_end().await;
}

/// Live processes below another one.
#[cfg(test)]
fn descendants(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some(end) = stat.rfind(") ") else { continue };
        let mut fields = stat[end + 2..].split(' ');
        if fields.next() != Some("Z") && fields.next().and_then(|ppid| ppid.parse().ok()) == Some(parent) {
            found.push(pid);
            found.extend(descendants(pid));
        }
    }
    found
}
