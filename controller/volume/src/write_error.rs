//! What a failed write means for the one who tried it.

use kube::core::Status;
use thiserror::Error;

/// The class of a failed write.
#[derive(Debug, Error)]
pub(crate) enum WriteError {
    /// The object has changed since it was read, or already is what was to be made: look again.
    #[error("the object has changed meanwhile")]
    Conflict,
    /// The object is gone.
    #[error("the object is gone")]
    Gone,
    /// Anything else; the write may or may not have happened.
    #[error(transparent)]
    Other(kube::Error),
}

impl From<kube::Error> for WriteError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if is_conflict(status) => WriteError::Conflict,
            kube::Error::Api(status) if status.code == 404 => WriteError::Gone,
            _ => WriteError::Other(error),
        }
    }
}

/// A guarded JSON patch whose `test` fails is answered with 422 and no causes; a refused value has causes.
fn is_conflict(status: &Status) -> bool {
    let has_no_cause = status
        .details
        .as_ref()
        .is_none_or(|details| details.causes.is_empty());
    status.code == 409 || (status.code == 422 && has_no_cause)
}
