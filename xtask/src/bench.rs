//! `cargo xtask bench`: builds in release mode and runs the benchmarks of `e2e`.

use std::env;

use crate::cargo;

/// Names the driver that the benchmark runs.
const DRIVER: &str = "MOORLINE_DRIVER_BIN";

/// Which benchmark, with its own flags.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `volumes`, `start` or `driver`, and what it takes; `--help` after it lists that.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<String>,
}

/// Runs one benchmark.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let is_of_driver = args.args.first().is_some_and(|name| name == "driver");
    if is_of_driver && env::var_os(DRIVER).is_none() {
        // The driver as it is to be run where nothing else of Moorline is needed.
        cargo::run(&["build", "--profile", "driver", "--package", "moorline-driver"])?;
        let program = cargo::target_dir().join("driver/moorline-driver");
        return cargo::run_program("moorline-bench", &args.args, &[(DRIVER, program)]);
    }
    cargo::run_program("moorline-bench", &args.args, &[])
}
