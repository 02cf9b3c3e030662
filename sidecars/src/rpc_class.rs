//! What a failed call means for the volume: has it ended, may it go on, is it worth trying again soon?
//!
//! The answer differs by call (`design/sidecars.md` 1.11); all translations of a gRPC status are in this file.

use std::error::Error;

use tonic::{Code, Status};

/// What is known after a failed `CreateVolume`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateFailure {
    /// A volume may exist or come into being; only asking again can tell.
    Uncertain,
    /// No volume exists, and there is no room here; another node may have some.
    Exhausted,
    /// No volume exists, and the same request will hardly ever work.
    Infeasible,
    /// No volume exists.
    Final,
}

/// What is known after a failed `ControllerExpandVolume`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpandFailure {
    /// The expansion may be under way.
    Uncertain,
    /// The volume has its old size because it is in use.
    InUse,
    /// The volume has its old size, and the new one will hardly ever work.
    Infeasible,
    /// The volume has its old size.
    Final,
}

/// What is known after a failed `ControllerModifyVolume`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModifyFailure {
    /// The modification may be under way.
    Uncertain,
    /// The volume is as it was, and the same parameters will hardly ever work.
    Infeasible,
    /// The volume is as it was.
    Final,
}

/// What is known after a failed `CreateSnapshot` or `CreateVolumeGroupSnapshot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotFailure {
    /// A snapshot may exist or come into being; only asking again can tell.
    Uncertain,
    /// No snapshot exists.
    Final,
}

/// Whether the call may still be running, or may have been done without us hearing of it.
fn is_uncertain(status: &Status) -> bool {
    // A status with a source was made by the transport, not by the driver: the answer was lost.
    status.source().is_some()
        || matches!(
            status.code(),
            Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::Aborted
        )
}

/// Classifies a failed `CreateVolume`.
pub fn create_volume(status: &Status) -> CreateFailure {
    if is_uncertain(status) {
        return CreateFailure::Uncertain;
    }
    match status.code() {
        Code::ResourceExhausted => CreateFailure::Exhausted,
        Code::InvalidArgument => CreateFailure::Infeasible,
        _ => CreateFailure::Final,
    }
}

/// Classifies a failed `ControllerExpandVolume`.
pub fn expand_volume(status: &Status) -> ExpandFailure {
    if is_uncertain(status) {
        return ExpandFailure::Uncertain;
    }
    match status.code() {
        // May be a quota of calls as well as of bytes: upstream doesn't take it for an end.
        Code::ResourceExhausted => ExpandFailure::Uncertain,
        Code::FailedPrecondition => ExpandFailure::InUse,
        Code::InvalidArgument | Code::OutOfRange | Code::NotFound => ExpandFailure::Infeasible,
        _ => ExpandFailure::Final,
    }
}

/// Classifies a failed `ControllerModifyVolume`.
pub fn modify_volume(status: &Status) -> ModifyFailure {
    // Exhausted may be a quota of calls as well as of operations: upstream doesn't take it for an end.
    if is_uncertain(status) || status.code() == Code::ResourceExhausted {
        return ModifyFailure::Uncertain;
    }
    match status.code() {
        Code::InvalidArgument => ModifyFailure::Infeasible,
        _ => ModifyFailure::Final,
    }
}

/// Classifies a failed `CreateSnapshot` or `CreateVolumeGroupSnapshot`.
pub fn create_snapshot(status: &Status) -> SnapshotFailure {
    // Exhausted may be a quota of calls as well as of bytes: upstream doesn't take it for an end.
    if is_uncertain(status) || status.code() == Code::ResourceExhausted {
        SnapshotFailure::Uncertain
    } else {
        SnapshotFailure::Final
    }
}

/// The code's name as users know it from other CSI components.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// A status as text for events and conditions, in the form that users search for.
pub fn describe(status: &Status) -> String {
    let mut text = format!(
        "rpc error: code = {} desc = {}",
        code_name(status.code()),
        status.message()
    );
    let mut source = status.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODES: [Code; 16] = [
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    #[test]
    fn a_description_has_code_message_and_causes() {
        let plain = Status::new(Code::OutOfRange, "too much");
        assert_eq!(describe(&plain), "rpc error: code = OutOfRange desc = too much");
        let lost = Status::from_error(Box::new(std::io::Error::other("connection reset")));
        let text = describe(&lost);
        assert!(
            text.starts_with("rpc error: code = ") && text.contains("connection reset"),
            "{text}"
        );
    }

    #[test]
    fn every_code_of_create_volume_has_its_class() {
        use CreateFailure::{Exhausted as E, Final as F, Infeasible as I, Uncertain as U};
        let classes = CODES.map(|code| create_volume(&Status::new(code, "x")));
        assert_eq!(classes, [U, F, I, U, F, F, F, E, F, U, F, F, F, U, F, F]);
    }

    #[test]
    fn every_code_of_expand_volume_has_its_class() {
        use ExpandFailure::{Final as F, InUse as P, Infeasible as I, Uncertain as U};
        let classes = CODES.map(|code| expand_volume(&Status::new(code, "x")));
        assert_eq!(classes, [U, F, I, U, I, F, F, U, P, U, I, F, F, U, F, F]);
    }

    #[test]
    fn every_code_of_modify_volume_has_its_class() {
        use ModifyFailure::{Final as F, Infeasible as I, Uncertain as U};
        let classes = CODES.map(|code| modify_volume(&Status::new(code, "x")));
        assert_eq!(classes, [U, F, I, U, F, F, F, U, F, U, F, F, F, U, F, F]);
    }

    #[test]
    fn every_code_of_create_snapshot_has_its_class() {
        use SnapshotFailure::{Final as F, Uncertain as U};
        let classes = CODES.map(|code| create_snapshot(&Status::new(code, "x")));
        assert_eq!(classes, [U, F, F, U, F, F, F, U, F, U, F, F, F, U, F, F]);
    }

    #[test]
    fn a_lost_answer_is_uncertain_whatever_its_code() {
        let lost = Status::from_error(Box::new(std::io::Error::other("broken pipe")));
        assert_eq!(create_volume(&lost), CreateFailure::Uncertain, "{lost:?}");
        assert_eq!(expand_volume(&lost), ExpandFailure::Uncertain);
        assert_eq!(modify_volume(&lost), ModifyFailure::Uncertain);
        assert_eq!(create_snapshot(&lost), SnapshotFailure::Uncertain);
    }

    #[test]
    fn text_names_code_and_message() {
        let status = Status::resource_exhausted("pool is full");
        assert_eq!(
            describe(&status),
            "rpc error: code = ResourceExhausted desc = pool is full"
        );
    }
}
