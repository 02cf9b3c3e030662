//! What a content's status says after an answer of the driver. Pure.

use jiff::Timestamp;
use moorline_proto::csi::Snapshot;
use serde_json::{Value, json};

/// A driver's answer that says nothing of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("driver answered without a snapshot")]
    NoSnapshot,
    #[error("driver answered without a snapshot id")]
    NoId,
    #[error("driver lists no snapshot {0:?}")]
    NotListed(String),
}

/// The status for what the driver said, as a merge patch.
pub(crate) fn of_snapshot(snapshot: Option<&Snapshot>, now: Timestamp) -> Result<Value, AnswerError> {
    let snapshot = snapshot.ok_or(AnswerError::NoSnapshot)?;
    if snapshot.snapshot_id.is_empty() {
        return Err(AnswerError::NoId);
    }
    let said = snapshot
        .creation_time
        .map(|time| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos));
    // Drivers that don't say when: it was about now, and not in 1970.
    let creation_time = said
        .and_then(|nanos| i64::try_from(nanos).ok())
        .unwrap_or_else(|| in_nanos(now));
    let mut status = json!({
        "snapshotHandle": snapshot.snapshot_id,
        "creationTime": creation_time,
        "readyToUse": snapshot.ready_to_use,
        "error": null,
    });
    if snapshot.size_bytes > 0 {
        status["restoreSize"] = json!(snapshot.size_bytes);
    }
    if !snapshot.group_snapshot_id.is_empty() {
        status["volumeGroupSnapshotHandle"] = json!(snapshot.group_snapshot_id);
    }
    Ok(status)
}

/// The status of a snapshot that nothing can be learnt of.
pub(crate) fn assumed(handle: &str, now: Timestamp) -> Value {
    json!({"snapshotHandle": handle, "creationTime": in_nanos(now), "readyToUse": true, "error": null})
}

fn in_nanos(now: Timestamp) -> i64 {
    i64::try_from(now.as_nanosecond()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn groups_and_assumptions() {
        let member = Snapshot {
            snapshot_id: "s1".into(),
            group_snapshot_id: "g1".into(),
            ..Default::default()
        };
        let status = of_snapshot(Some(&member), at(0)).unwrap();
        assert_eq!(status["volumeGroupSnapshotHandle"], "g1");
        assert_eq!(
            assumed("s1", at(0)),
            json!({"snapshotHandle": "s1", "creationTime": 1_800_000_000_000_000_000_i64, "readyToUse": true,
                "error": null})
        );
    }

    #[test]
    fn statuses() {
        let now = at(0);
        let made = Snapshot {
            snapshot_id: "s1".into(),
            size_bytes: 7,
            ready_to_use: true,
            creation_time: Some(prost_types::Timestamp { seconds: 2, nanos: 5 }),
            ..Default::default()
        };
        let whole = json!({"snapshotHandle": "s1", "creationTime": 2_000_000_005_i64, "readyToUse": true,
            "error": null, "restoreSize": 7});
        let vague = Snapshot {
            size_bytes: 0,
            creation_time: None,
            ready_to_use: false,
            ..made.clone()
        };
        let guessed = json!({"snapshotHandle": "s1", "creationTime": 1_800_000_000_000_000_000_i64,
            "readyToUse": false, "error": null});
        let nameless = Snapshot {
            snapshot_id: String::new(),
            ..made.clone()
        };
        let cases = [
            ("all said", Some(&made), Ok(whole)),
            ("neither time nor size", Some(&vague), Ok(guessed)),
            ("no id", Some(&nameless), Err(AnswerError::NoId)),
            ("nothing", None, Err(AnswerError::NoSnapshot)),
        ];
        for (name, snapshot, expected) in cases {
            assert_eq!(of_snapshot(snapshot, now), expected, "{name}");
        }
    }
}
