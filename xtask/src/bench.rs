//! `cargo xtask bench`: builds in release mode and runs the benchmarks of `e2e`.

use crate::cargo;

/// Which benchmark, with its own flags.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `volumes` or `start`, and what it takes; `--help` after it lists that.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<String>,
}

/// Runs one benchmark.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    cargo::run(&[
        "build",
        "--release",
        "--package",
        "moorline",
        "--package",
        "moorline-e2e",
    ])?;
    let release = cargo::target_dir().join("release");
    let mut command = std::process::Command::new(release.join("moorline-bench"));
    cargo::run_command(
        command
            .args(&args.args)
            .env("MOORLINE_BIN", release.join("moorline")),
    )
}
