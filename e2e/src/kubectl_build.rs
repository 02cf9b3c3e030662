//! Stock kubectl of a chosen version, built from its public Go module: `e2e/kubectl/*` are a dozen lines each that call
//! kubectl's own code, with the version pinned in `go.mod`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, bail};

use crate::machine;

const MODULE: &str = "k8s.io/kubectl";

/// What came of building.
#[derive(Debug)]
pub enum Built {
    /// The program, and its version such as `v1.28.3`.
    Program(PathBuf, String),
    /// This machine can't: the reason to skip.
    Impossible(String),
}

/// Builds the kubectl of `e2e/kubectl/<name>` into `out_dir`, unless it is there already.
///
/// # Errors
/// When the code is there and doesn't compile.
pub fn build(name: &str, out_dir: &Path) -> anyhow::Result<Built> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubectl").join(name);
    let module = fs::read_to_string(source.join("go.mod")).context("read go.mod")?;
    let version = kubectl_version(&module).with_context(|| format!("{name}/go.mod doesn't name {MODULE}"))?;
    let program = out_dir.join(format!("kubectl-{version}"));
    if program.is_file() {
        return Ok(Built::Program(program, version));
    }
    if !machine::has_tool("go") {
        let reason = format!("Go is missing, with which kubectl {version} would be built");
        return Ok(Built::Impossible(reason));
    }
    let fetched = go(&source, &["mod", "download"])?;
    if !fetched.status.success() {
        let why = String::from_utf8_lossy(&fetched.stderr).trim().to_owned();
        return Ok(Built::Impossible(format!(
            "the modules of kubectl {version} can't be had: {why}"
        )));
    }
    // Finished under another name, so that a killed build leaves no half of a program.
    let partial = out_dir.join(format!("kubectl-{version}.{}", std::process::id()));
    let [major, minor] = [0, 1].map(|part| {
        version
            .trim_start_matches('v')
            .split('.')
            .nth(part)
            .unwrap_or("0")
    });
    let base = "k8s.io/component-base/version";
    let flags =
        format!("-s -w -X {base}.gitVersion={version} -X {base}.gitMajor={major} -X {base}.gitMinor={minor}");
    let partial_text = partial.to_str().context("target directories are UTF-8")?;
    let built = go(
        &source,
        &["build", "-trimpath", "-ldflags", &flags, "-o", partial_text, "."],
    )?;
    if !built.status.success() {
        bail!(
            "build kubectl {version}: {}",
            String::from_utf8_lossy(&built.stderr)
        );
    }
    fs::rename(&partial, &program).context("name the program")?;
    Ok(Built::Program(program, version))
}

/// Runs the Go tool in a module.
pub(crate) fn go(dir: &Path, args: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new("go");
    // The Go that is there: no other one is fetched behind anybody's back.
    command.current_dir(dir).args(args).env("GOTOOLCHAIN", "local");
    command.output().with_context(|| format!("run go {args:?}"))
}

/// kubectl's version of `k8s.io/kubectl v0.X.Y` is `v1.X.Y`.
fn kubectl_version(module: &str) -> Option<String> {
    let mut words = module.split_whitespace();
    words.find(|word| *word == MODULE)?;
    Some(words.next()?.replacen("v0.", "v1.", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_names_the_version() {
        let module = "module x\n\ngo 1.21\n\nrequire (\n\tk8s.io/kubectl v0.28.3\n)\n";
        assert_eq!(kubectl_version(module).as_deref(), Some("v1.28.3"));
        assert_eq!(kubectl_version("module x"), None);
    }
}
