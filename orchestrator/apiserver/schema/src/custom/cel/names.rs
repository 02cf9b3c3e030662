//! What expressions of webhooks and policies may name.

const ALL: &[&str] = &[
    "object",
    "oldObject",
    "request",
    "authorizer",
    "params",
    "namespaceObject",
    "variables",
];

/// In a condition of a webhook.
pub const OF_WEBHOOK_CONDITION: &[&str] = ALL.split_at(4).0;
/// In a condition of a policy, which knows no variables.
pub const OF_POLICY_CONDITION: &[&str] = ALL.split_at(6).0;
/// In all else of a policy.
pub const OF_POLICY: &[&str] = ALL;
