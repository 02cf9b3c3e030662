//! What a driver answers when an operation did not succeed, and the one place where that becomes a gRPC status.

use std::{error::Error, fmt, fmt::Write as _};

use tonic::{Code, Status};

/// How long the text of a status may be.
const STATUS_BYTES_MAX: usize = 1024;
const ELLIPSIS: &str = " ...";

/// Why an operation failed, in the specification's terms. The kind decides what the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong or asks for what this driver does not offer. Final; the caller won't retry quickly.
    InvalidArgument,
    /// The volume, snapshot or node is not there. Final.
    NotFound,
    /// Something with this name or at this path is there, but not what was asked for. Final.
    AlreadyExists,
    /// The size can't be had. Final.
    OutOfRange,
    /// No room here. For a create: final and nothing is left behind; the caller may choose another place.
    ResourceExhausted,
    /// The volume is in a state in which this can't be done, for example in use. Final.
    FailedPrecondition,
    /// This driver does not do that at all.
    Unimplemented,
    /// Another operation on the same volume is running, or a page token is no longer valid: ask again.
    Aborted,
    /// The operation may have left something behind, or may still be running: the caller must ask again and not forget.
    Uncertain,
    /// Anything else, over and done with.
    Internal,
}

impl ErrorKind {
    /// The code on the wire. An operation that ended and left nothing behind never gets one of the codes that callers
    /// take for "still in progress" (`UNAVAILABLE`, `ABORTED`, `CANCELLED`, `DEADLINE_EXCEEDED`).
    fn code(self) -> Code {
        match self {
            ErrorKind::InvalidArgument => Code::InvalidArgument,
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::AlreadyExists => Code::AlreadyExists,
            ErrorKind::OutOfRange => Code::OutOfRange,
            ErrorKind::ResourceExhausted => Code::ResourceExhausted,
            ErrorKind::FailedPrecondition => Code::FailedPrecondition,
            ErrorKind::Unimplemented => Code::Unimplemented,
            ErrorKind::Aborted | ErrorKind::Uncertain => Code::Aborted,
            ErrorKind::Internal => Code::Internal,
        }
    }
}

/// A failed operation: kind, words for humans, and the cause if there is one.
#[derive(Debug)]
pub struct DriverError {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl DriverError {
    /// An error without a cause below it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        DriverError {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// The same error with the one that led to it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// [`ErrorKind::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::AlreadyExists`].
    pub fn already_exists(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::AlreadyExists, message)
    }

    /// [`ErrorKind::OutOfRange`].
    pub fn out_of_range(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::OutOfRange, message)
    }

    /// [`ErrorKind::ResourceExhausted`].
    pub fn exhausted(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ResourceExhausted, message)
    }

    /// [`ErrorKind::FailedPrecondition`].
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::FailedPrecondition, message)
    }

    /// [`ErrorKind::Internal`], with its cause.
    pub fn internal(message: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Internal, message).caused_by(source)
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message and those of all causes, joined: what the caller gets to read.
    pub fn full_message(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(text, ": {error}").expect("writing to a string can't fail");
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for DriverError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| {
            let source: &(dyn Error + 'static) = source.as_ref();
            source
        })
    }
}

impl From<DriverError> for Status {
    fn from(error: DriverError) -> Self {
        Status::new(error.kind.code(), shortened(error.full_message()))
    }
}

/// A status travels as a header, percent-encoded, and clients refuse the whole answer when their limit for headers (often
/// 8 KiB) is passed: then the code would be lost as well.
fn shortened(mut text: String) -> String {
    if text.len() > STATUS_BYTES_MAX {
        text.truncate(text.floor_char_boundary(STATUS_BYTES_MAX - ELLIPSIS.len()));
        text.push_str(ELLIPSIS);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_status_carries_the_code_and_the_whole_chain() {
        let inner = DriverError::internal("write the record", io::Error::other("disk on fire"));
        let status = Status::from(DriverError::exhausted("create volume v").caused_by(inner));
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status.message(),
            "create volume v: write the record: disk on fire"
        );
    }

    #[test]
    fn a_long_text_is_cut_so_that_the_code_arrives() {
        let status = Status::from(DriverError::invalid("ß".repeat(3000)));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "ß".repeat(510) + ELLIPSIS);
        let longest = "x".repeat(STATUS_BYTES_MAX);
        assert_eq!(
            Status::from(DriverError::invalid(longest.as_str())).message(),
            longest
        );
    }

    #[test]
    fn only_what_is_not_over_looks_unfinished_to_the_caller() {
        let unfinished = [
            Code::Unavailable,
            Code::Aborted,
            Code::Cancelled,
            Code::DeadlineExceeded,
        ];
        let kinds = [
            (ErrorKind::InvalidArgument, false),
            (ErrorKind::NotFound, false),
            (ErrorKind::AlreadyExists, false),
            (ErrorKind::OutOfRange, false),
            (ErrorKind::ResourceExhausted, false),
            (ErrorKind::FailedPrecondition, false),
            (ErrorKind::Unimplemented, false),
            (ErrorKind::Internal, false),
            (ErrorKind::Aborted, true),
            (ErrorKind::Uncertain, true),
        ];
        for (kind, expected) in kinds {
            assert_eq!(unfinished.contains(&kind.code()), expected, "{kind:?}");
        }
    }
}
