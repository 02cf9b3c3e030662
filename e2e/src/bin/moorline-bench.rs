//! The benchmarks: the whole cluster and the driver alone, measured from outside through the same front door as every
//! client.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use moorline_e2e::bench::{
    self,
    driver::{Part, Peer},
};

/// Benchmarks. Each starts clusters or drivers of its own in temporary directories.
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
    /// The driver alone: calls a second, latency, memory; beside another CSI driver with `--peer`.
    Driver(DriverArgs),
}

#[derive(Debug, clap::Args)]
struct DriverArgs {
    /// Another CSI driver that runs on this machine: unix:///path or tcp://address:port, and its process id for its memory
    #[arg(long, value_name = "ENDPOINT[,pid=N]")]
    peer: Option<Peer>,
    /// Which parts
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "start,idle,loads,many,snapshot"
    )]
    parts: Vec<Part>,
    /// Numbers of clients, each over a connection of its own
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    clients: Vec<usize>,
    /// Numbers of volumes that exist already, growing
    #[arg(long, value_delimiter = ',', default_value = "0,1000,5000")]
    existing: Vec<usize>,
    /// How many volumes memory and listing are measured with
    #[arg(long, default_value_t = 10_000)]
    many: usize,
    /// How long each load runs, in seconds
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How our driver keeps the volumes that are staged and published
    #[arg(long, default_value = "dir")]
    backend: String,
    /// Where pools are made; its filesystem is part of what is measured [default: the temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// `json` for one JSON document instead of lines
    #[arg(long, value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Json,
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
        Args::Driver(args) => return runtime.block_on(driver(args)),
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

/// Measures until done or told to stop, so that no mount is left either way.
async fn driver(args: DriverArgs) -> anyhow::Result<()> {
    let options = bench::driver::Options {
        peer: args.peer,
        parts: args.parts,
        clients: args.clients,
        existing: args.existing,
        many: args.many,
        time: Duration::from_secs_f64(args.seconds),
        backend: args.backend,
        dir: args.dir.unwrap_or_else(std::env::temp_dir),
    };
    let report = tokio::select! {
        report = bench::driver::run(&options) => report.context("bench driver")?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    };
    match args.output {
        Some(Output::Json) => println!("{}", serde_json::to_string_pretty(&report)?),
        None => print!("{report}"),
    }
    Ok(())
}
