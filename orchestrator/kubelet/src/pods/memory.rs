//! What the kubelet remembers of a pod between looks. Losing it in a restart costs a back-off, never correctness.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use moorline_container_runtime::ContainerId;

use super::backoff::{Limits, RestartBackoff};

/// An image problem is shown as such this long, then as a back-off.
const SHOWN_AS_ERROR: SignedDuration = SignedDuration::from_secs(2);

/// Why a container can't be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    Image,
    ImageNeverPull,
    ImageName,
    Config,
    Create,
    Run,
}

/// A failed start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub kind: ProblemKind,
    pub message: String,
    pub image: String,
    pub since: Timestamp,
    pub delay: Duration,
}

impl Problem {
    /// When the start is tried again.
    pub(crate) fn until(&self) -> Timestamp {
        let delay = SignedDuration::try_from(self.delay).unwrap_or(SignedDuration::MAX);
        self.since.saturating_add(delay).unwrap_or(Timestamp::MAX)
    }

    /// The problem after one more failure.
    pub(crate) fn next(held: Option<&Self>, failed: Self, limits: Limits) -> Self {
        let delay = match held {
            Some(held) if held.kind == failed.kind => (held.delay * 2).min(limits.max),
            Some(_) | None => failed.delay.min(limits.max),
        };
        Self { delay, ..failed }
    }

    /// When its reason changes without a new try.
    pub(crate) fn turns_at(&self) -> Option<Timestamp> {
        matches!(self.kind, ProblemKind::Image).then(|| {
            self.since
                .saturating_add(SHOWN_AS_ERROR)
                .unwrap_or(Timestamp::MAX)
        })
    }

    /// Reason and message as users know them.
    pub(crate) fn shown(&self, now: Timestamp) -> (&'static str, String) {
        match self.kind {
            ProblemKind::Image if self.turns_at().is_some_and(|at| now >= at) => (
                "ImagePullBackOff",
                format!(
                    "Back-off pulling image {:?}: ErrImagePull: {}",
                    self.image, self.message
                ),
            ),
            ProblemKind::Image => ("ErrImagePull", self.message.clone()),
            ProblemKind::ImageNeverPull => ("ErrImageNeverPull", self.message.clone()),
            ProblemKind::ImageName => ("InvalidImageName", self.message.clone()),
            ProblemKind::Config => ("CreateContainerConfigError", self.message.clone()),
            ProblemKind::Create => ("CreateContainerError", self.message.clone()),
            ProblemKind::Run => ("RunContainerError", self.message.clone()),
        }
    }
}

/// What probes found out about one container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProbeResults {
    pub is_ready: Option<bool>,
    pub is_started: Option<bool>,
    /// Liveness or startup failed often enough.
    pub has_failed: bool,
}

/// All that is remembered of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// By container name.
    pub backoff: BTreeMap<String, RestartBackoff>,
    /// By container name.
    pub problems: BTreeMap<String, Problem>,
    pub probes: BTreeMap<ContainerId, ProbeResults>,
    /// Containers being stopped, with the time at which they will be killed.
    pub stopping: BTreeMap<ContainerId, Timestamp>,
    pub sandbox_problem: Option<Problem>,
    /// Volumes are waited for since then; said to the user after a while.
    pub told_about_volumes_at: Option<Timestamp>,
    /// End of a container about whose back-off the user was told, by container name.
    pub told_about_backoff: BTreeMap<String, Timestamp>,
    /// What was last said about volumes that don't go.
    pub told_about_unmount: Option<String>,
}
