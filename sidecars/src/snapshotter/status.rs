//! What a content's status says after an answer of the driver. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use moorline_proto::csi::{Snapshot, VolumeGroupSnapshot};
use serde_json::{Value, json};

use super::shell::trouble;

/// A driver's answer that says nothing of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("driver answered without a snapshot")]
    NoSnapshot,
    #[error("driver answered without a snapshot id")]
    NoId,
    #[error("driver answered without a group snapshot")]
    NoGroup,
    #[error("driver answered without a group snapshot id")]
    NoGroupId,
    #[error("driver lists no snapshot {0:?}")]
    NotListed(String),
}

/// The status for what the driver said, as a merge patch.
pub(crate) fn of_snapshot(snapshot: Option<&Snapshot>, now: Timestamp) -> Result<Value, AnswerError> {
    let snapshot = snapshot.ok_or(AnswerError::NoSnapshot)?;
    if snapshot.snapshot_id.is_empty() {
        return Err(AnswerError::NoId);
    }
    let mut status = facts(snapshot, now);
    status["error"] = Value::Null;
    if !snapshot.group_snapshot_id.is_empty() {
        status["volumeGroupSnapshotHandle"] = json!(snapshot.group_snapshot_id);
    }
    Ok(status)
}

/// What statuses say of a snapshot by itself and as a member of a group.
fn facts(snapshot: &Snapshot, now: Timestamp) -> Value {
    let said = snapshot
        .creation_time
        .map(|time| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos));
    // Drivers that don't say when: it was about now, and not in 1970.
    let creation_time = said
        .and_then(|nanos| i64::try_from(nanos).ok())
        .unwrap_or_else(|| in_nanos(now));
    let mut facts = json!({
        "snapshotHandle": snapshot.snapshot_id,
        "creationTime": creation_time,
        "readyToUse": snapshot.ready_to_use,
    });
    if snapshot.size_bytes > 0 {
        facts["restoreSize"] = json!(snapshot.size_bytes);
    }
    facts
}

/// The status for what the driver said of a group that was cut of these volumes; none for one that existed before its
/// objects.
pub(crate) fn of_group(
    group: Option<&VolumeGroupSnapshot>,
    volume_handles: &[String],
    now: Timestamp,
) -> Result<Value, AnswerError> {
    let group = group.ok_or(AnswerError::NoGroup)?;
    if group.group_snapshot_id.is_empty() {
        return Err(AnswerError::NoGroupId);
    }
    let said = group
        .creation_time
        .and_then(|time| Timestamp::from_second(time.seconds).ok());
    let creation_time = said.unwrap_or(now).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut status = json!({
        "volumeGroupSnapshotHandle": group.group_snapshot_id,
        "creationTime": creation_time,
        "readyToUse": group.ready_to_use,
        "error": null,
    });
    if volume_handles.is_empty() {
        return Ok(status);
    }
    let members = group.snapshots.iter().map(|snapshot| {
        let mut member = facts(snapshot, now);
        member["volumeHandle"] = json!(snapshot.source_volume_id);
        member
    });
    status["volumeSnapshotInfoList"] = members.collect();
    let usable = group
        .snapshots
        .iter()
        .filter(|snapshot| !snapshot.snapshot_id.is_empty());
    let cut: BTreeSet<_> = usable.map(|snapshot| &snapshot.source_volume_id).collect();
    let left_out: Vec<_> = volume_handles
        .iter()
        .filter(|handle| !cut.contains(handle))
        .map(String::as_str)
        .collect();
    if !left_out.is_empty() {
        // It exists, and has to be known to be deleted; but nobody shall take it for whole.
        let message = format!(
            "driver's group snapshot leaves volumes out: {}",
            left_out.join(", ")
        );
        status["readyToUse"] = json!(false);
        status["error"] = trouble(&message, now);
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
    fn groups_are_told_with_their_members() {
        let now = at(0);
        let member = |number: u8, is_ready| Snapshot {
            snapshot_id: format!("s{number}"),
            source_volume_id: format!("v{number}"),
            group_snapshot_id: "g1".into(),
            size_bytes: i64::from(number),
            ready_to_use: is_ready,
            creation_time: Some(prost_types::Timestamp { seconds: 2, nanos: 5 }),
        };
        let group = VolumeGroupSnapshot {
            group_snapshot_id: "g1".into(),
            snapshots: vec![member(1, true), member(2, false)],
            creation_time: Some(prost_types::Timestamp { seconds: 2, nanos: 5 }),
            ready_to_use: true,
        };
        let info = |number: u8, is_ready| {
            json!({"volumeHandle": format!("v{number}"), "snapshotHandle": format!("s{number}"),
            "creationTime": 2_000_000_005_i64, "restoreSize": number, "readyToUse": is_ready})
        };
        let whole = json!({"volumeGroupSnapshotHandle": "g1", "creationTime": "1970-01-01T00:00:02Z",
            "readyToUse": true, "error": null});
        let mut with_members = whole.clone();
        with_members["volumeSnapshotInfoList"] = json!([info(1, true), info(2, false)]);
        let volumes = |names: &[&str]| names.iter().map(|name| (*name).to_string()).collect::<Vec<_>>();
        let nameless = VolumeGroupSnapshot::default();
        let cases = [
            (
                "dynamic",
                Some(&group),
                volumes(&["v1", "v2"]),
                Ok(with_members.clone()),
            ),
            ("static", Some(&group), Vec::new(), Ok(whole)),
            ("no id", Some(&nameless), Vec::new(), Err(AnswerError::NoGroupId)),
            ("nothing", None, Vec::new(), Err(AnswerError::NoGroup)),
        ];
        for (name, group, volumes, expected) in cases {
            assert_eq!(of_group(group, &volumes, now), expected, "{name}");
        }
        let partial = of_group(Some(&group), &volumes(&["v1", "v2", "v3"]), now).unwrap();
        assert_eq!(partial["readyToUse"], false, "not whole");
        assert_eq!(
            partial["volumeSnapshotInfoList"], with_members["volumeSnapshotInfoList"],
            "known, so that it can be deleted"
        );
        let message = partial["error"]["message"].as_str().unwrap();
        assert!(message.ends_with(": v3"), "{message}");
        let timeless = VolumeGroupSnapshot {
            creation_time: None,
            ..group
        };
        let status = of_group(Some(&timeless), &[], now).unwrap();
        assert_eq!(status["creationTime"], "2027-01-15T08:00:00Z");
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
