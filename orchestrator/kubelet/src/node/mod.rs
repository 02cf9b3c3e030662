//! The Node object and its Lease: what this machine is, that it lives, which volumes it uses.

pub(crate) mod lease;
pub(crate) mod object;
pub(crate) mod status;
