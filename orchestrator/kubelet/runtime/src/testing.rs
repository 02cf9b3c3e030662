//! What tests of this crate share.

/// Says on standard error that a test could not run here, and why.
#[expect(clippy::print_stderr, reason = "the test harness counts these lines")]
pub(crate) fn skipped(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
}
