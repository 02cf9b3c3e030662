//! What a run must reach: how many specs pass, and which may be skipped and why. Pure.

use serde::Serialize;

use super::{
    matrix::{Attachment, Cell},
    suite::{Spec, State},
};

/// A kind of specs that may be skipped.
struct Allowed {
    /// What the suite says of them: the capability that it misses.
    said: &'static [&'static str],
    /// In which runs.
    of: fn(Cell) -> bool,
    /// Why that is right.
    reason: &'static str,
}

const ALLOWED: &[Allowed] = &[
    Allowed {
        said: &[
            "ControllerGetVolumeHealth not supported",
            "ControllerListVolumeHealth not supported",
            "NodeGetVolumeHealth not supported",
            "NodeGetStorageHealth not supported",
            "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported",
        ],
        of: |_| true,
        reason: "came with CSI 1.13; this driver speaks CSI 1.12",
    },
    Allowed {
        said: &[
            "ControllerPublishVolume not supported",
            "ControllerUnpublishVolume not supported",
            "Controller Publish, UnpublishVolume not supported",
        ],
        of: |cell| cell.attachment == Attachment::NodeLocal,
        reason: "without --attachable there is nothing to attach",
    },
];

/// How many specs have passed in a run of this kind before. A better result is a line to raise here.
pub fn expected_passes(cell: Cell) -> u64 {
    match cell.attachment {
        Attachment::NodeLocal => 85,
        Attachment::Attachable => 95,
    }
}

/// How many specs ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// As wanted.
    pub passed: u64,
    /// Not as wanted.
    pub failed: u64,
    /// Turned off by the suite's own authors.
    pub pending: u64,
    /// Not run.
    pub skipped: u64,
}

/// A skipped spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skip {
    /// Which.
    pub spec: String,
    /// What the suite says of it.
    pub said: String,
    /// Why that is right; `None` is a fault.
    pub reason: Option<&'static str>,
}

/// A failed spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Which.
    pub spec: String,
    /// What the suite says of it.
    pub said: String,
}

/// The judgement of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// How many specs ended how.
    pub counts: Counts,
    /// How many have to pass.
    pub expected_passes: u64,
    /// Those skipped.
    pub skips: Vec<Skip>,
    /// Those failed.
    pub failures: Vec<Failed>,
    /// What is wrong; empty: nothing.
    pub faults: Vec<String>,
}

/// Judges what the suite reported of a run.
pub fn judge(cell: Cell, specs: &[Spec]) -> Verdict {
    let expected_passes = expected_passes(cell);
    let mut verdict = Verdict {
        expected_passes,
        ..Verdict::default()
    };
    for spec in specs {
        match spec.state {
            State::Passed => verdict.counts.passed += 1,
            State::Pending => verdict.counts.pending += 1,
            State::Failed => {
                verdict.counts.failed += 1;
                verdict.faults.push(format!("failed: {}", spec.name));
                verdict.failures.push(Failed {
                    spec: spec.name.clone(),
                    said: spec.message.clone(),
                });
            }
            State::Skipped => {
                verdict.counts.skipped += 1;
                let reason = reason(cell, &spec.message);
                if reason.is_none() {
                    verdict.faults.push(format!(
                        "skipped without being on the list: {} ({})",
                        spec.name, spec.message
                    ));
                }
                verdict.skips.push(Skip {
                    spec: spec.name.clone(),
                    said: spec.message.clone(),
                    reason,
                });
            }
        }
    }
    let passed = verdict.counts.passed;
    if passed < expected_passes {
        verdict
            .faults
            .push(format!("{passed} specs passed, expected were {expected_passes}"));
    }
    verdict
}

fn reason(cell: Cell, said: &str) -> Option<&'static str> {
    ALLOWED
        .iter()
        .find(|allowed| allowed.said.contains(&said) && (allowed.of)(cell))
        .map(|allowed| allowed.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sanity::matrix;

    fn spec(name: &str, state: State) -> Spec {
        Spec {
            name: name.to_owned(),
            state,
            message: "because".to_owned(),
            seconds: 0.0,
        }
    }

    #[test]
    fn each_way_to_fall_short_is_a_fault() {
        let cell = matrix::all()[0];
        let enough = expected_passes(cell);
        let passed = |count: u64| (0..count).map(|_| spec("a", State::Passed)).collect::<Vec<_>>();
        let with = |mut specs: Vec<Spec>, more: Spec| {
            specs.push(more);
            specs
        };
        let skipped_rightly = Spec {
            message: "NodeGetStorageHealth not supported".to_owned(),
            ..spec("b", State::Skipped)
        };
        let cases = [
            ("enough passed", passed(enough), 0),
            ("one pending", with(passed(enough), spec("b", State::Pending)), 0),
            ("an allowed skip", with(passed(enough), skipped_rightly), 0),
            ("another skip", with(passed(enough), spec("b", State::Skipped)), 1),
            ("a failure", with(passed(enough), spec("b", State::Failed)), 1),
            (
                "one pass too few",
                passed(enough.saturating_sub(1)),
                usize::from(enough > 0),
            ),
        ];
        for (name, specs, faults) in cases {
            let verdict = judge(cell, &specs);
            assert_eq!(verdict.faults.len(), faults, "{name}: {:?}", verdict.faults);
            let counts = verdict.counts;
            let all = counts.passed + counts.failed + counts.pending + counts.skipped;
            assert_eq!(all, specs.len() as u64, "{name}");
        }
    }
}
