//! csi-sanity itself: the pinned version, where it is found, how it is run, and its report.

use std::{
    env, fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// The module and the version that judges.
pub const MODULE: &str = "github.com/kubernetes-csi/csi-test/v5";
/// The newest version there is; each raise is a reviewed line with the expectations that go with it.
pub const VERSION: &str = "v5.6.0";

/// How often the suite and the wish to stop are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What the suite prints for a spec that has passed.
const PASSED: &[u8] = "•".as_bytes();

/// Finds the pinned csi-sanity: named by `CSI_SANITY`, in `tools`, on the path, or where `go install` puts it.
///
/// # Errors
/// When there is none, with what to do.
pub fn find(tools: &Path) -> anyhow::Result<PathBuf> {
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join("go/bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [tools.to_owned()]
        .into_iter()
        .chain(env::split_paths(&path))
        .chain(home);
    let named = env::var_os("CSI_SANITY").map(PathBuf::from);
    let mut other = None;
    for file in named
        .into_iter()
        .chain(folders.map(|folder| folder.join("csi-sanity")))
    {
        match fs::read(&file) {
            Ok(bytes) if is_pinned(&bytes) => return Ok(file),
            Ok(_) => other = Some(file),
            Err(_) => {} // Not there, so the next place may have it.
        }
    }
    let found = other.map_or_else(
        || "csi-sanity is missing".to_owned(),
        |file| format!("{} is not version {VERSION}", file.display()),
    );
    bail!("{found}: go install {MODULE}/cmd/csi-sanity@{VERSION}")
}

/// Installs the pinned csi-sanity into `tools` unless it is somewhere already.
///
/// # Errors
/// When there is no Go or the module can't be had, with what to do.
pub fn find_or_install(tools: &Path) -> anyhow::Result<PathBuf> {
    let Err(missing) = find(tools) else {
        return find(tools);
    };
    fs::create_dir_all(tools).with_context(|| format!("make {}", tools.display()))?;
    let package = format!("{MODULE}/cmd/csi-sanity@{VERSION}");
    let installed = Command::new("go")
        .args(["install", &package])
        .env("GOBIN", tools)
        .env("GOFLAGS", "-mod=mod")
        .status();
    match installed {
        Ok(status) if status.success() => find(tools),
        Ok(status) => Err(missing.context(format!("go install {package}: {status}"))),
        Err(error) => Err(missing.context(format!("start go: {error}"))),
    }
}

/// A Go binary carries the versions of all its modules as text.
fn is_pinned(binary: &[u8]) -> bool {
    let wanted = format!("mod\t{MODULE}\t{VERSION}\t");
    binary
        .windows(wanted.len())
        .any(|window| window == wanted.as_bytes())
}

/// How one run of the suite ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As wanted.
    Passed,
    /// Not as wanted, in whatever way.
    Failed,
    /// Turned off by the suite's own authors.
    Pending,
    /// Not run, for a reason.
    Skipped,
}

/// One spec of the suite.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spec {
    /// Its containers and its own text.
    pub name: String,
    /// How it ended.
    pub state: State,
    /// Why it was skipped, or how it failed.
    pub message: String,
    /// How long it took.
    pub seconds: f64,
}

/// The report's fields that matter, by ginkgo's names.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SuiteReport {
    spec_reports: Vec<SpecReport>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SpecReport {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    #[serde(default)]
    run_time: f64,
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    message: String,
}

/// Reads ginkgo's JSON report.
///
/// # Errors
/// When it is none.
pub fn parse(report: &[u8]) -> anyhow::Result<Vec<Spec>> {
    let suites: Vec<SuiteReport> = serde_json::from_slice(report).context("read csi-sanity's report")?;
    let specs = suites.into_iter().flat_map(|suite| suite.spec_reports);
    Ok(specs.filter_map(spec).collect())
}

fn spec(report: SpecReport) -> Option<Spec> {
    let state = match report.state.as_str() {
        "passed" => State::Passed,
        "pending" => State::Pending,
        "skipped" => State::Skipped,
        _ => State::Failed,
    };
    // Besides specs there are set-up nodes, which count only when they fail.
    if report.leaf_node_type != "It" && state != State::Failed {
        return None;
    }
    let containers = report.container_hierarchy_texts.unwrap_or_default();
    let words = containers.into_iter().chain([report.leaf_node_text]);
    Some(Spec {
        name: words.collect::<Vec<_>>().join(" "),
        state,
        message: report.failure.map(|failure| failure.message).unwrap_or_default(),
        seconds: report.run_time / 1e9,
    })
}

/// A csi-sanity that is running, killed with this value.
#[derive(Debug)]
struct Suite(Child);

impl Drop for Suite {
    fn drop(&mut self) {
        // Gone already, unless the run was given up.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// One run of the suite.
#[derive(Debug)]
pub struct Run<'a> {
    /// The pinned csi-sanity.
    pub tool: &'a Path,
    /// Its flags, but for those of its output.
    pub flags: &'a [String],
    /// Where it may put its report.
    pub scratch: &'a Path,
    /// Where what it prints goes.
    pub output: &'a Path,
    /// How long it may take.
    pub limit: Duration,
}

impl Run<'_> {
    /// Runs the suite to its end; `passed` follows the number of specs that have passed.
    ///
    /// # Errors
    /// When it can't be run, takes too long, or `stop` is set meanwhile. Specs that fail are no error here.
    pub fn to_end(&self, passed: &AtomicU64, stop: &AtomicBool) -> anyhow::Result<Vec<Spec>> {
        let report = self.scratch.join("report.json");
        let child = Command::new(self.tool)
            .args(self.flags)
            .arg("--ginkgo.no-color")
            .arg(format!("--ginkgo.json-report={}", report.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", self.tool.display()))?;
        let mut suite = Suite(child);
        let (stdout, stderr) = (suite.0.stdout.take(), suite.0.stderr.take());
        std::thread::scope(|scope| {
            let printed =
                scope.spawn(|| keep(stdout.context("csi-sanity has no output")?, self.output, passed));
            let complained = scope.spawn(|| {
                let errors = self.output.with_extension("stderr");
                keep(
                    stderr.context("csi-sanity has no error output")?,
                    &errors,
                    &AtomicU64::new(0),
                )
            });
            let ended = self.wait(&mut suite, stop);
            drop(suite);
            for reader in [printed, complained] {
                reader.join().expect("the readers don't panic")?;
            }
            ended
        })?;
        let report = fs::read(&report).with_context(|| {
            format!(
                "csi-sanity wrote no report; what it printed is in {}",
                self.output.display()
            )
        })?;
        parse(&report)
    }

    fn wait(&self, suite: &mut Suite, stop: &AtomicBool) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.limit;
        while suite.0.try_wait().context("wait for csi-sanity")?.is_none() {
            if stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if Instant::now() > deadline {
                bail!("csi-sanity still ran after {:?}", self.limit);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

/// Copies what is printed to a file and counts the specs that have passed.
fn keep(mut from: impl io::Read, to: &Path, passed: &AtomicU64) -> anyhow::Result<()> {
    let mut file = fs::File::create(to).with_context(|| format!("make {}", to.display()))?;
    let mut bytes = [0; 4096];
    loop {
        let count = from.read(&mut bytes).context("read what csi-sanity prints")?;
        if count == 0 {
            return Ok(());
        }
        let bytes = &bytes[..count];
        let marks = bytes.windows(PASSED.len()).filter(|window| *window == PASSED);
        passed.fetch_add(marks.count() as u64, Ordering::Relaxed);
        io::Write::write_all(&mut file, bytes).with_context(|| format!("write {}", to.display()))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_name_each_spec_with_its_state_and_reason() {
        let report = br#"[{"SuitePath": "x", "SpecReports": [
            {"ContainerHierarchyTexts": null, "LeafNodeType": "BeforeSuite", "LeafNodeText": "", "State": "passed"},
            {"ContainerHierarchyTexts": ["A", "B"], "LeafNodeType": "It", "LeafNodeText": "works", "State": "passed",
             "RunTime": 1500000000},
            {"ContainerHierarchyTexts": ["A"], "LeafNodeType": "It", "LeafNodeText": "c", "State": "skipped",
             "Failure": {"Message": "not supported"}},
            {"ContainerHierarchyTexts": ["A"], "LeafNodeType": "It", "LeafNodeText": "d", "State": "panicked",
             "Failure": {"Message": "nil"}},
            {"ContainerHierarchyTexts": ["A"], "LeafNodeType": "It", "LeafNodeText": "e", "State": "pending"}
        ]}]"#;
        let spec = |name: &str, state, message: &str, seconds| Spec {
            name: name.to_owned(),
            state,
            message: message.to_owned(),
            seconds,
        };
        let expected = vec![
            spec("A B works", State::Passed, "", 1.5),
            spec("A c", State::Skipped, "not supported", 0.0),
            spec("A d", State::Failed, "nil", 0.0),
            spec("A e", State::Pending, "", 0.0),
        ];
        assert_eq!(parse(report).unwrap(), expected);
        assert!(parse(b"").is_err());
    }

    #[test]
    fn only_the_pinned_version_judges() {
        let binary = |version: &str| format!("\0\0mod\t{MODULE}\t{version}\th1:x").into_bytes();
        assert!(is_pinned(&binary(VERSION)));
        assert!(!is_pinned(&binary("v5.0.0")));
        assert!(!is_pinned(b""));
    }
}
