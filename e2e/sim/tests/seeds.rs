//! A few seeds in every test run: they hold, and they replay.

use std::path::Path;
use std::time::Duration;

use moorline_sim::runner::{Case, Runner};

const PATIENCE: Duration = Duration::from_secs(300);

fn runner() -> Runner {
    Runner::new(Path::new(env!("CARGO_BIN_EXE_moorline-sim")), PATIENCE).unwrap()
}

#[test]
fn a_few_seeds_hold() {
    let runner = runner();
    let cases: Vec<Case> = (0..6).map(|seed| Case::of(seed, None)).collect();
    let holds = |case: &Case, verdict: &moorline_sim::runner::Verdict| {
        assert!(
            verdict.broken.is_empty(),
            "seed {}: {:#?}; cargo xtask sim --seed {} says more",
            case.seed,
            verdict.broken,
            case.seed
        );
        true
    };
    runner.run_many(&cases, 2, holds).unwrap();
}

#[test]
fn a_seed_replays_exactly() {
    let runner = runner();
    let case = Case::of(1, None);
    let first = runner.run(&case).unwrap();
    assert!(first.lines > 100, "hardly anything happened: {first:?}");
    assert_eq!(first, runner.run(&case).unwrap());
    assert_ne!(first.hash, runner.run(&Case::of(2, None)).unwrap().hash);
}
