//! The program as its users meet it: flags, exit codes, a life from start to SIGTERM.

#![cfg(test)]

use std::{
    io::{BufRead as _, BufReader},
    os::unix::net::UnixStream,
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

fn driver(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorline-driver"));
    command
        .args(words)
        .env_remove("RUST_LOG")
        .env_remove("CSI_ENDPOINT");
    command
}

fn answer(words: &[&str]) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = driver(words).output().unwrap();
    let text = [stdout, stderr]
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .concat();
    (status.code(), text)
}

#[test]
fn it_says_what_it_is_and_what_is_wrong() {
    let cases: [(&[&str], i32, &str); 5] = [
        (
            &["--version"],
            0,
            concat!("moorline-driver ", env!("CARGO_PKG_VERSION"), "\n"),
        ),
        (&["--help"], 0, "--pool-dir"),
        (&["--pool-dirr=/x"], 2, "--pool-dirr"),
        (
            &["--node-id=n", "--endpoint=ftp://x", "--pool-dir=/x"],
            2,
            "--endpoint: ",
        ),
        (
            &[
                "--node-id=n",
                "--endpoint=unix:///proc/nothing/csi.sock",
                "--pool-dir=/proc/nothing",
            ],
            1,
            "/proc/nothing",
        ),
    ];
    for (words, code, expected) in cases {
        let (status, text) = answer(words);
        assert_eq!(status, Some(code), "{words:?}: {text}");
        assert!(text.contains(expected), "{words:?}: {text}");
    }
}

#[test]
fn it_serves_until_it_is_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("csi.sock");
    let words = [
        "--log-format=json".to_owned(),
        "--node-id=n".to_owned(),
        format!("--endpoint=unix://{}", socket.display()),
        format!("--pool-dir={}", dir.path().join("pool").display()),
        format!("--target-root={}", dir.path().display()),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut child = driver(&words).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    // Ends with the process at the latest.
    let listening = log
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.contains("Driver is listening"));
    let line = listening.expect("it ended before it listened");
    assert!(line.starts_with('{'), "{line}");
    UnixStream::connect(&socket).unwrap();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let rest: Vec<String> = log.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:#?}");
    assert!(!socket.exists(), "{rest:#?}");
}
