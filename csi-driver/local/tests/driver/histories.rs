//! Random histories of calls by several clients at once, some of them doubled, some given up before their answer came, with
//! the driver restarted and killed in between; against a model. At the end all volumes and snapshots hold what the model
//! says.
//!
//! More histories: `PROPTEST_CASES=200`. A history that fails is shrunk, printed and kept in `proptest-regressions`, from
//! where it is tried first from then on. Threads are not replayed: a history that fails by chance may need several tries.

mod model;
mod play;

use proptest::{
    prelude::*,
    test_runner::{Config as TestConfig, FileFailurePersistence, TestRunner},
};

use self::{
    model::{Call, From, Name},
    play::{Batch, Fate, Planned, Upset, play},
};
use crate::support::{DIR, EXT4, SUBVOLUME, Use, cannot_run};

/// Without `PROPTEST_CASES`: a few seconds each.
const CASES_DEFAULT: u32 = 3;
const NAMES: Name = 3;
const UNITS_MAX: u8 = 3;
/// Calls at once. All their orders are tried.
const CALLS_MAX: usize = 4;
const BATCHES_MAX: usize = 14;
/// A failing history takes seconds to try.
const SHRINK_TRIES_MAX: u32 = 40;

fn name() -> impl Strategy<Value = Name> {
    0..NAMES
}

fn source() -> impl Strategy<Value = From> {
    prop_oneof![
        3 => Just(From::Nothing),
        1 => name().prop_map(From::Volume),
        2 => name().prop_map(From::Snapshot),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        4 => (name(), 1..=UNITS_MAX, source()).prop_map(|(volume, units, from)| Call::Create { volume, units, from }),
        2 => name().prop_map(|volume| Call::Delete { volume }),
        1 => (name(), 1..=UNITS_MAX).prop_map(|(volume, units)| Call::Expand { volume, units }),
        3 => (name(), name()).prop_map(|(snapshot, volume)| Call::Snapshot { snapshot, volume }),
        1 => name().prop_map(|snapshot| Call::DeleteSnapshot { snapshot }),
        3 => name().prop_map(|volume| Call::Stage { volume }),
        3 => name().prop_map(|volume| Call::Publish { volume }),
        1 => name().prop_map(|volume| Call::Unpublish { volume }),
        1 => name().prop_map(|volume| Call::Unstage { volume }),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        5 => Just(Fate::Answered),
        1 => Just(Fate::Doubled),
        2 => (0..20_u64).prop_map(|milliseconds| Fate::GivenUp { milliseconds }),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    let planned = (call(), fate()).prop_map(|(call, fate)| Planned { call, fate });
    let upset = prop_oneof![
        8 => Just(Upset::None),
        1 => Just(Upset::Restart),
        1 => (0..10_u64).prop_map(|milliseconds| Upset::Kill { milliseconds }),
    ];
    (proptest::collection::vec(planned, 1..=CALLS_MAX), upset)
        .prop_map(|(calls, upset)| Batch { calls, upset })
}

fn histories(test: &'static str, usage: Use) {
    if cannot_run(test, usage.tools()) {
        return;
    }
    let cases = std::env::var("PROPTEST_CASES").ok();
    let cases = cases.map_or(CASES_DEFAULT, |cases| {
        cases.parse().expect("PROPTEST_CASES is a number")
    });
    let kept = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/driver/proptest-regressions/histories.txt"
    );
    let mut runner = TestRunner::new(TestConfig {
        cases,
        max_shrink_iters: SHRINK_TRIES_MAX,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))),
        test_name: Some(test),
        source_file: Some(file!()),
        ..TestConfig::default()
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let history = proptest::collection::vec(batch(), 1..=BATCHES_MAX);
    let run = runner.run(&history, |history| {
        runtime
            .block_on(play(usage, &history))
            .map_err(TestCaseError::fail)
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn directories_behave_as_the_model() {
    histories("directories_behave_as_the_model", DIR);
}

#[test]
fn filesystems_behave_as_the_model() {
    histories("filesystems_behave_as_the_model", EXT4);
}

#[test]
fn subvolumes_behave_as_the_model() {
    histories("subvolumes_behave_as_the_model", SUBVOLUME);
}
