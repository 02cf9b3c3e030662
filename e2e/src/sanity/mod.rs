//! The reference driver before the Go world's judge: csi-sanity, unmodified, over every way to set the driver up.

pub mod matrix;
pub mod report;
pub mod suite;
pub mod verdict;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;

use self::{
    matrix::{Cell, Setup},
    report::Outcome,
};
use crate::{process::Part, scratch::ScratchPool};

/// Takes real space only as it fills; the suite's volumes are small.
const POOL_BYTES: u64 = 16 << 30;
/// How long the driver may take until it listens, and to end.
const DRIVER: Duration = Duration::from_secs(30);
/// How long one run may take: far more than any needs, also on a busy machine.
const RUN: Duration = Duration::from_secs(600);
/// How often a run that is under way is told of.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Enough for ext4, and little to make.
const VOLUME_BYTES: u64 = 64 << 20;
const EXPANDED_BYTES: u64 = 128 << 20;

/// What all runs share.
pub struct Options<'a> {
    /// The pinned csi-sanity.
    pub tool: PathBuf,
    /// Where the logs of the driver and of the suite are kept, in a folder for each run.
    pub logs: PathBuf,
    /// Told one line after the other of what goes on.
    pub tell: &'a (dyn Fn(&str) + Sync),
    /// Set to end early.
    pub stop: &'a AtomicBool,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("tool", &self.tool)
            .field("logs", &self.logs)
            .finish_non_exhaustive()
    }
}

/// What this machine lacks for a run; `None`: nothing.
pub fn missing(cell: Cell) -> Option<String> {
    cell.backend.pool_filesystem().missing()
}

/// Runs all these, `jobs` at a time, and gives the outcomes in their order.
///
/// # Errors
/// At the first run that could not be judged at all; the others are ended.
pub fn run_all(cells: &[Cell], jobs: usize, options: &Options<'_>) -> anyhow::Result<Vec<Outcome>> {
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let outcomes: Mutex<Vec<(usize, Outcome)>> = Mutex::default();
    let worker = || -> anyhow::Result<()> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(cell) = cells.get(at) else {
                return Ok(());
            };
            // A run that ends without a verdict ends all others.
            let outcome = run(*cell, options).inspect_err(|_| options.stop.store(true, Ordering::Relaxed))?;
            let count = done.fetch_add(1, Ordering::Relaxed) + 1;
            (options.tell)(&format!("[{count:>2}/{}] {}", cells.len(), outcome.summary()));
            outcomes.lock().expect("no panic while held").push((at, outcome));
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        let ended: Vec<_> = workers
            .into_iter()
            .map(|worker| worker.join().expect("workers don't panic"))
            .collect();
        // The error that came first is the one to tell; the others were interrupted by it.
        let is_interruption = |error: &anyhow::Error| error.root_cause().to_string() == "interrupted";
        let mut errors: Vec<_> = ended.into_iter().filter_map(Result::err).collect();
        errors.sort_by_key(is_interruption);
        errors.into_iter().next().map_or(Ok(()), Err)
    })?;
    let mut outcomes = outcomes.into_inner().expect("no panic while held");
    outcomes.sort_by_key(|(at, _)| *at);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

/// Runs one and judges it. Whatever happens, the machine is left as it was.
///
/// # Errors
/// When it could not be judged: the pool can't be made, the driver doesn't start, the suite doesn't end.
pub fn run(cell: Cell, options: &Options<'_>) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let logs = options.logs.join(cell.to_string().replace('/', "-"));
    fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
    let pool = ScratchPool::make(cell.backend.pool_filesystem(), POOL_BYTES, &[])?;
    let specs = judge(cell, options, &pool, &logs).with_context(|| format!("run csi-sanity for {cell}"))?;
    let mut verdict = verdict::judge(cell, &specs);
    let left = pool.left_behind();
    if !left.is_empty() {
        verdict.faults.push(format!("left behind: {}", left.join(", ")));
    }
    if let Err(error) = pool.remove() {
        verdict
            .faults
            .push(format!("the pool can't be removed: {error:#}"));
    }
    Ok(Outcome {
        cell,
        seconds: started.elapsed().as_secs_f64(),
        verdict,
        specs,
    })
}

/// Starts the driver, runs the suite against it, and ends the driver.
fn judge(
    cell: Cell,
    options: &Options<'_>,
    pool: &ScratchPool,
    logs: &Path,
) -> anyhow::Result<Vec<suite::Spec>> {
    let parts = start(cell, pool, logs)?;
    let mutable = mutable_parameters(pool);
    fs::write(&mutable, cell.mutable_parameters()).with_context(|| format!("write {}", mutable.display()))?;
    let passed = AtomicU64::new(0);
    let run = suite::Run {
        tool: &options.tool,
        flags: &suite_flags(cell, pool),
        scratch: pool.root(),
        output: &logs.join("csi-sanity.txt"),
        limit: RUN,
    };
    let ended = AtomicBool::new(false);
    let specs = std::thread::scope(|scope| {
        let teller = scope.spawn(|| {
            let mut told = Instant::now();
            while !ended.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(200));
                if told.elapsed() > TELL_EVERY {
                    told = Instant::now();
                    let passed = passed.load(Ordering::Relaxed);
                    (options.tell)(&format!("        {cell}: {passed} specs have passed so far"));
                }
            }
        });
        let specs = run.to_end(&passed, options.stop);
        ended.store(true, Ordering::Relaxed);
        teller.thread().unpark();
        specs
    })?;
    for part in parts {
        part.terminate(DRIVER)?;
    }
    Ok(specs)
}

/// The processes of the driver, listening.
fn start(cell: Cell, pool: &ScratchPool, logs: &Path) -> anyhow::Result<Vec<Part>> {
    let services: &[(&str, &[&str])] = match cell.setup {
        Setup::Together => &[("csi", &[])],
        Setup::Split => &[("controller", &["--controller"]), ("node", &["--node"])],
    };
    let mut parts = Vec::new();
    for (name, flags) in services {
        let socket = pool.root().join(name).with_extension("sock");
        let mut args = vec![
            "driver".to_owned(),
            "--node-id=n1".to_owned(),
            format!("--endpoint=unix://{}", socket.display()),
            format!("--pool-dir={}", pool.path().join("volumes-of-suite").display()),
        ];
        args.extend(cell.driver_flags());
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let log = logs.join(name).with_extension("log");
        // Logs are appended to; this is a new run.
        fs::write(&log, "").with_context(|| format!("empty {}", log.display()))?;
        let mut part = Part::start(&args, &log);
        part.wait_for_socket(&socket, DRIVER)
            .with_context(|| format!("the driver's log is {}", log.display()))?;
        parts.push(part);
    }
    Ok(parts)
}

fn mutable_parameters(pool: &ScratchPool) -> PathBuf {
    pool.root().join("mutable-parameters.yaml")
}

fn suite_flags(cell: Cell, pool: &ScratchPool) -> Vec<String> {
    let root = pool.root().display();
    let endpoints = match cell.setup {
        Setup::Together => vec![format!("--csi.endpoint=unix://{root}/csi.sock")],
        Setup::Split => vec![
            format!("--csi.endpoint=unix://{root}/node.sock"),
            format!("--csi.controllerendpoint=unix://{root}/controller.sock"),
        ],
    };
    let common = [
        format!("--csi.stagingdir={root}/staging"),
        format!("--csi.mountdir={root}/mount"),
        format!("--csi.testvolumesize={VOLUME_BYTES}"),
        format!("--csi.testvolumeexpandsize={EXPANDED_BYTES}"),
        format!(
            "--csi.testvolumemutableparameters={}",
            mutable_parameters(pool).display()
        ),
    ];
    endpoints
        .into_iter()
        .chain(common)
        .chain(cell.suite_flags())
        .collect()
}
