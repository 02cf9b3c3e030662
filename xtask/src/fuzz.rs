//! `cargo xtask fuzz`: builds the targets in `fuzz/` with coverage counters and gives each its time.
//!
//! No other tool and no nightly compiler is needed: libFuzzer comes with the crate `libfuzzer-sys`, and the counters with
//! stable flags of rustc. Only our own crates get them, through this program in the place of rustc, so that the hundreds
//! of dependencies are those of the ordinary build. There is no address sanitizer: what is fuzzed is safe code.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, bail, ensure};

use crate::cargo;

/// Set while cargo runs this program in the place of rustc.
const IN_PLACE_OF_RUSTC: &str = "MOORLINE_FUZZ_RUSTC";
/// What libFuzzer steers by: a counter on each edge, and the operands of comparisons.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// The targets, and the crate that each of them is about.
const TARGETS: &[(&str, &str)] = &[
    ("mount_options", "moorline-mount"),
    ("mountinfo", "moorline-mount"),
    ("record", "moorline-driver-local"),
    ("request", "moorline-driver-sdk"),
    ("superblock", "moorline-mount"),
];
/// Twice the longest field that a request may have.
const INPUT_BYTES_MAX: u32 = 8192;

/// What to fuzz, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this target.
    #[arg(value_parser = TARGETS.iter().map(|(target, _)| *target).collect::<Vec<_>>())]
    target: Option<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
}

/// What libFuzzer said about one run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    executions: u64,
    edges: u64,
    edges_reached: u64,
    finding: Option<String>,
}

impl Outcome {
    /// Takes one line of libFuzzer's output into account.
    fn read(&mut self, line: &str) {
        let number_after = |what: &str| {
            let rest = line.split_once(what)?.1.trim_start();
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        if let Some(executions) = number_after("stat::number_of_executed_units:") {
            self.executions = executions;
        } else if let Some(edges) = number_after("inline 8-bit counters):") {
            self.edges = self.edges.max(edges);
        } else if let Some(edges) = number_after("modules   (") {
            self.edges = self.edges.max(edges);
        } else if let Some(reached) = number_after(" cov: ") {
            self.edges_reached = reached;
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.finding = Some(path.to_owned());
        }
    }

    fn summary(&self, target: &str) -> String {
        let Outcome {
            executions,
            edges,
            edges_reached,
            ..
        } = self;
        format!("{target}: {executions} executions, {edges_reached} of {edges} edges reached")
    }
}

/// Runs rustc, with counters where they are wanted, if that is what this process was started for.
pub(crate) fn in_place_of_rustc() -> Option<ExitCode> {
    env::var_os(IN_PLACE_OF_RUSTC)?;
    let mut args = env::args_os().skip(1);
    let rustc = args.next()?;
    let args: Vec<OsString> = args.collect();
    let mut command = Command::new(rustc);
    if is_ours(&args) {
        command.args(COVERAGE);
    }
    let status = command.args(&args).status();
    let code = status.ok().and_then(|status| u8::try_from(status.code()?).ok());
    Some(ExitCode::from(code.unwrap_or(1)))
}

/// Is it one of our libraries that is compiled?
fn is_ours(args: &[OsString]) -> bool {
    let mut pairs = args.windows(2);
    pairs.any(|pair| pair[0] == "--crate-name" && pair[1].as_encoded_bytes().starts_with(b"moorline_"))
}

/// Builds and runs the targets, all of them even if one finds something.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let chosen = |target: &&(&str, &str)| args.target.as_deref().is_none_or(|only| only == target.0);
    build().context("build the fuzz targets")?;
    let mut outcomes = Vec::new();
    for (target, _) in TARGETS.iter().filter(chosen) {
        outcomes.push((*target, fuzz(target, args.seconds)?));
    }
    println!();
    let mut findings = Vec::new();
    for (target, outcome) in &outcomes {
        println!("{}", outcome.summary(target));
        findings.extend(&outcome.finding);
    }
    for path in &findings {
        eprintln!("found: {path}; put it into fuzz/corpus as a seed when it is fixed");
    }
    ensure!(findings.is_empty(), "{} findings, see above", findings.len());
    Ok(())
}

fn folder() -> PathBuf {
    cargo::workspace().join("fuzz")
}

fn build() -> anyhow::Result<()> {
    // What is fuzzed are the versions that are shipped; cargo takes out what is not needed and adds the fuzzer's own.
    let locked = folder().join("Cargo.lock");
    fs::copy(cargo::workspace().join("Cargo.lock"), &locked)
        .with_context(|| format!("write {}", locked.display()))?;
    let mut command = cargo::command(&["build", "--manifest-path", "fuzz/Cargo.toml", "--bins"]);
    // One unit for each crate also tells apart what was built with counters and what cargo may have built without.
    for package in [
        "moorline-driver-local",
        "moorline-driver-sdk",
        "moorline-mount",
        "moorline-proto",
    ] {
        command.arg("--config");
        command.arg(format!("profile.dev.package.{package}.codegen-units=1"));
    }
    command
        .env("CARGO_TARGET_DIR", cargo::target_dir())
        .env("RUSTC_WRAPPER", env::current_exe().context("find this program")?)
        .env(IN_PLACE_OF_RUSTC, "1");
    cargo::run_command(&mut command)
}

/// Runs one target. New inputs that reach something go below the target directory, findings into `fuzz/artifacts`.
fn fuzz(target: &str, seconds: u32) -> anyhow::Result<Outcome> {
    let inputs = cargo::target_dir().join("fuzz-corpus").join(target);
    let artifacts = folder().join("artifacts").join(target);
    for folder in [&inputs, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let program = cargo::target_dir().join("debug").join(format!("fuzz-{target}"));
    let mut command = Command::new(&program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .args(["-timeout=20", "-print_final_stats=1"])
        .arg(prefix(&artifacts))
        .arg(&inputs)
        .arg(folder().join("corpus").join(target));
    eprintln!("$ {}", format!("{command:?}").replace('"', ""));
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let stderr = child.stderr.take().context("the target has no error output")?;
    let mut outcome = Outcome::default();
    for line in BufReader::new(stderr).split(b'\n') {
        let line = line.with_context(|| format!("read what {target} says"))?;
        let line = String::from_utf8_lossy(&line);
        outcome.read(&line);
        // A line for each new input would be thousands.
        if !line.contains("\tNEW ") && !line.contains("\tREDUCE ") {
            eprintln!("{line}");
        }
    }
    let status = child.wait().with_context(|| format!("wait for {target}"))?;
    if !status.success() && outcome.finding.is_none() {
        bail!("{target}: {status}, and no input that led to it");
    }
    ensure!(
        outcome.edges > 0,
        "{target} was built without counters; remove {} and build again",
        program.display()
    );
    Ok(outcome)
}

/// libFuzzer's flag for where findings go; the name of each is put right behind it.
fn prefix(artifacts: &Path) -> OsString {
    let parts = [
        OsStr::new("-artifact_prefix="),
        artifacts.as_os_str(),
        OsStr::new("/"),
    ];
    parts.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_counted() {
        let mut outcome = Outcome::default();
        for line in [
            "INFO: Loaded 1 modules   (5317 inline 8-bit counters): 5317 [0x55d0, 0x55d1), ",
            "#2\tINITED cov: 101 ft: 102 corp: 1/1b exec/s: 0 rss: 44Mb",
            "#524288\tDONE   cov: 311 ft: 900 corp: 80/3Kb lim: 8192 exec/s: 52428 rss: 60Mb",
            "stat::number_of_executed_units: 524288",
        ] {
            outcome.read(line);
        }
        let expected = Outcome {
            executions: 524_288,
            edges: 5317,
            edges_reached: 311,
            finding: None,
        };
        assert_eq!(outcome, expected);
        outcome.read("artifact_prefix='a/'; Test unit written to a/crash-1");
        assert_eq!(outcome.finding.as_deref(), Some("a/crash-1"));
    }

    #[test]
    fn only_our_crates_get_counters() {
        let is_ours_named =
            |name: &str| is_ours(&["--crate-name", name, "--edition=2024"].map(OsString::from));
        assert!(
            is_ours_named("moorline_mount")
                && !is_ours_named("serde")
                && !is_ours_named("build_script_build")
        );
    }

    #[test]
    fn every_target_is_there_and_calls_what_ordinary_tests_call() {
        let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
        for (target, package) in TARGETS {
            let entry = format!("name = \"fuzz-{target}\"\npath = \"fuzz_targets/{target}.rs\"");
            assert!(manifest.contains(&entry), "{target} is not in fuzz/Cargo.toml");
            let source =
                fs::read_to_string(folder().join(format!("fuzz_targets/{target}.rs"))).expect(target);
            let call = format!("{}::fuzzing::{target}(input);", package.replace('-', "_"));
            assert!(source.contains(&call), "{target} does not call {call}");
            assert!(
                folder().join("corpus").join(target).is_dir(),
                "{target} has no corpus"
            );
        }
    }
}
