//! `cargo xtask sanity`: builds in release mode and has csi-sanity judge the reference driver.

use crate::cargo;

/// Which runs, with the flags of the program itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `--only loop/block/...`, `--output json|junit FILE`, `--list`; `--help` after `--` lists all.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs them.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    cargo::run_program("moorline-sanity", &args.args, &[])
}
