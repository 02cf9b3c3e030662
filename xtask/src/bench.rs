//! `cargo xtask bench`: builds in release mode and runs the benchmarks of `e2e`.

use crate::cargo;

/// Which benchmark, with its own flags.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `volumes`, `start` or `driver`, and what it takes; `--help` after it lists that.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<String>,
}

/// Runs one benchmark.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    cargo::run_program("moorline-bench", &args.args)
}
