//! The benchmarks: whole-cluster figures, measured from outside through the same front door as every client.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use moorline_e2e::bench;

/// Benchmarks of a whole cluster. Each starts clusters of its own in temporary directories.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
enum Args {
    /// Claims made by concurrent clients over TLS, until all are Bound.
    Volumes {
        /// How many claims.
        #[arg(long, default_value_t = 1000)]
        count: usize,
        /// How many clients create them, each over a connection of its own.
        #[arg(long, default_value_t = 32)]
        clients: usize,
        /// `dir`, or `null` for a driver that answers at once.
        #[arg(long, default_value = "dir")]
        backend: String,
        /// How long all of it may take, in seconds.
        #[arg(long, default_value_t = 600)]
        timeout: u64,
        /// One JSON document instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Cold start to ready, idle memory and processor time, and a claim with a pod to its running container.
    Start {
        /// How many cold starts, and how many pods.
        #[arg(long, default_value_t = 10)]
        runs: usize,
        /// How long the idle cluster is watched, in seconds.
        #[arg(long, default_value_t = 20)]
        idle: u64,
        /// How the driver keeps volumes: `dir` or `loop`.
        #[arg(long, default_value = "dir")]
        backend: String,
        /// One JSON document instead of lines.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (figures, json) = match args {
        Args::Volumes {
            count,
            clients,
            backend,
            timeout,
            json,
        } => {
            let options = bench::volumes::Options {
                count,
                clients,
                backend,
                limit: Duration::from_secs(timeout),
            };
            (
                runtime
                    .block_on(bench::volumes::run(&options))
                    .context("bench volumes")?,
                json,
            )
        }
        Args::Start {
            runs,
            idle,
            backend,
            json,
        } => {
            let options = bench::start::Options {
                runs,
                idle: Duration::from_secs(idle),
                backend,
            };
            (
                runtime
                    .block_on(bench::start::run(&options))
                    .context("bench start")?,
                json,
            )
        }
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        figures
            .iter()
            .for_each(|(name, value)| println!("{name:<40} {value}"));
    }
    Ok(())
}
