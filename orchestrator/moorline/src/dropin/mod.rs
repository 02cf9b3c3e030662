//! Drop-ins: `moorline` called under the name of an upstream program takes that program's flags and does its work.
//!
//! | called as | what it is |
//! | --- | --- |
//! | `csi-provisioner`, `csi-attacher`, `csi-resizer`, `csi-snapshotter`, `csi-external-health-monitor-controller` | that sidecar, alone |
//! | `snapshot-controller` | the controller of that name, alone; no driver is asked |
//! | `csi-node-driver-registrar`, `livenessprobe` | that sidecar; no API server is asked |
//! | `moorline sidecar NAME ...` | the same without a link |
//! | `moorline sidecars ...` | several of them in one process ([`crate::sidecars`]) |
//! | `moorline controllers ...` | the volume controllers of kube-controller-manager |
//!
//! [`tables`] holds the flags as data. What upstream's programs do with them is in `docs/sidecars.md`.

pub(crate) mod api;
pub(crate) mod controllers;
pub(crate) mod election;
pub(crate) mod endpoint;
mod owner;
mod program;
pub(crate) mod settings;
mod snapshot_controller;
mod tables;

use std::ffi::OsString;
use std::future::Future;
use std::path::Path;
use std::process::ExitCode;

use moorline_runtime::goflag::{self, Flag, UsageError, Values};
use tokio_util::sync::CancellationToken;

use crate::args::LogFormat;
use crate::signals::Signals;
use crate::telemetry;
pub(crate) use program::{liveness_health, named};
use tables::Program;

/// Exit code for a command line that can't be used, as Go's flag package has it.
const USAGE: u8 = 2;

/// If this process was called under the name of an upstream sidecar: its whole life, and how it ended.
pub fn run_if_called() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    let called = args.next()?;
    let name = Path::new(&called).file_name()?.to_str()?;
    let program = Program::named(name)?;
    Some(run_program(program, args.collect()))
}

/// `moorline sidecar NAME ...`.
pub(crate) fn run_named(name: &str, args: Vec<OsString>) -> ExitCode {
    match Program::named(name).or_else(|| Program::named(&format!("csi-{name}"))) {
        Some(program) => run_program(program, args),
        None => {
            let names: Vec<&str> = Program::ALL.into_iter().map(Program::name).collect();
            say_usage(&format!("no sidecar {name:?}: there are {}", names.join(", ")))
        }
    }
}

fn run_program(program: Program, args: Vec<OsString>) -> ExitCode {
    let values = match read(program.name(), program.flags(), args) {
        Ok(values) => values,
        Err(code) => return code,
    };
    if program != Program::Livenessprobe && values.flag("version") {
        return say_version(program.name());
    }
    run(&values, |stop| {
        Box::pin(program::serve(program, values.clone(), stop))
    })
}

/// `moorline controllers ...`.
pub(crate) fn run_controllers(args: Vec<OsString>) -> ExitCode {
    let values = match read("moorline controllers", tables::controllers(), args) {
        Ok(values) => values,
        Err(code) => return code,
    };
    if values.flag("version") {
        return say_version("moorline controllers");
    }
    run(&values, |stop| Box::pin(controllers::serve(values.clone(), stop)))
}

/// Reads a command line, or says why it can't be used and how to end.
fn read(program: &str, flags: Vec<Flag>, args: Vec<OsString>) -> Result<Values, ExitCode> {
    let mut words = Vec::with_capacity(args.len());
    for arg in args {
        match arg.into_string() {
            Ok(word) => words.push(word),
            Err(arg) => return Err(say_usage(&format!("argument {arg:?} is not UTF-8"))),
        }
    }
    goflag::parse(flags.clone(), words).map_err(|error| match error {
        UsageError::Help => say_help(&goflag::usage(program, &flags)),
        error => say_usage(&format!("{program}: {error}; --help lists all flags")),
    })
}

/// Sets up logging and the runtime, and serves until a signal: the first asks for an orderly end, the second ends at once.
fn run<F, Fut>(values: &Values, serve: F) -> ExitCode
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let format = match values.text("logging-format") {
        "json" => LogFormat::Json,
        _ => LogFormat::Text,
    };
    telemetry::init(format, verbosity(values.int("v")), "info");
    for warning in values.warnings() {
        tracing::warn!("{warning}");
    }
    let builder = tokio::runtime::Builder::new_multi_thread();
    match crate::on_runtime(builder, async { until_signalled(serve).await }) {
        Ok(code) => code,
        Err(error) => {
            telemetry::say_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Runs `serve` until it ends or a signal stops it.
pub(crate) async fn until_signalled<F, Fut>(serve: F) -> anyhow::Result<ExitCode>
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let stop = CancellationToken::new();
    let mut signals = Signals::new()?;
    let mut serving = Box::pin(serve(stop.clone()));
    tokio::select! {
        ended = &mut serving => return ended.map(|()| ExitCode::SUCCESS),
        (signal, _) = signals.next() => tracing::info!(signal, "Draining; a second signal ends at once"),
    }
    stop.cancel();
    tokio::select! {
        ended = serving => ended.map(|()| ExitCode::SUCCESS),
        (_, number) = signals.next() => Ok(ExitCode::from(128 + number)),
    }
}

/// klog's levels in ours: up to 2 what changes, up to 4 decisions, above that payloads.
fn verbosity(level: i64) -> u8 {
    match level {
        ..=2 => 0,
        3 | 4 => 1,
        _ => 2,
    }
}

#[expect(clippy::print_stderr, reason = "the command line's answer to its user")]
fn say_usage(text: &str) -> ExitCode {
    eprintln!("error: {text}");
    ExitCode::from(USAGE)
}

#[expect(clippy::print_stdout, reason = "the command line's answer to its user")]
fn say_help(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

#[expect(clippy::print_stdout, reason = "the command line's answer to its user")]
fn say_version(program: &str) -> ExitCode {
    println!("{program} moorline-{}", env!("CARGO_PKG_VERSION"));
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_klog() {
        assert_eq!([-1, 0, 2, 3, 4, 5, 10].map(verbosity), [0, 0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn names_of_programs() {
        for program in Program::ALL {
            assert_eq!(Program::named(program.name()), Some(program));
        }
        assert_eq!(Program::named("moorline"), None);
    }
}
