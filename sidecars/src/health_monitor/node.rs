//! Whether a node has failed, and whether that is to be told. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is well, or hasn't said yet how it is.
    Well,
    /// It is well again.
    Recovered,
    /// It isn't ready, which may pass: another look after this time.
    Wait(Duration),
    /// It has failed.
    Failed,
}

/// Decides. `None`: the node is gone.
pub(crate) fn decide(node: Option<&Node>, is_told: bool, patience: Duration, now: Timestamp) -> Next {
    let Some(node) = node else {
        return Next::Failed;
    };
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    let Some(ready) = conditions.find(|condition| condition.type_ == "Ready") else {
        return Next::Well;
    };
    if ready.status == "True" {
        return if is_told { Next::Recovered } else { Next::Well };
    }
    // By the node's own clock of conditions, so that a restart of ours doesn't begin anew.
    let since = ready.last_transition_time.as_ref().map_or(now, |time| time.0);
    let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    match patience.checked_sub(age) {
        Some(left) if !left.is_zero() => Next::Wait(left),
        Some(_) | None => Next::Failed,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{at, object};

    #[test]
    fn nodes_that_are_not_ready_for_long_have_failed() {
        let node = |status: &str, since: &str| -> Node {
            object(json!({"metadata": {"name": "n"}, "status": {"conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": status, "lastTransitionTime": since}]}}))
        };
        let (long_ago, just_now) = ("2027-01-15T07:00:00Z", "2027-01-15T07:59:00Z");
        let silent: Node = object(json!({"metadata": {"name": "n"}}));
        let timeless: Node = object(json!({"metadata": {"name": "n"}, "status": {"conditions": [
            {"type": "Ready", "status": "Unknown"}]}}));
        let wait = |seconds| Next::Wait(Duration::from_secs(seconds));
        let cases = [
            ("ready", Some(node("True", long_ago)), false, Next::Well),
            ("ready again", Some(node("True", just_now)), true, Next::Recovered),
            (
                "not ready for a minute",
                Some(node("False", just_now)),
                false,
                wait(240),
            ),
            (
                "not ready for long",
                Some(node("False", long_ago)),
                false,
                Next::Failed,
            ),
            (
                "unknown for long",
                Some(node("Unknown", long_ago)),
                false,
                Next::Failed,
            ),
            ("since when is unknown", Some(timeless), false, wait(300)),
            ("has said nothing", Some(silent), false, Next::Well),
            ("gone", None, false, Next::Failed),
        ];
        for (name, node, is_told, expected) in cases {
            let next = decide(node.as_ref(), is_told, Duration::from_secs(300), at(0));
            assert_eq!(next, expected, "{name}");
        }
    }
}
