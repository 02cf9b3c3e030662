//! Go programs of our own, beside stock ones: `e2e/truth`, which is client-go against a disturbed server.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context as _, bail};

use crate::{kubectl_build::go, machine};

/// What came of building.
#[derive(Debug)]
pub enum GoProgram {
    /// Where it is.
    Built(PathBuf),
    /// This machine can't: the reason to skip.
    Impossible(String),
}

/// Builds the Go module `e2e/<name>` into `out_dir`; quick when nothing changed, by Go's own cache.
///
/// # Errors
/// When the code is there and doesn't compile.
pub fn build(name: &str, out_dir: &Path) -> anyhow::Result<GoProgram> {
    // Tests of one process ask at the same time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _held = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if !machine::has_tool("go") {
        return Ok(GoProgram::Impossible(format!(
            "Go is missing, with which e2e/{name} would be built"
        )));
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let fetched = go(&source, &["mod", "download"])?;
    if !fetched.status.success() {
        let why = String::from_utf8_lossy(&fetched.stderr).trim().to_owned();
        return Ok(GoProgram::Impossible(format!(
            "the modules of e2e/{name} can't be had: {why}"
        )));
    }
    let program = out_dir.join(name);
    // Finished under another name, so that a killed build leaves no half of a program.
    let partial = out_dir.join(format!("{name}.{}", std::process::id()));
    let partial_text = partial.to_str().context("target directories are UTF-8")?;
    let built = go(&source, &["build", "-trimpath", "-o", partial_text, "."])?;
    if !built.status.success() {
        bail!("build e2e/{name}: {}", String::from_utf8_lossy(&built.stderr));
    }
    fs::rename(&partial, &program).context("name the program")?;
    Ok(GoProgram::Built(program))
}
