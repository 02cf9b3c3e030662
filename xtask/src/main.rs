//! Developer commands: `cargo xtask <verb>` is the only tool to learn here.

mod bench;
mod cargo;
mod check;
mod coverage;
mod fuzz;
mod sanity;
mod sim;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of Moorline.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Formatting, clippy without warnings, tidy, documentation, and cargo-deny where it is installed.
    Check,
    /// Builds the release binary and runs every test; ends with `N passed, N failed, N skipped`.
    Test(test::Args),
    /// How many lines of the modules that decide are run by their own tests, module by module.
    Coverage(coverage::Args),
    /// Benchmarks, recorded in docs/benchmarks.md: `volumes`, `start` and `driver`.
    Bench(bench::Args),
    /// Fuzzes everything that reads untrusted bytes, each target for a minute; see docs/fuzzing.md.
    Fuzz(fuzz::Args),
    /// csi-sanity against the reference driver, in every set-up.
    Sanity(sanity::Args),
    /// Simulates whole clusters, one for each seed, with faults and kills; see docs/simulation.md.
    Sim(sim::Args),
    /// Rules of the repository itself: edges between crates, file sizes, module docs, stray markers.
    Tidy,
}

fn main() -> ExitCode {
    if let Some(code) = fuzz::in_place_of_rustc().or_else(coverage::in_place_of_rustc) {
        return code;
    }
    let outcome = match Args::parse().verb {
        Verb::Check => check::run(),
        Verb::Test(args) => test::run(&args),
        Verb::Coverage(args) => coverage::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Sanity(args) => sanity::run(&args),
        Verb::Sim(args) => sim::run(&args),
        Verb::Tidy => tidy::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
