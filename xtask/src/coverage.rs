//! `cargo xtask coverage`: how many lines of the modules that decide are run by their crates' own tests.
//!
//! Counters are those of rustc (`-Cinstrument-coverage`), in our own crates only, through this program in the place of
//! rustc, so that dependencies are those of the ordinary build. Lines of tests that stand in the same file don't count.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, bail, ensure};

use crate::cargo;

/// Set while cargo runs this program in the place of rustc.
const IN_PLACE_OF_RUSTC: &str = "MOORLINE_COVERAGE_RUSTC";
/// What is asked of all these modules together, in percent of their lines.
const LEAST: f64 = 95.0;
/// The modules that decide, by crate: files, or folders with all that is below. Files in which a decider stands beside the
/// shell that calls it are not among them (the protection and ephemeral controllers, `provisioner/source_protection.rs`,
/// `pods/probes.rs`): most of their lines ask or wait.
const MODEL: &[(&str, &str, &[&str])] = &[
    ("moorline-model", "controller/model/src", &[""]),
    (
        "moorline-volume-controllers",
        "controller/volume/src",
        &[
            "attach_detach/attachment.rs",
            "attach_detach/demand.rs",
            "attach_detach/explain.rs",
            "attach_detach/node_report.rs",
            "binder/claim_sync.rs",
            "binder/step.rs",
            "binder/volume_sync.rs",
            "binder/why.rs",
            "snapshot/binding.rs",
            "snapshot/claim_hold.rs",
            "snapshot/content_sync.rs",
            "snapshot/group/members.rs",
            "snapshot/group/sync.rs",
            "snapshot/group/why.rs",
            "snapshot/snapshot_sync.rs",
            "snapshot/source.rs",
            "snapshot/status.rs",
            "snapshot/why.rs",
        ],
    ),
    (
        "moorline-sidecars",
        "sidecars/src",
        &[
            "attacher/attachment.rs",
            "attacher/explain.rs",
            "capability.rs",
            "explain.rs",
            "health_monitor/condition.rs",
            "health_monitor/node.rs",
            "provisioner/capacity/object.rs",
            "provisioner/claim.rs",
            "provisioner/class_parameters.rs",
            "provisioner/explain.rs",
            "provisioner/outcome.rs",
            "provisioner/plan.rs",
            "provisioner/source.rs",
            "provisioner/topology.rs",
            "provisioner/volume.rs",
            "resizer/claim.rs",
            "resizer/explain.rs",
            "resizer/status.rs",
            "resizer/target.rs",
            "rpc_class.rs",
            "snapshotter/content.rs",
            "snapshotter/explain.rs",
            "snapshotter/group.rs",
            "snapshotter/kind.rs",
            "snapshotter/stage.rs",
            "snapshotter/status.rs",
        ],
    ),
    (
        "moorline-scheduler",
        "orchestrator/scheduler/src",
        &[
            "decide.rs",
            "explain.rs",
            "ledger.rs",
            "plugins/",
            "requests.rs",
            "verdict.rs",
        ],
    ),
    (
        "moorline-kubelet",
        "orchestrator/kubelet/src",
        &[
            "csi/capability.rs",
            "explain.rs",
            "pods/decide.rs",
            "pods/found.rs",
            "pods/status.rs",
            "volumes/attach.rs",
            "volumes/decide.rs",
            "volumes/expand.rs",
            "volumes/resolve.rs",
            "volumes/spec.rs",
        ],
    ),
];

/// How much to tell.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name the lines that no test runs.
    #[arg(long)]
    missing: bool,
}

/// The lines of one file that have code, and how often each was run.
type Lines = BTreeMap<u32, u64>;

/// Runs rustc with counters for our own crates, if that is what this process was started for.
pub(crate) fn in_place_of_rustc() -> Option<ExitCode> {
    env::var_os(IN_PLACE_OF_RUSTC)?;
    let mut args = env::args_os().skip(1);
    let rustc = args.next()?;
    let args: Vec<OsString> = args.collect();
    let mut command = Command::new(rustc);
    if args.iter().any(|arg| arg == "--crate-name") {
        command.arg("-Cinstrument-coverage");
    }
    let status = command.args(&args).status();
    let code = status.ok().and_then(|status| u8::try_from(status.code()?).ok());
    Some(ExitCode::from(code.unwrap_or(1)))
}

/// Runs the tests of the deciders' crates and prints what they reach.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let tools = Tools::find()?;
    let folder = cargo::target_dir().join("coverage");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let programs = build(&folder)?;
    let mut tests = counted(&["--quiet"], &folder)?;
    cargo::run_command(&mut tests)?;
    let report = tools.report(&folder, &programs)?;
    let covered = model_lines(&read_lcov(&report))?;
    tell(&covered, args.missing)
}

/// Where the tools that read the counters are.
struct Tools {
    profdata: PathBuf,
    cov: PathBuf,
}

impl Tools {
    /// `LLVM_PROFDATA` and `LLVM_COV`, or those of the toolchain: others may not know its format.
    fn find() -> anyhow::Result<Self> {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output = Command::new(rustc)
            .args(["--print", "target-libdir"])
            .output()
            .context("ask rustc where its libraries are")?;
        let libraries = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        let own = libraries.with_file_name("bin");
        let tool = |variable: &str, name: &str| {
            let path = env::var_os(variable).map_or_else(|| own.join(name), PathBuf::from);
            ensure!(
                path.is_file(),
                "{} is missing: rustup component add llvm-tools (or set {variable} to an {name} of the same LLVM)",
                path.display()
            );
            Ok(path)
        };
        Ok(Self {
            profdata: tool("LLVM_PROFDATA", "llvm-profdata")?,
            cov: tool("LLVM_COV", "llvm-cov")?,
        })
    }

    /// The counters of all runs together, in the form that lcov has.
    fn report(&self, folder: &Path, programs: &[PathBuf]) -> anyhow::Result<String> {
        let merged = folder.join("merged.profdata");
        let runs = fs::read_dir(folder).context("look for the counters")?;
        let runs: Vec<PathBuf> = runs
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "profraw"))
            .collect();
        ensure!(
            !runs.is_empty(),
            "the tests left no counters in {}",
            folder.display()
        );
        let mut merge = Command::new(&self.profdata);
        merge.args(["merge", "-sparse", "-o"]).arg(&merged).args(&runs);
        cargo::run_command(&mut merge)?;
        let mut export = Command::new(&self.cov);
        export
            .args(["export", "--format=lcov", "--instr-profile"])
            .arg(&merged);
        for program in programs {
            export.arg("--object").arg(program);
        }
        let output = export
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("start {}", self.cov.display()))?;
        ensure!(
            output.status.success(),
            "{}: {}",
            self.cov.display(),
            output.status
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// `cargo test` of the deciders' crates, with counters.
fn counted(args: &[&str], folder: &Path) -> anyhow::Result<Command> {
    let mut command = cargo::command(&["test", "--lib"]);
    for (package, _, _) in MODEL {
        command.args(["--package", package]);
    }
    command
        .args(args)
        .env(
            "RUSTC_WORKSPACE_WRAPPER",
            env::current_exe().context("find this program")?,
        )
        .env(IN_PLACE_OF_RUSTC, "1")
        .env("LLVM_PROFILE_FILE", folder.join("%m-%p.profraw"));
    Ok(command)
}

/// Builds the tests, and says where they are.
fn build(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut command = counted(&["--no-run", "--message-format=json-render-diagnostics"], folder)?;
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("build the tests with counters")?;
    ensure!(
        output.status.success(),
        "the tests can't be built: {}",
        output.status
    );
    let said = String::from_utf8_lossy(&output.stdout);
    let programs: Vec<PathBuf> = said.lines().filter_map(executable).collect();
    ensure!(
        programs.len() == MODEL.len(),
        "cargo built {} programs for {} crates",
        programs.len(),
        MODEL.len()
    );
    Ok(programs)
}

/// The program that one of cargo's messages is about.
fn executable(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    message["executable"].as_str().map(PathBuf::from)
}

/// Files with their lines.
fn read_lcov(report: &str) -> BTreeMap<PathBuf, Lines> {
    let mut files: BTreeMap<PathBuf, Lines> = BTreeMap::new();
    let mut current = PathBuf::new();
    for line in report.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            current = PathBuf::from(path);
        } else if let Some((number, count)) = line.strip_prefix("DA:").and_then(|rest| rest.split_once(','))
            && let (Ok(number), Ok(count)) = (number.parse(), count.parse::<u64>())
        {
            *files
                .entry(current.clone())
                .or_default()
                .entry(number)
                .or_default() += count;
        }
    }
    files
}

/// The line at which a file's own tests begin.
fn tests_from(source: &str) -> u32 {
    let lines: Vec<&str> = source.lines().collect();
    let begin = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'));
    begin
        .and_then(|index| u32::try_from(index + 1).ok())
        .unwrap_or(u32::MAX)
}

fn is_test_file(name: &str) -> bool {
    name.split('/')
        .any(|part| ["tests", "tests.rs", "testing.rs", "testing", "histories.rs"].contains(&part))
}

/// The lines of each module that decides, without its tests, by crate and by name there.
fn model_lines(files: &BTreeMap<PathBuf, Lines>) -> anyhow::Result<BTreeMap<(&'static str, String), Lines>> {
    let mut found = BTreeMap::new();
    for (package, source, modules) in MODEL {
        let root = cargo::workspace().join(source);
        for module in *modules {
            let mut is_there = false;
            for (path, lines) in files {
                let Ok(name) = path.strip_prefix(&root) else {
                    continue;
                };
                let name = name.to_string_lossy().into_owned();
                let is_meant = name == *module || (name.starts_with(module) && !module.ends_with(".rs"));
                if !is_meant || is_test_file(&name) {
                    continue;
                }
                let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
                let end = tests_from(&text);
                let lines: Lines = lines.range(..end).map(|(line, count)| (*line, *count)).collect();
                found.insert((*package, name), lines);
                is_there = true;
            }
            if !is_there {
                bail!(
                    "{source}/{module} has no lines that could be run: correct the list in xtask/src/coverage.rs"
                );
            }
        }
    }
    Ok(found)
}

/// Lines, and how many of them were run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    run: usize,
    all: usize,
}

impl Sum {
    fn of(lines: &Lines) -> Self {
        Self {
            run: lines.values().filter(|count| **count > 0).count(),
            all: lines.len(),
        }
    }

    fn add(&mut self, other: Self) {
        self.run += other.run;
        self.all += other.all;
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "source files have fewer lines than that"
    )]
    fn percent(self) -> f64 {
        if self.all == 0 {
            100.0
        } else {
            100.0 * self.run as f64 / self.all as f64
        }
    }

    fn row(self, name: &str) -> String {
        format!(
            "{:>5.1} %  {:>5} of {:>5}  {name}",
            self.percent(),
            self.run,
            self.all
        )
    }
}

/// Numbers that follow each other as ranges.
fn ranges(numbers: impl Iterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let texts = ranges.into_iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn tell(covered: &BTreeMap<(&'static str, String), Lines>, missing: bool) -> anyhow::Result<()> {
    let mut total = Sum::default();
    for (package, _, _) in MODEL {
        let mut whole = Sum::default();
        for ((_, name), lines) in covered.iter().filter(|((of, _), _)| of == package) {
            let sum = Sum::of(lines);
            whole.add(sum);
            println!("{}", sum.row(&format!("{package} {name}")));
            let open = lines
                .iter()
                .filter(|(_, count)| **count == 0)
                .map(|(line, _)| *line);
            if missing && sum.run < sum.all {
                println!("                          not run: {}", ranges(open));
            }
        }
        println!("{}\n", whole.row(&format!("{package}: all modules that decide")));
        total.add(whole);
    }
    println!("{}", total.row("all modules that decide"));
    ensure!(
        total.percent() >= LEAST,
        "less than {LEAST} % of their lines are run: --missing names the others"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_those_of_tests_are_not_counted() {
        let report =
            "SF:/a.rs\nFN:1,f\nDA:1,3\nDA:2,0\nLH:1\nend_of_record\nSF:/b.rs\nDA:7,1\nend_of_record\n";
        let files = read_lcov(report);
        let expected = BTreeMap::from([
            (PathBuf::from("/a.rs"), Lines::from([(1, 3), (2, 0)])),
            (PathBuf::from("/b.rs"), Lines::from([(7, 1)])),
        ]);
        assert_eq!(files, expected);
        assert_eq!(Sum::of(&files[Path::new("/a.rs")]), Sum { run: 1, all: 2 });
        assert_eq!(tests_from("fn f() {}\n\n#[cfg(test)]\nmod tests {\n}\n"), 3);
        assert_eq!(tests_from("#[cfg(test)]\nmod tests;\n"), u32::MAX);
        assert!(
            is_test_file("plugins/tests.rs")
                && is_test_file("decide/tests/a.rs")
                && !is_test_file("decide.rs")
        );
    }

    #[test]
    fn rows_and_ranges_are_short() {
        let sum = Sum { run: 19, all: 20 };
        assert_eq!(sum.row("x"), " 95.0 %     19 of    20  x");
        assert!((Sum::default().percent() - 100.0).abs() < f64::EPSILON);
        assert_eq!(ranges([1, 2, 3, 7, 9, 10].into_iter()), "1-3, 7, 9-10");
    }

    #[test]
    fn every_module_of_the_list_is_there() {
        for (_, source, modules) in MODEL {
            for module in *modules {
                let path = cargo::workspace().join(source).join(module);
                assert!(path.exists(), "{}", path.display());
            }
        }
    }

    #[test]
    fn a_message_of_cargo_names_the_program() {
        let message = r#"{"reason":"compiler-artifact","executable":"/t/deps/a-1"}"#;
        assert_eq!(executable(message), Some(PathBuf::from("/t/deps/a-1")));
        assert_eq!(executable(r#"{"reason":"x","executable":null}"#), None);
        assert_eq!(executable("Compiling"), None);
    }
}
