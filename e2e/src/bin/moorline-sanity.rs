//! `cargo xtask sanity`: csi-sanity against the reference driver, in every set-up.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::Context as _;
use clap::Parser;
use moorline_e2e::{
    machine,
    sanity::{
        self,
        matrix::{self, Filter},
        report::{self, Format},
        suite,
    },
};

/// Judges the reference driver with csi-sanity, unmodified, over backend × access type × set-up × attachment.
///
/// Needs root, and Go where csi-sanity is not installed yet. Each run has a pool of its own on a loop device.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask sanity")]
struct Args {
    /// Only runs with all these words, such as `loop/block/...` or `split`
    #[arg(long, value_name = "WORD/WORD...", default_value = "...")]
    only: Filter,
    /// Write all results to a file as well: `json FILE` or `junit FILE`
    #[arg(long, num_args = 2, value_names = ["FORMAT", "FILE"])]
    output: Option<Vec<String>>,
    /// How many runs at a time
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    jobs: usize,
    /// Only print which runs there are
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<bool> {
    let mut cells = matrix::all();
    cells.retain(|cell| args.only.takes(*cell));
    if args.list {
        cells.iter().for_each(|cell| println!("{cell}"));
        return Ok(true);
    }
    let output = args.output.as_deref().map(output).transpose()?;
    let target = target_dir()?;
    let tool = match ready(&target.join("tools")) {
        Ok(tool) => tool,
        Err(error) => {
            println!("skipped: csi-sanity: {error:#}");
            return Ok(true);
        }
    };
    cells.retain(|cell| {
        let missing = sanity::missing(*cell);
        if let Some(reason) = &missing {
            println!("skipped: {cell}: {reason}");
        }
        missing.is_none()
    });
    static STOP: AtomicBool = AtomicBool::new(false);
    let signals = stop_on_signals(&STOP)?;
    let options = sanity::Options {
        tool,
        logs: target.join("sanity"),
        tell: &|line| eprintln!("{line}"),
        stop: &STOP,
    };
    eprintln!(
        "csi-sanity {}, {} runs, {} at a time; logs in {}",
        suite::VERSION,
        cells.len(),
        args.jobs,
        options.logs.display()
    );
    let outcomes = sanity::run_all(&cells, args.jobs, &options);
    signals.shutdown_background();
    let outcomes = outcomes?;
    println!("{}", report::table(&outcomes));
    if let Some((format, file)) = output {
        fs::write(&file, report::render(&outcomes, format)?)
            .with_context(|| format!("write {}", file.display()))?;
    }
    Ok(outcomes.iter().all(report::Outcome::is_good))
}

fn output(words: &[String]) -> anyhow::Result<(Format, PathBuf)> {
    let [format, file] = words else {
        anyhow::bail!("--output takes a format and a file")
    };
    let format = clap::ValueEnum::from_str(format, false)
        .map_err(|error| anyhow::anyhow!("--output {format}: {error}; there are json and junit"))?;
    Ok((format, PathBuf::from(file)))
}

/// The tool, if this machine can run the suite at all.
fn ready(tools: &Path) -> anyhow::Result<PathBuf> {
    anyhow::ensure!(machine::is_root(), "needs root (mounts and loop devices)");
    anyhow::ensure!(machine::has_loop_devices(), "no loop devices on this machine");
    anyhow::ensure!(
        machine::has_tool("mkfs.ext4"),
        "mkfs.ext4 is missing (Debian: e2fsprogs)"
    );
    suite::find_or_install(tools)
}

/// The folder of build results that this program is in.
fn target_dir() -> anyhow::Result<PathBuf> {
    let program = env::current_exe().context("find this program")?;
    let target = program.parent().and_then(Path::parent);
    Ok(target.context("this program is in no target folder")?.to_owned())
}

/// Sets `stop` on ctrl-C and SIGTERM for as long as the runtime lives, so that each run cleans up after itself.
fn stop_on_signals(stop: &'static AtomicBool) -> anyhow::Result<tokio::runtime::Runtime> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("start listening for signals")?;
    let _guard = runtime.enter();
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt()).context("listen for ctrl-C")?,
        signal(SignalKind::terminate()).context("listen for SIGTERM")?,
    );
    runtime.spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.store(true, Ordering::Relaxed);
        eprintln!("ending; cleaning up");
    });
    drop(_guard);
    Ok(runtime)
}
