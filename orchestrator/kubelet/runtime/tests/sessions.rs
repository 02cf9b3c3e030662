//! Commands that are talked to while they run: streams, terminals, and that nothing outlives its session.

#[cfg(test)]
#[expect(dead_code, reason = "not every test file uses all of it")]
mod support;

use std::fs;
use std::time::Duration;

use moorline_container_runtime::exec::Source;
use moorline_container_runtime::{ContainerId, ContainerRuntime, ExecRequest, ExecSession, RuntimeError};
use support::{Bed, DEADLINE, can_run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn shell(script: &str) -> ExecRequest {
    ExecRequest {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        ..ExecRequest::default()
    }
}

/// A bed with a container that does nothing.
async fn idle(name: &str) -> (Bed, ContainerId) {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(name).await;
    let config = bed.script("main", "echo up; while :; do sleep 1; done").await;
    let id = bed.run(&sandbox, config).await;
    bed.logged(name, "main", "up").await;
    (bed, id)
}

async fn open(bed: &Bed, id: &ContainerId, request: ExecRequest) -> ExecSession {
    let opened = tokio::time::timeout(DEADLINE, bed.runtime.exec(id, request));
    opened
        .await
        .expect("the session opens in time")
        .expect("the session opens")
}

/// All that comes; a terminal's end is an error.
async fn read_all(source: &mut Source) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = tokio::time::timeout(DEADLINE, source.read(&mut chunk)).await;
        match read.expect("output ends") {
            Ok(count @ 1..) => bytes.extend_from_slice(&chunk[..count]),
            Ok(0) | Err(_) => return String::from_utf8_lossy(&bytes).into_owned(),
        }
    }
}

async fn read_until(source: &mut Source, wanted: &str) {
    let mut seen = String::new();
    let mut chunk = [0; 4096];
    while !seen.contains(wanted) {
        let read = tokio::time::timeout(DEADLINE, source.read(&mut chunk)).await;
        let count = read
            .expect("what is waited for comes in time")
            .expect("it can be read");
        assert_ne!(count, 0, "{seen:?}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
}

/// Numbers of the machine's processes with this in their command lines.
fn processes(marker: &str) -> Vec<String> {
    let numbers = fs::read_dir("/proc").expect("a process table").flatten();
    let names = numbers.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.parse::<u32>().is_ok())
        .filter(|name| {
            let line = fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(marker)
        })
        .collect()
}

async fn until_none(marker: &str) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !processes(marker).is_empty() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{:?} still run",
            processes(marker)
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn streams_and_exit_status() {
    if !can_run("streams_and_exit_status") {
        return;
    }
    let (bed, id) = idle("streams").await;
    let request = ExecRequest {
        stdin: true,
        ..shell("cat; echo trouble >&2; exit 7")
    };
    let mut session = open(&bed, &id, request).await;
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"hello").await.unwrap();
    drop(stdin);
    assert_eq!(read_all(session.stdout.as_mut().unwrap()).await, "hello");
    assert_eq!(read_all(session.stderr.as_mut().unwrap()).await, "trouble\n");
    assert_eq!((&mut session.ended).await.unwrap(), 7);
    // Without input it is empty, not open.
    let mut session = open(&bed, &id, shell("cat; echo done")).await;
    assert!(session.stdin.is_none());
    assert_eq!(read_all(session.stdout.as_mut().unwrap()).await, "done\n");
    assert_eq!((&mut session.ended).await.unwrap(), 0);
    let missing = ExecRequest {
        command: vec!["/no/such".to_owned()],
        ..ExecRequest::default()
    };
    let refused = match bed.runtime.exec(&id, missing).await {
        Ok(session) => session.ended.await.unwrap_err(),
        Err(error) => error,
    };
    assert!(
        matches!(&refused, RuntimeError::ExecFailed { why, .. } if why.contains("/no/such")),
        "{refused}"
    );
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn much_data_both_ways() {
    if !can_run("much_data_both_ways") {
        return;
    }
    let (bed, id) = idle("much").await;
    let request = ExecRequest {
        stdin: true,
        ..shell("cat")
    };
    let mut session = open(&bed, &id, request).await;
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    let sent: Vec<u8> = (0..8_000_000u32).map(|n| (n % 251) as u8).collect();
    let expected = sent.clone();
    let send = async move {
        stdin.write_all(&sent).await.unwrap();
    };
    let mut received = Vec::new();
    let receive = stdout.read_to_end(&mut received);
    let both = async { tokio::join!(send, receive).1 };
    tokio::time::timeout(DEADLINE, both).await.unwrap().unwrap();
    assert!(
        received == expected,
        "{} of {} bytes",
        received.len(),
        expected.len()
    );
    assert_eq!((&mut session.ended).await.unwrap(), 0);
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn terminals_have_a_size_and_one_output() {
    if !can_run("terminals_have_a_size_and_one_output") {
        return;
    }
    let (bed, id) = idle("terminal").await;
    let request = ExecRequest {
        stdin: true,
        tty: true,
        ..shell("tty; read line; stty size; echo err >&2; exit 3")
    };
    let mut session = open(&bed, &id, request).await;
    assert!(session.stderr.is_none());
    let mut stdout = session.stdout.take().unwrap();
    read_until(&mut stdout, "/dev/pts/").await;
    session.resize.as_ref().unwrap()(120, 40).unwrap();
    session.stdin.as_mut().unwrap().write_all(b"\n").await.unwrap();
    let rest = read_all(&mut stdout).await;
    assert!(rest.contains("40 120") && rest.contains("err"), "{rest:?}");
    assert_eq!((&mut session.ended).await.unwrap(), 3);
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn a_dropped_session_leaves_no_process() {
    if !can_run("a_dropped_session_leaves_no_process") {
        return;
    }
    let (bed, id) = idle("dropped").await;
    for (tty, marker) in [(false, "7654.25"), (true, "7654.75")] {
        let script = format!("sleep {marker} & (sleep {marker} & sleep {marker}) & echo up; wait");
        let request = ExecRequest {
            tty,
            ..shell(&script)
        };
        let mut session = open(&bed, &id, request).await;
        read_until(session.stdout.as_mut().unwrap(), "up").await;
        assert!(processes(marker).len() >= 3, "{:?}", processes(marker));
        drop(session);
        until_none(marker).await;
    }
    // The container doesn't mind.
    let output = bed
        .runtime
        .exec_sync(&id, &["true".to_owned()], None)
        .await
        .unwrap();
    assert_eq!(output.exit_code, 0);
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn what_a_command_leaves_in_the_background_stays() {
    if !can_run("what_a_command_leaves_in_the_background_stays") {
        return;
    }
    let (bed, id) = idle("background").await;
    let session = open(&bed, &id, shell("sleep 7655.25 > /dev/null 2>&1 & echo $!")).await;
    assert_eq!(session.ended.await.unwrap(), 0);
    assert_eq!(processes("7655.25").len(), 1);
    bed.assert_clean_end().await;
    until_none("7655.25").await;
}

#[tokio::test]
async fn who_attaches_hears_and_speaks() {
    if !can_run("who_attaches_hears_and_speaks") {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox("attach").await;
    for (name, tty) in [("pipes", false), ("terminal", true)] {
        let script = "echo up; read line; echo \"heard $line\"; cat > /dev/null; echo trouble >&2; exit 4";
        let mut config = bed.script(name, script).await;
        (config.stdin, config.stdin_once, config.tty) = (true, true, tty);
        let id = bed.run(&sandbox, config).await;
        bed.logged("attach", name, "up").await;
        // One who only looks, and goes.
        let glance = bed.runtime.attach(&id, false).await.unwrap();
        assert!(glance.stdin.is_none());
        drop(glance);
        let mut session = bed.runtime.attach(&id, true).await.unwrap();
        assert_eq!((session.stderr.is_none(), session.resize.is_some()), (tty, tty));
        let mut stdin = session.stdin.take().unwrap();
        stdin.write_all(b"hello\n").await.unwrap();
        let mut stdout = session.stdout.take().unwrap();
        read_until(&mut stdout, "heard hello").await;
        if tty {
            // The end of input, as it is typed.
            stdin.write_all(b"\x04").await.unwrap();
            assert!(read_all(&mut stdout).await.contains("trouble"));
        } else {
            drop(stdin);
            assert_eq!(read_all(session.stderr.as_mut().unwrap()).await, "trouble\n");
        }
        let ended = tokio::time::timeout(DEADLINE, &mut session.ended).await;
        assert_eq!(ended.expect("the container ends").unwrap(), 4);
        bed.logged("attach", name, "heard hello").await;
    }
    bed.assert_clean_end().await;
}
