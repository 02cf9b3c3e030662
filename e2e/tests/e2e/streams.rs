//! Commands in containers, files copied, ports forwarded: through the API server to the kubelet, with stock kubectl.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Child, Stdio},
    time::Duration,
};

use moorline_e2e::{cluster::TestCluster, kubectl::Kubectl, machine, require_kubectl, require_node, wait};

use crate::manifests::and_stay;

const LIMIT: Duration = Duration::from_secs(60);

/// A cluster with a pod that does nothing.
fn with_pod() -> (TestCluster, Kubectl) {
    let cluster = TestCluster::start(&["--no-driver", "--host-image"]);
    let kubectl = cluster.kubectl();
    let script = and_stay("echo up");
    kubectl.apply_ok(&format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: p}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: app
      image: moorline.local/host
      command: [/bin/sh, -c, {script:?}]
"
    ));
    kubectl.run(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);
    (cluster, kubectl)
}

fn delete_pod(kubectl: &Kubectl) {
    kubectl.run(&["delete", "pod", "p", "--wait", "--timeout=60s"]);
}

/// Bytes in which a piece that is lost, doubled or swapped shows.
fn pattern(length: usize) -> Vec<u8> {
    (0u32..).flat_map(|n| n.to_be_bytes()).take(length).collect()
}

/// Processes of the machine, but kubectl, with this in their command lines.
fn processes(marker: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("a process table").flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(marker) && !line.contains("kubectl"))
        .collect()
}

fn until_processes(marker: &str, are_wanted: bool) {
    wait::until(&format!("processes with {marker}: {are_wanted}"), LIMIT, || {
        let seen = processes(marker);
        if seen.is_empty() == are_wanted {
            Err(seen)
        } else {
            Ok(())
        }
    });
}

#[test]
fn commands_have_streams_and_an_exit_code() {
    require_node!();
    require_kubectl!();
    let (cluster, kubectl) = with_pod();
    let failed = kubectl.call(&["exec", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(
        (failed.code, failed.stdout.as_str()),
        (Some(7), "out\n"),
        "{failed:?}"
    );
    assert!(failed.stderr.starts_with("err\n"), "{failed:?}");
    let missing = kubectl.call(&["exec", "p", "--", "/no/such/program"]);
    assert!(
        missing.code != Some(0) && missing.stderr.contains("/no/such/program"),
        "{missing:?}"
    );
    let other = kubectl.call(&["exec", "p", "-c", "other", "--", "true"]);
    assert!(
        other.stderr.contains("container other is not valid for pod p"),
        "{other:?}"
    );
    // Input ends where kubectl's does.
    let counted = kubectl.with_input(&["exec", "-i", "p", "--", "wc", "-l"], "a\nb\nc\n");
    assert_eq!(
        (counted.code, counted.stdout.trim()),
        (Some(0), "3"),
        "{counted:?}"
    );
    // More than any buffer on the way holds.
    let length = 5_000_000;
    let many = kubectl.call(&["exec", "p", "--", "head", "-c", &length.to_string(), "/dev/zero"]);
    assert_eq!((many.code, many.stdout.len()), (Some(0), length));
    let text = "0123456789abcdef".repeat(250_000);
    let echoed = kubectl.with_input(&["exec", "-i", "p", "--", "cat"], &text);
    assert_eq!(echoed.code, Some(0), "{}", echoed.stderr);
    assert!(
        echoed.stdout == text,
        "{} of {} bytes",
        echoed.stdout.len(),
        text.len()
    );
    if machine::has_tool("script") {
        // The size comes a moment after the start.
        let script = "until stty size | grep -q '^31 97'; do sleep 0.1; done; stty size; exit 5";
        let seen = terminal(&kubectl, script);
        assert!(seen.0 == Some(5) && seen.1.contains("31 97\r\n"), "{seen:?}");
    }
    delete_pod(&kubectl);
    cluster.finish();
}

/// Runs a script in the pod with a terminal on both sides, of 31 rows and 97 columns.
fn terminal(kubectl: &Kubectl, script: &str) -> (Option<i32>, String) {
    let line = format!(
        "stty rows 31 cols 97; timeout --foreground 60 {:?}",
        kubectl.command(&["exec", "-it", "p", "--", "sh", "-c", script])
    );
    let output = std::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("start script");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[test]
fn files_are_copied_both_ways() {
    require_node!();
    require_kubectl!();
    let (cluster, kubectl) = with_pod();
    let (here, back) = (cluster.root().join("sent"), cluster.root().join("back"));
    let content = pattern(3_000_000);
    fs::write(&here, &content).expect("a file to send");
    kubectl.run(&["cp", here.to_str().expect("a plain path"), "p:/tmp/copied"]);
    kubectl.run(&["cp", "p:/tmp/copied", back.to_str().expect("a plain path")]);
    assert!(fs::read(&back).expect("a file that came back") == content);
    delete_pod(&kubectl);
    cluster.finish();
}

#[test]
fn a_container_is_attached_to() {
    require_node!();
    require_kubectl!();
    let cluster = TestCluster::start(&["--no-driver", "--host-image"]);
    let kubectl = cluster.kubectl();
    let run = [
        "run",
        "once",
        "--image=moorline.local/host",
        "--restart=Never",
        "--stdin",
        "--quiet",
        "--command",
        "--",
        "sh",
        "-c",
        "read line; echo \"heard $line\"; cat",
    ];
    let heard = kubectl.with_input(&run, "hello\nrest\n");
    assert_eq!(heard.code, Some(0), "{heard:?}");
    assert!(heard.stdout.contains("heard hello\nrest\n"), "{heard:?}");
    kubectl.wait_field("pod", "once", "{.status.phase}", "Succeeded", LIMIT);
    assert_eq!(kubectl.run(&["logs", "once"]), "heard hello\nrest");
    kubectl.run(&["delete", "pod", "once", "--wait", "--timeout=60s"]);
    cluster.finish();
}

#[test]
fn a_cut_connection_leaves_no_process() {
    require_node!();
    require_kubectl!();
    let (cluster, kubectl) = with_pod();
    let script = "sleep 7656.25 & sleep 7656.25; true";
    let mut child = start(&kubectl, &["exec", "p", "--", "sh", "-c", script]);
    until_processes("7656.25", true);
    child.kill().expect("kubectl runs");
    child.wait().expect("kubectl is ours");
    until_processes("7656.25", false);
    // The same when the kubelet goes.
    let mut child = start(&kubectl, &["exec", "p", "--", "sh", "-c", script]);
    until_processes("7656.25", true);
    let mut cluster = cluster;
    cluster.kill_9();
    until_processes("7656.25", false);
    child.wait().expect("kubectl is ours");
    cluster.up();
    assert_eq!(kubectl.run(&["exec", "p", "--", "echo", "again"]), "again");
    delete_pod(&kubectl);
    cluster.finish();
}

fn start(kubectl: &Kubectl, args: &[&str]) -> Child {
    let mut command = kubectl.command(args);
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().expect("start kubectl")
}

/// Sends back what comes, connection by connection, for as long as the test runs.
fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut read, mut write) = (&stream, &stream);
                std::io::copy(&mut read, &mut write).ok(); // the test sees what is missing
                stream.shutdown(Shutdown::Write).ok(); // the same
            });
        }
    });
    port
}

#[test]
fn ports_are_forwarded() {
    require_node!();
    require_kubectl!();
    let (cluster, kubectl) = with_pod();
    // Pods share the machine's network, so this is a port of the pod.
    let port = echo_server();
    let mut child = start(&kubectl, &["port-forward", "pod/p", &format!(":{port}")]);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let first = lines.next().expect("a line").expect("text");
    let local = first
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse::<u16>().ok())
        .unwrap_or_else(|| panic!("{first}"));
    let talks: Vec<_> = (0..8)
        .map(|n| std::thread::spawn(move || assert_echo(local, 200_000 * (n + 1))))
        .collect();
    for talk in talks {
        talk.join().expect("what was sent comes back");
    }
    child.kill().expect("kubectl runs");
    child.wait().expect("kubectl is ours");
    delete_pod(&kubectl);
    cluster.finish();
}

fn assert_echo(port: u16, length: usize) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("kubectl listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    let content = pattern(length);
    let (mut sender, sent) = (stream.try_clone().expect("a second handle"), content.clone());
    let sending = std::thread::spawn(move || {
        sender.write_all(&sent).expect("it takes what is sent");
        sender.shutdown(Shutdown::Write).expect("it is open");
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("it ends");
    sending.join().expect("all is sent");
    assert!(received == content, "{} of {length} bytes", received.len());
}
