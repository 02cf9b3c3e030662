//! `cargo xtask sim`: builds the simulator with optimisation and runs it.

use std::process::Command;

use crate::cargo;

/// Which seeds, with the simulator's own flags.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `--seeds N`, `--seed S`, `--from S`, `--mutants` and more; `-- --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs the simulator.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    cargo::run(&["build", "--release", "--package", "moorline-sim"])?;
    let program = cargo::target_dir().join("release/moorline-sim");
    cargo::run_command(Command::new(program).args(&args.args))
}
