//! Containers of the host image, run for real. Needs root; says so and passes where it can't have it.

#[cfg(test)]
#[expect(dead_code, reason = "not every test file uses all of it")]
mod support;

use std::time::Duration;

use moorline_container_runtime::{
    ContainerConfig, ContainerRuntime, ContainerState, RuntimeError, SandboxState, SecurityContext,
};
use support::{Bed, can_run, log_text};

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

#[tokio::test]
async fn commands_run_in_a_running_container() {
    if !can_run("commands_run_in_a_running_container") {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox("exec").await;
    let mut config = bed
        .script("main", "touch /inside; echo up; while :; do sleep 0.02; done")
        .await;
    config.env = vec![("GREETING".to_owned(), "hey".to_owned())];
    let id = bed.run(&sandbox, config).await;
    bed.logged("exec", "main", "up").await;
    let run = async |script: &str, limit: Option<Duration>| {
        let command = ["sh", "-c", script].map(str::to_owned);
        bed.runtime.exec_sync(&id, &command, limit).await
    };
    let output = run("ls /inside; echo $GREETING; hostname; echo bad >&2; exit 5", None)
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/inside\nhey\nexec\n");
    assert_eq!(
        (output.exit_code, output.stderr.as_slice()),
        (5, b"bad\n".as_slice())
    );
    let slow = run("sleep 100", Some(Duration::from_millis(200)))
        .await
        .unwrap_err();
    assert!(matches!(slow, RuntimeError::ExecTimeout { .. }), "{slow}");
    let quick = run("true", Some(Duration::from_secs(30))).await.unwrap();
    assert_eq!(quick.exit_code, 0);
    let much = run("head -c 3000000 /dev/zero", None).await.unwrap();
    assert_eq!(
        (much.exit_code, much.stdout.len()),
        (0, 1 << 20),
        "output is cut, not blocked"
    );
    let missing = bed
        .runtime
        .exec_sync(&id, &["/no/such".to_owned()], None)
        .await
        .unwrap_err();
    assert!(matches!(missing, RuntimeError::ExecFailed { .. }), "{missing}");
    bed.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    let after = run("true", None).await.unwrap_err();
    assert!(matches!(after, RuntimeError::ContainerNotRunning(_)), "{after}");
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn security_context_is_applied() {
    if !can_run("security_context_is_applied") {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox("secure").await;
    let script =
        "id -u; id -g; id -G; grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch /x || echo read-only; pwd";
    let mut config = bed.script("main", script).await;
    config.security = SecurityContext {
        run_as_user: Some(4242),
        run_as_group: Some(4343),
        supplemental_groups: vec![77],
        no_new_privileges: true,
        read_only_root_filesystem: true,
        ..SecurityContext::default()
    };
    config.working_dir = Some("/made/for/it".into());
    let id = bed.run(&sandbox, config).await;
    let status = bed.exited(&id).await;
    let log = log_text(&status.log_path);
    let lines: Vec<&str> = log.lines().filter(|line| !line.contains("touch")).collect();
    let expected = [
        "4242",
        "4343",
        "4343 77",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "read-only",
        "/made/for/it",
    ];
    assert_eq!(lines, expected, "{log}");
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn capabilities_devices_and_hidden_paths() {
    if !can_run("capabilities_devices_and_hidden_paths") {
        return;
    }
    let bed = Bed::new().await;
    let script = "ls -A /usr/share | wc -l; ls -A /root /home /run | grep -v '^/' | wc -w; \
        echo 1 > /proc/sys/vm/swappiness || echo ro-sys; ls /dev/loop-control || echo no-loop; \
        mount -t tmpfs x /mnt || echo no-mount";
    let (status, log) = bed.run_to_end("plain", bed.script("main", script).await).await;
    assert_eq!(status.exit_code, Some(0), "{log}");
    for wanted in ["ro-sys", "no-loop", "no-mount"] {
        assert!(log.contains(wanted), "{wanted} in {log}");
    }
    let zeros = log.lines().filter(|line| *line == "0").count();
    assert_eq!(zeros, 2, "hidden and scratch directories are empty: {log}");
    let mut config = bed
        .script(
            "main",
            "ls /dev/loop-control && mount -t tmpfs x /mnt && echo mounted",
        )
        .await;
    config.security.privileged = true;
    let (status, log) = bed.run_to_end("privileged", config).await;
    assert_eq!(
        (status.exit_code, log.as_str()),
        (Some(0), "/dev/loop-control\nmounted\n"),
        "{log}"
    );
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn memory_limit_kills_and_says_so() {
    if !can_run("memory_limit_kills_and_says_so") {
        return;
    }
    if !support::has_memory_controller() {
        return eprintln!("skipped: memory_limit_kills_and_says_so: no writable memory controller");
    }
    let bed = Bed::new().await;
    let mut config = bed
        .script(
            "main",
            "mkfifo /f; head -c 400000000 /dev/zero > /f & exec tail /f",
        )
        .await;
    config.resources.memory_limit_bytes = Some(64 << 20);
    let (status, _) = bed.run_to_end("hungry", config).await;
    assert_eq!(
        (status.oom_killed, status.reason.as_str()),
        (true, "OOMKilled"),
        "{status:?}"
    );
    assert_eq!((status.exit_code, status.signal), (Some(137), Some(9)));
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn container_sees_its_own_limits() {
    if !can_run("container_sees_its_own_limits") {
        return;
    }
    if !support::has_memory_controller() {
        return eprintln!("skipped: container_sees_its_own_limits: no writable memory controller");
    }
    let bed = Bed::new().await;
    let script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; \
        P=/sys/fs/cgroup/memory; test -d $P || P=/sys/fs/cgroup; echo $$ > $P/cgroup.procs || echo kept; \
        cut -d: -f3 /proc/self/cgroup | sort -u";
    let mut config = bed.script("main", script).await;
    config.resources.memory_limit_bytes = Some(128 << 20);
    let (_, log) = bed.run_to_end("limits", config).await;
    let log: Vec<&str> = log.lines().filter(|line| !line.starts_with("/bin/sh")).collect();
    assert_eq!(log[..2], ["134217728", "kept"], "{log:?}");
    assert!(log.contains(&"/"), "its cgroup is its root: {log:?}");
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn terminal_and_standard_input() {
    if !can_run("terminal_and_standard_input") {
        return;
    }
    let bed = Bed::new().await;
    let mut config = bed
        .script("main", "tty; test -t 1 && echo terminal; echo $TERM")
        .await;
    config.tty = true;
    let (status, log) = bed.run_to_end("tty", config).await;
    assert_eq!(status.exit_code, Some(0), "{status:?}");
    assert!(
        log.contains("/dev/pts/0") || log.contains("/dev/console"),
        "{log:?}"
    );
    assert!(log.contains("terminal") && log.contains("xterm"), "{log:?}");
    let closed = bed.script("main", "read line || echo end").await;
    assert_eq!(bed.run_to_end("closed", closed).await.1, "end\n");
    let mut held = bed.script("main", "echo up; read line; echo end").await;
    held.stdin = true;
    let sandbox = bed.sandbox("held").await;
    let id = bed.run(&sandbox, held).await;
    bed.logged("held", "main", "up").await;
    assert_eq!(bed.status(&id).await.state, ContainerState::Running);
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn pod_shares_names_and_memory() {
    if !can_run("pod_shares_names_and_memory") {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox("shared").await;
    let first = bed
        .script(
            "first",
            "echo note > /dev/shm/x; hostname; while :; do sleep 0.02; done",
        )
        .await;
    bed.run(&sandbox, first).await;
    bed.logged("shared", "first", "shared").await;
    let script = "cat /dev/shm/x; cat /etc/hostname; grep -c shared /etc/hosts; readlink /proc/1/exe >/dev/null; echo $$";
    let second = bed.script("second", script).await;
    let id = bed.run(&sandbox, second).await;
    let status = bed.exited(&id).await;
    assert_eq!(log_text(&status.log_path), "note\nshared\n1\n1\n");
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn last_words_and_large_logs() {
    if !can_run("last_words_and_large_logs") {
        return;
    }
    let bed = Bed::new().await;
    let mut config = bed
        .script(
            "main",
            "echo out of luck > /dev/termination-log; seq 1 50000; printf end",
        )
        .await;
    config.termination_message_path = "/dev/termination-log".into();
    let (status, log) = bed.run_to_end("words", config).await;
    assert_eq!(status.termination_message, "out of luck\n");
    assert_eq!(status.reason, "Completed");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(
        (lines.len(), lines[49_999], lines[50_000]),
        (50_001, "50000", "end"),
        "the log is whole"
    );
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn asked_twice_is_made_once() {
    if !can_run("asked_twice_is_made_once") {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox("twice").await;
    assert_eq!(bed.sandbox("twice").await, sandbox);
    let config = bed.script("main", "exit 0").await;
    let id = bed
        .runtime
        .create_container(&sandbox, config.clone())
        .await
        .unwrap();
    assert_eq!(bed.status(&id).await.state, ContainerState::Created);
    assert_eq!(
        bed.runtime
            .create_container(&sandbox, config.clone())
            .await
            .unwrap(),
        id
    );
    let (one, two) = tokio::join!(bed.runtime.start_container(&id), bed.runtime.start_container(&id));
    one.unwrap();
    two.unwrap();
    bed.exited(&id).await;
    bed.runtime.start_container(&id).await.unwrap();
    let again = ContainerConfig { attempt: 1, ..config };
    assert_ne!(bed.runtime.create_container(&sandbox, again).await.unwrap(), id);
    bed.runtime.remove_container(&id).await.unwrap();
    bed.runtime.remove_container(&id).await.unwrap();
    bed.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert!(matches!(
        bed.runtime.container_status(&id).await,
        Err(RuntimeError::ContainerNotFound(_))
    ));
    bed.runtime.stop_pod_sandbox(&sandbox).await.unwrap();
    bed.runtime.stop_pod_sandbox(&sandbox).await.unwrap();
    bed.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    bed.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn events_tell_of_starts_and_exits() {
    if !can_run("events_tell_of_starts_and_exits") {
        return;
    }
    let bed = Bed::new().await;
    let mut events = bed.runtime.events();
    let sandbox = bed.sandbox("events").await;
    let id = bed.run(&sandbox, bed.script("main", "exit 0").await).await;
    let mut seen = 0;
    while seen < 2 {
        let event = tokio::time::timeout(support::DEADLINE, events.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (event.pod_uid.as_str(), &event.sandbox_id),
            ("events-uid", &sandbox)
        );
        assert_eq!(event.container_id.as_ref(), Some(&id));
        seen += 1;
    }
    assert_eq!(bed.status(&id).await.state, ContainerState::Exited);
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn stopped_sandbox_takes_everything_along() {
    if !can_run("stopped_sandbox_takes_everything_along") {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox("end").await;
    let script = "(trap '' TERM HUP; while :; do sleep 0.02; done) & echo up; while :; do sleep 0.02; done";
    let id = bed.run(&sandbox, bed.script("main", script).await).await;
    bed.logged("end", "main", "up").await;
    let pid = bed.status(&id).await.pid.unwrap();
    bed.runtime.stop_pod_sandbox(&sandbox).await.unwrap();
    let status = bed.status(&id).await;
    assert_eq!(
        (status.state, status.exit_code, status.pid),
        (ContainerState::Exited, Some(137), None)
    );
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(bed.processes().is_empty());
    let listed = bed.runtime.list_pod_sandboxes().await.unwrap();
    assert_eq!(listed[0].state, SandboxState::NotReady);
    let refused = bed
        .runtime
        .create_container(&sandbox, bed.script("late", "true").await)
        .await
        .unwrap_err();
    assert!(matches!(refused, RuntimeError::SandboxNotReady(_)), "{refused}");
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn many_pods_at_once() {
    if !can_run("many_pods_at_once") {
        return;
    }
    let bed = Bed::new().await;
    let begin = tokio::time::Instant::now();
    let pods = (0..20).map(|number| {
        let bed = &bed;
        async move {
            let pod = format!("many-{number}");
            let config = bed.script("main", "echo $HOSTNAME").await;
            let (status, log) = bed.run_to_end(&pod, config).await;
            assert_eq!((status.exit_code, log), (Some(0), format!("{pod}\n")));
        }
    });
    futures::future::join_all(pods).await;
    eprintln!("20 pods from nothing to exited: {:?}", begin.elapsed());
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn processes_beside_the_first_one_end_with_it() {
    if !can_run("processes_beside_the_first_one_end_with_it") {
        return;
    }
    let bed = Bed::new().await;
    let config = support_sandbox(&bed, "host-pid");
    let sandbox = bed.runtime.run_pod_sandbox(config).await.unwrap();
    let script =
        "(trap '' TERM HUP; while :; do sleep 0.05; done) & echo $!; test -d /proc/$PPID && echo sees";
    let id = bed.run(&sandbox, bed.script("main", script).await).await;
    let status = bed.exited(&id).await;
    let log = log_text(&status.log_path);
    let other: u32 = log.lines().next().unwrap().parse().unwrap();
    assert!(log.contains("sees"), "processes of the machine are seen: {log}");
    support::eventually(
        || async { support::has_ended(other) },
        "the process left behind ends",
    )
    .await;
    bed.assert_clean_end().await;
}

#[cfg(test)]
fn support_sandbox(bed: &Bed, pod: &str) -> moorline_container_runtime::SandboxConfig {
    moorline_container_runtime::SandboxConfig {
        host_pid: true,
        ..bed.sandbox_config(pod)
    }
}

#[tokio::test]
async fn log_that_cannot_be_written_fails_the_start() {
    if !can_run("log_that_cannot_be_written_fails_the_start") {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox("logless").await;
    let config = bed.script("main", "true").await;
    std::fs::write(bed.logs().join("logless/main"), "in the way").unwrap();
    let id = bed.runtime.create_container(&sandbox, config).await.unwrap();
    let error = bed.runtime.start_container(&id).await.unwrap_err();
    assert!(
        matches!(&error, RuntimeError::StartFailed { why, .. } if why.contains("open log")),
        "{error}"
    );
    assert_eq!(
        bed.status(&id).await.state,
        ContainerState::Created,
        "it may be tried again"
    );
    std::fs::remove_file(bed.logs().join("logless/main")).unwrap();
    bed.runtime.start_container(&id).await.unwrap();
    assert_eq!(bed.exited(&id).await.exit_code, Some(0));
    bed.assert_clean_end().await;
}
