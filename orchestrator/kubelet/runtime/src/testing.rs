//! What tests of this crate share.

/// Says on standard error that a test could not run here, and why.
pub(crate) fn skipped(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
}
