//! Running cargo in the workspace, and nothing else.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// The folder of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// A cargo command in the workspace.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()).args(args);
    command
}

/// Runs cargo and fails unless it succeeds.
pub(crate) fn run(args: &[&str]) -> anyhow::Result<()> {
    run_command(&mut command(args))
}

/// Runs a command and fails unless it succeeds.
pub(crate) fn run_command(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}").replace('"', "");
    eprintln!("$ {shown}");
    let status = command.status().with_context(|| format!("start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Builds the product and one of the programs of `e2e` in release mode, and runs it.
pub(crate) fn run_program(name: &str, args: &[String], variables: &[(&str, PathBuf)]) -> anyhow::Result<()> {
    run(&[
        "build",
        "--release",
        "--package",
        "moorline",
        "--package",
        "moorline-e2e",
    ])?;
    let release = target_dir().join("release");
    let mut program = Command::new(release.join(name));
    program.args(args).env("MOORLINE_BIN", release.join("moorline"));
    for (name, value) in variables {
        program.env(name, value);
    }
    run_command(&mut program)
}
