//! The `moorline` executable. Called as `moorline-shim` it is a pod's shim instead.

use std::process::ExitCode;

fn main() -> ExitCode {
    moorline_container_runtime::run_if_shim().unwrap_or_else(moorline::main)
}
