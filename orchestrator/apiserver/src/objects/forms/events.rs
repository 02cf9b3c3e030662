//! Events have two forms on one storage: core/v1, which is stored, and events.k8s.io/v1.

use serde_json::{Map, Value, json};

/// The fields that have another name; all others are the same.
const RENAMED: [(&str, &str); 6] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
];
const COUNT: (&str, &str) = ("count", "deprecatedCount");

/// From the stored form.
pub(super) fn to_events_group(event: Value) -> Value {
    let mut event = rename(event, |name| {
        RENAMED
            .iter()
            .chain([&COUNT])
            .find(|(core, _)| *core == name)
            .map(|(_, new)| *new)
    });
    event["apiVersion"] = json!("events.k8s.io/v1");
    set_last_observed(&mut event, "lastObservedTime");
    event
}

/// To the stored form.
pub(super) fn to_core(event: Value) -> Value {
    let mut event = rename(event, |name| {
        RENAMED
            .iter()
            .chain([&COUNT])
            .find(|(_, new)| *new == name)
            .map(|(core, _)| *core)
    });
    event["apiVersion"] = json!("v1");
    event
}

fn rename(event: Value, new_name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(map) = event else { return event };
    let renamed: Map<String, Value> = map
        .into_iter()
        .map(|(name, value)| (new_name(&name).map_or(name, str::to_owned), value))
        .collect();
    Value::Object(renamed)
}

/// A series always says when it was last seen; old writers leave that out.
fn set_last_observed(event: &mut Value, field: &str) {
    let time = event.get("eventTime").cloned();
    if let (Some(series), Some(time)) = (event.get_mut("series").and_then(Value::as_object_mut), time)
        && !series.contains_key(field)
    {
        series.insert(field.to_owned(), time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"},
            "message": "m", "reason": "R", "reportingComponent": "c", "source": {"component": "c"}, "count": 3,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:01Z", "type": "Normal",
        });
        let new = to_events_group(core.clone());
        assert_eq!(new["regarding"]["kind"], "Pod");
        assert_eq!(
            (&new["note"], &new["deprecatedCount"], &new["reason"]),
            (&json!("m"), &json!(3), &json!("R"))
        );
        assert!(new.get("message").is_none());
        assert_eq!(to_core(new), core);
    }
}
