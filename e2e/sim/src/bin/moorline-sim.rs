//! The simulator's command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use moorline_model::mutant;
use moorline_sim::runner::{Case, Runner, Verdict};
use moorline_sim::world::{self, Options};
use parking_lot::Mutex;

/// Simulates whole clusters, one for each seed: users, faults, kills, virtual time; checks the invariants after each
/// step and that everything settles in the end.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask sim")]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this one; twice, to show that it replays.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Print everything that happens; with --seed.
    #[arg(long, requires = "seed")]
    verbose: bool,
    /// How many simulations at once; default: one for each processor.
    #[arg(long)]
    jobs: Option<usize>,
    /// Run with a deliberate bug, to see whether it is found.
    #[arg(long)]
    mutant: Option<String>,
    /// Run each deliberate bug until a seed finds it; fails if one is not found.
    #[arg(long)]
    mutants: bool,
    /// Don't look for the smallest plan that still fails.
    #[arg(long)]
    no_shrink: bool,
    /// Steps of users to leave out, as a report says; with --seed.
    #[arg(long, value_delimiter = ',', requires = "seed")]
    without_ops: Vec<usize>,
    /// Faults to leave out; with --seed.
    #[arg(long, value_delimiter = ',', requires = "seed")]
    without_faults: Vec<usize>,
    /// This process is one simulation.
    #[arg(long, hide = true)]
    one: bool,
    #[arg(long, hide = true)]
    prepare: bool,
    #[arg(long, hide = true, default_value = ".")]
    pki: PathBuf,
}

/// How long one simulation may take in real time.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let args = Args::parse();
    let done = if args.prepare {
        world::prepare(&args.pki).map(|()| true)
    } else if args.one {
        one(&args)
    } else if args.mutants {
        mutants(&args)
    } else if args.seed.is_some() {
        single(&args)
    } else {
        many(&args)
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn case(args: &Args) -> Case {
    Case {
        seed: args.seed.unwrap_or_default(),
        without_ops: args.without_ops.iter().copied().collect(),
        without_faults: args.without_faults.iter().copied().collect(),
        mutant: args.mutant.clone(),
    }
}

/// The child's side.
fn one(args: &Args) -> anyhow::Result<bool> {
    let options = Options {
        pki: args.pki.clone(),
        verbose: args.verbose,
        mutant: args.mutant.clone(),
    };
    let outcome = world::run(&case(args).plan(), &options);
    let verdict = Verdict {
        broken: outcome.broken,
        hash: format!("{:016x}", outcome.hash),
        lines: outcome.lines,
        steps: outcome.steps,
        millis: outcome.millis,
        tail: outcome.tail,
    };
    if args.verbose {
        verdict.broken.iter().for_each(|line| println!("BROKEN {line}"));
    } else {
        println!(
            "{}",
            serde_json::to_string(&verdict).context("write the verdict")?
        );
    }
    Ok(true)
}

fn runner() -> anyhow::Result<Runner> {
    Runner::new(&std::env::current_exe().context("find this program")?, PATIENCE)
}

fn single(args: &Args) -> anyhow::Result<bool> {
    let case = case(args);
    let runner = runner()?;
    if args.verbose {
        return runner.show(&case);
    }
    let (verdict, again) = (runner.run(&case)?, runner.run(&case)?);
    println!(
        "seed {}: trace {} of {} lines, {} steps, {:.1} virtual seconds",
        case.seed,
        verdict.hash,
        verdict.lines,
        verdict.steps,
        Duration::from_millis(verdict.millis).as_secs_f64()
    );
    if verdict.hash != again.hash {
        println!(
            "seed {} does not replay: the second run's trace is {}",
            case.seed, again.hash
        );
        return Ok(false);
    }
    if verdict.broken.is_empty() {
        return Ok(true);
    }
    report(&runner, &case, &verdict, !args.no_shrink)?;
    Ok(false)
}

fn many(args: &Args) -> anyhow::Result<bool> {
    let runner = runner()?;
    let mutant = args.mutant.as_deref();
    let cases: Vec<Case> = (args.from..args.from + args.seeds)
        .map(|seed| Case::of(seed, mutant))
        .collect();
    let begun = Instant::now();
    let (done, steps, millis) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failed: Mutex<Vec<(Case, Verdict)>> = Mutex::new(Vec::new());
    runner.run_many(&cases, jobs(args), |case, verdict| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        steps.fetch_add(verdict.steps, Ordering::Relaxed);
        millis.fetch_add(verdict.millis, Ordering::Relaxed);
        if !verdict.broken.is_empty() {
            println!("seed {} fails: {}", case.seed, verdict.broken[0]);
            failed.lock().push((case.clone(), verdict.clone()));
        }
        if done.is_multiple_of(100) {
            println!("{done} of {} seeds, {:.0?}", args.seeds, begun.elapsed());
        }
        failed.lock().len() < 20
    })?;
    let mut failed = failed.into_inner();
    failed.sort_by_key(|(case, _)| case.seed);
    if let Some((case, verdict)) = failed.first() {
        report(&runner, case, verdict, !args.no_shrink)?;
    }
    println!(
        "{} seeds from {}: {} failed; {} events, {:.1} virtual hours in {:.1?}",
        done.into_inner(),
        args.from,
        failed.len(),
        steps.into_inner(),
        Duration::from_millis(millis.into_inner()).as_secs_f64() / 3600.0,
        begun.elapsed()
    );
    Ok(failed.is_empty())
}

/// Looks for each deliberate bug.
fn mutants(args: &Args) -> anyhow::Result<bool> {
    let runner = runner()?;
    let mut missed = 0;
    for name in mutant::ALL {
        if args.mutant.as_deref().is_some_and(|only| only != *name) {
            continue;
        }
        let cases: Vec<Case> = (args.from..args.from + args.seeds)
            .map(|seed| Case::of(seed, Some(name)))
            .collect();
        let found: Mutex<Option<(u64, String)>> = Mutex::new(None);
        runner.run_many(&cases, jobs(args), |case, verdict| {
            if let Some(line) = verdict.broken.first() {
                found.lock().get_or_insert((case.seed, line.clone()));
            }
            verdict.broken.is_empty()
        })?;
        match found.into_inner() {
            Some((seed, line)) => println!("{name}: found by seed {seed}: {line}"),
            None => {
                missed += 1;
                println!("{name}: not found by {} seeds", args.seeds);
            }
        }
    }
    Ok(missed == 0)
}

fn jobs(args: &Args) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    args.jobs.unwrap_or(processors)
}

/// Says all that helps with a seed that fails.
fn report(runner: &Runner, case: &Case, verdict: &Verdict, shrinks: bool) -> anyhow::Result<()> {
    println!("\nseed {} fails:", case.seed);
    verdict.broken.iter().for_each(|line| println!("  {line}"));
    let mut smallest = case.clone();
    if shrinks {
        println!("looking for the smallest plan that fails ...");
        smallest = runner.shrink(case, |_| {})?;
    }
    let verdict = runner.run(&smallest)?;
    let plan = smallest.plan();
    println!("what is left of its plan (milliseconds, what):");
    plan.ops.iter().for_each(|(at, op)| println!("  {at:>7} {op:?}"));
    plan.faults
        .iter()
        .for_each(|(at, fault)| println!("  {at:>7} {fault:?}"));
    println!("and fails with:");
    verdict.broken.iter().for_each(|line| println!("  {line}"));
    println!("after:");
    verdict.tail.iter().for_each(|line| println!("  {line}"));
    println!("again: cargo xtask sim {}", smallest.flags().join(" "));
    Ok(())
}
