//! The `moorline` executable. Called as `moorline-shim` it is a pod's shim instead, and called by the name of one of
//! upstream's sidecars it is that sidecar.

use std::process::ExitCode;

fn main() -> ExitCode {
    moorline_container_runtime::run_if_shim()
        .or_else(moorline::run_if_called)
        .unwrap_or_else(moorline::main)
}
