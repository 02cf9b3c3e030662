//! `cargo xtask tidy`: rules of the repository itself, with messages that say what to do.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::cargo;

/// Lines of a source file, without tests in files of their own.
const LONGEST_FILE: usize = 1000;

/// Which part may use which other parts. A new edge is a reviewed line here (docs/ARCHITECTURE.md draws them).
const EDGES: &[(&str, &[&str])] = &[
    ("moorline-proto", &[]),
    ("moorline-mount", &[]),
    ("moorline-model", &[]),
    ("moorline-store", &[]),
    ("moorline-schema", &[]),
    ("moorline-runtime", &[]),
    ("moorline-driver-sdk", &["moorline-proto"]),
    (
        "moorline-driver-local",
        &["moorline-driver-sdk", "moorline-mount", "moorline-proto"],
    ),
    (
        "moorline-driver",
        &["moorline-driver-local", "moorline-driver-sdk"],
    ),
    ("moorline-container-runtime", &["moorline-mount"]),
    (
        "moorline-volume-controllers",
        &["moorline-model", "moorline-runtime"],
    ),
    (
        "moorline-sidecars",
        &["moorline-model", "moorline-proto", "moorline-runtime"],
    ),
    ("moorline-scheduler", &["moorline-model", "moorline-runtime"]),
    (
        "moorline-kubelet",
        &[
            "moorline-container-runtime",
            "moorline-model",
            "moorline-mount",
            "moorline-proto",
            "moorline-runtime",
        ],
    ),
    ("moorline-apiserver", &["moorline-schema", "moorline-store"]),
    (
        "moorline",
        &[
            "moorline-apiserver",
            "moorline-container-runtime",
            "moorline-driver-local",
            "moorline-driver-sdk",
            "moorline-kubelet",
            "moorline-model",
            "moorline-mount",
            "moorline-proto",
            "moorline-runtime",
            "moorline-scheduler",
            "moorline-sidecars",
            "moorline-store",
            "moorline-volume-controllers",
        ],
    ),
    (
        "moorline-e2e",
        &[
            "moorline",
            "moorline-apiserver",
            "moorline-mount",
            "moorline-proto",
            "moorline-store",
        ],
    ),
    (
        "moorline-sim",
        &[
            "moorline-apiserver",
            "moorline-container-runtime",
            "moorline-kubelet",
            "moorline-model",
            "moorline-proto",
            "moorline-runtime",
            "moorline-scheduler",
            "moorline-sidecars",
            "moorline-store",
            "moorline-volume-controllers",
        ],
    ),
    ("xtask", &[]),
];

/// Checks everything and reports all faults at once.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut faults = Vec::new();
    check_edges(&mut faults)?;
    for file in source_files()? {
        let text = fs::read_to_string(cargo::workspace().join(&file))
            .with_context(|| format!("read {}", file.display()))?;
        check_source(&file, &text, &mut faults);
    }
    if faults.is_empty() {
        return Ok(());
    }
    faults.iter().for_each(|fault| eprintln!("tidy: {fault}"));
    bail!("{} faults, see above", faults.len())
}

/// The Rust files that git knows or would know.
fn source_files() -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .current_dir(cargo::workspace())
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .output()
        .context("list source files with git")?;
    let files = String::from_utf8(output.stdout).context("file names are UTF-8")?;
    Ok(files
        .lines()
        .map(PathBuf::from)
        .filter(|file| cargo::workspace().join(file).exists())
        .collect())
}

fn check_source(file: &Path, text: &str, faults: &mut Vec<String>) {
    let name = file.display();
    if !text.starts_with("//!") {
        faults.push(format!(
            "{name}: starts without a `//!` line that says what the module is responsible for"
        ));
    }
    let lines = text.lines().count();
    if lines > LONGEST_FILE && !is_test(file) {
        faults.push(format!(
            "{name}: {lines} lines, at most {LONGEST_FILE}: find the seam and split it"
        ));
    }
    for (number, line) in text.lines().enumerate() {
        let at = number + 1;
        // Put together at run time, so that this file passes its own check.
        for marker in [["TO", "DO"].concat(), ["FIX", "ME"].concat()] {
            if line.contains(&marker) && !line.contains(&format!("{marker}(#")) {
                faults.push(format!(
                    "{name}:{at}: {marker} without an issue number, write {marker}(#N)"
                ));
            }
        }
        if line.trim_start().starts_with(&["#[", "ignore"].concat()) {
            faults.push(format!(
                "{name}:{at}: an ignored test; let it print `skipped: name: reason` and return"
            ));
        }
    }
}

fn is_test(file: &Path) -> bool {
    let in_folder = file.components().any(|part| part.as_os_str() == "tests");
    in_folder || file.file_stem().is_some_and(|stem| stem == "tests")
}

/// Compares the dependencies between our packages with the allowed ones.
fn check_edges(faults: &mut Vec<String>) -> anyhow::Result<()> {
    let output = cargo::command(&["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()
        .context("run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("read cargo metadata")?;
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    for package in metadata["packages"]
        .as_array()
        .context("cargo metadata lists packages")?
    {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(allowed) = allowed.get(name) else {
            faults.push(format!(
                "package {name} is not in the list of edges in xtask/src/tidy.rs"
            ));
            continue;
        };
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        for to in dependencies
            .filter(|d| d["path"].is_string() && d["kind"] != "dev")
            .filter_map(|d| d["name"].as_str())
        {
            if !allowed.contains(&to) {
                faults.push(format!(
                    "{name} depends on {to}: not an allowed edge (docs/ARCHITECTURE.md)"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(file: &str, text: &str) -> usize {
        let mut faults = Vec::new();
        check_source(Path::new(file), text, &mut faults);
        faults.len()
    }

    #[test]
    fn each_rule_finds_its_fault_and_clean_files_pass() {
        let marker = ["TO", "DO"].concat();
        assert_eq!(faults("a.rs", "//! Fine.\nfn a() {}\n"), 0);
        assert_eq!(faults("a.rs", "fn a() {}\n"), 1);
        assert_eq!(faults("a.rs", &format!("//! A.\n// {marker}: later\n")), 1);
        assert_eq!(faults("a.rs", &format!("//! A.\n// {marker}(#7): later\n")), 0);
        assert_eq!(faults("a.rs", &format!("//! A.\n{}", "\n".repeat(1001))), 1);
        assert_eq!(
            faults("x/tests/a.rs", &format!("//! A.\n{}", "\n".repeat(1001))),
            0
        );
    }

    #[test]
    fn the_repository_is_tidy() {
        run().unwrap();
    }
}
