//! `cargo xtask test`: every test there is, counted.
//!
//! A test that can't run on this machine prints `skipped: <test>: <reason>` and returns; those lines are collected and
//! counted apart from the passed ones.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read},
    process::Stdio,
    sync::mpsc,
    thread,
};

use anyhow::{Context as _, anyhow, bail};

use crate::cargo;

/// What to test.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this package.
    #[arg(long, short)]
    package: Option<String>,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// Test results, added up over all test binaries.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    skipped: BTreeSet<String>,
}

impl Tally {
    /// Takes one line of the test runner's output into account.
    fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, " passed");
            self.failed += count(counts, " failed");
            self.ignored += count(counts, " ignored");
        } else if let Some(what) = line.trim_start().strip_prefix("skipped: ") {
            self.skipped.insert(what.to_owned());
        }
    }

    /// The closing line. A skipped test was counted as passed by the runner.
    fn summary(&self) -> String {
        let skipped = self.skipped.len() as u64;
        let passed = self.passed.saturating_sub(skipped);
        format!(
            "{passed} passed, {} failed, {} skipped",
            self.failed,
            skipped + self.ignored
        )
    }
}

/// The number in front of `what` in a line such as `ok. 3 passed; 0 failed; ...`.
fn count(line: &str, what: &str) -> u64 {
    let before = line.split(what).next().unwrap_or_default();
    before
        .rsplit([' ', ';'])
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// Builds, tests, and prints the totals.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // The end-to-end tests drive the binary that users run.
    cargo::run(&["build", "--release", "--package", "moorline"])?;
    let mut tally = Tally::default();
    let succeeded = run_tests(args, &mut tally)?;
    if !tally.skipped.is_empty() {
        println!("\nskipped:");
        tally.skipped.iter().for_each(|what| println!("  {what}"));
    }
    println!("\n{}", tally.summary());
    if !succeeded || tally.failed > 0 {
        bail!("tests failed, see above");
    }
    Ok(())
}

fn run_tests(args: &Args, tally: &mut Tally) -> anyhow::Result<bool> {
    let package = args
        .package
        .as_deref()
        .map_or(vec!["--workspace"], |name| vec!["--package", name]);
    let mut command = cargo::command(&["test", "--no-fail-fast"]);
    command
        .args(package)
        .arg("--")
        .arg("--show-output")
        .args(&args.filter);
    command.env("MOORLINE_BIN", cargo::target_dir().join("release/moorline"));
    eprintln!("$ cargo test (every package; the end-to-end tests come last)");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no output")?;
    let stderr = child.stderr.take().context("cargo test has no error output")?;
    // Tests tell of skips on either of the two.
    let (sender, lines) = mpsc::channel();
    let on_stderr = sender.clone();
    let errors = thread::spawn(move || forward(stderr, |line| on_stderr.send((line, true)).is_ok()));
    let output = thread::spawn(move || forward(stdout, |line| sender.send((line, false)).is_ok()));
    for (line, is_error) in lines {
        tally.read(&line);
        if is_error {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
    }
    for reader in [errors, output] {
        reader
            .join()
            .map_err(|_| anyhow!("a reader of cargo test panicked"))?;
    }
    Ok(child.wait().context("wait for cargo test")?.success())
}

/// Hands on each line, whatever bytes a test prints, until nobody takes them.
fn forward(from: impl Read, take: impl Fn(String) -> bool) {
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        if !take(String::from_utf8_lossy(&line).into_owned()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_add_up_and_skips_are_not_passes() {
        let mut tally = Tally::default();
        for line in [
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "skipped: mount_and_unmount: needs root",
            "test result: FAILED. 11 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "running 14 tests",
        ] {
            tally.read(line);
        }
        assert_eq!(tally.summary(), "13 passed, 2 failed, 2 skipped");
    }
}
