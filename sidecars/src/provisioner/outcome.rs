//! What an answer to `CreateVolume`, and to the attempt to save its PV, means. Pure.

use k8s_openapi::api::core::v1::PersistentVolume;
use moorline_model::mutant;
use moorline_model::volume;
use moorline_proto::csi::CreateVolumeResponse;
use tonic::Status;

use super::plan::{AnswerError, Plan};
use crate::discovery::DriverFacts;
use crate::rpc_class::{CreateFailure, create_volume, describe};

/// What to do after `CreateVolume`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AfterCreate {
    Save(Box<PersistentVolume>),
    /// The volume isn't what was asked for: delete it, and ask again.
    Discard {
        volume_id: String,
        why: AnswerError,
    },
    Failed {
        why: String,
        then: Then,
    },
}

/// How to go on after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// A volume may exist: the same request again, until it is known.
    AskAgain,
    /// No volume exists: plan anew after a backoff.
    Retry,
    /// No volume exists, and the request itself is wrong: plan anew after minutes.
    RetrySlowly,
    /// No volume exists, and the node has no room.
    Reschedule,
}

/// Decides.
pub(crate) fn after_create(
    plan: &Plan,
    answer: Result<CreateVolumeResponse, Status>,
    driver: &DriverFacts,
    identity: &str,
) -> AfterCreate {
    let status = match answer {
        Ok(answer) => {
            return match plan.persistent_volume(&answer, identity, driver.has_topology()) {
                Ok(pv) => AfterCreate::Save(Box::new(pv)),
                Err(why @ (AnswerError::NoVolume | AnswerError::NoVolumeId)) => AfterCreate::Failed {
                    why: why.to_string(),
                    then: Then::AskAgain,
                },
                Err(why) => match &why {
                    AnswerError::TooSmall { volume_id, .. } | AnswerError::NoContent { volume_id } => {
                        AfterCreate::Discard {
                            volume_id: volume_id.clone(),
                            why: why.clone(),
                        }
                    }
                    AnswerError::NoVolume | AnswerError::NoVolumeId => AfterCreate::Failed {
                        why: why.to_string(),
                        then: Then::AskAgain,
                    },
                },
            };
        }
        Err(status) => status,
    };
    let can_reschedule = driver.has_topology() && plan.selected_node.is_some();
    let then = match create_volume(&status) {
        CreateFailure::Uncertain if mutant::is_on("forget-lost-answers") => Then::Retry,
        CreateFailure::Uncertain => Then::AskAgain,
        CreateFailure::Exhausted if can_reschedule => Then::Reschedule,
        CreateFailure::Exhausted | CreateFailure::Final => Then::Retry,
        CreateFailure::Infeasible => Then::RetrySlowly,
    };
    AfterCreate::Failed {
        why: describe(&status),
        then,
    }
}

/// What to do when a PV of that name exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It is the one that was to be saved.
    Saved,
    /// It is the one that was to be saved, but on its way out: its volume goes with it, and ours must get a PV of
    /// its own afterwards.
    WaitUntilGone,
    /// It stands for another volume; the one just created has no use.
    Stray,
}

/// Compares the PV that exists with the one to save.
pub(crate) fn compare(existing: &PersistentVolume, wanted: &PersistentVolume) -> Existing {
    let handle = |pv: &PersistentVolume| {
        pv.spec
            .as_ref()
            .and_then(|spec| spec.csi.as_ref())
            .map(|csi| csi.volume_handle.clone())
    };
    let is_same_claim = volume::claim_uid(existing) == volume::claim_uid(wanted);
    let is_going = existing.metadata.deletion_timestamp.is_some()
        || matches!(
            volume::phase(existing),
            volume::PvPhase::Released | volume::PvPhase::Failed
        );
    match (is_same_claim && handle(existing) == handle(wanted), is_going) {
        (true, false) => Existing::Saved,
        (_, true) => Existing::WaitUntilGone,
        (false, false) => Existing::Stray,
    }
}

#[cfg(test)]
mod tests;
