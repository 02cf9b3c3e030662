//! Events, of the core group and of `events.k8s.io`.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, NAME, age, name};
use crate::object::{at, text};

pub(super) const COLUMNS: &[Column] = &[
    Column::text("Last Seen", "When it happened last."),
    Column::text("Type", "Normal or Warning."),
    Column::text("Reason", "What happened, in one word."),
    Column::text("Object", "What it happened to."),
    Column::text("Subobject", "Which part of that.").wide(),
    Column::text("Source", "Who tells it.").wide(),
    Column::text("Message", "What happened, in a sentence."),
    Column::text("First Seen", "When it happened first.").wide(),
    Column::text("Count", "How often it happened.").wide(),
    NAME.wide(),
];

/// The fields whose names differ between the two groups.
struct Names {
    object: &'static str,
    message: &'static str,
    first: &'static str,
    last: &'static str,
    count: &'static str,
    source: &'static str,
    controller: &'static str,
}

pub(super) fn core_row(event: &Value, now: Timestamp) -> Vec<Value> {
    let names = Names {
        object: "involvedObject",
        message: "message",
        first: "firstTimestamp",
        last: "lastTimestamp",
        count: "count",
        source: "source",
        controller: "reportingComponent",
    };
    cells(event, &names, now)
}

pub(super) fn row(event: &Value, now: Timestamp) -> Vec<Value> {
    let names = Names {
        object: "regarding",
        message: "note",
        first: "deprecatedFirstTimestamp",
        last: "deprecatedLastTimestamp",
        count: "deprecatedCount",
        source: "deprecatedSource",
        controller: "reportingController",
    };
    cells(event, &names, now)
}

/// The text at the first of two paths that has one.
fn first_of<'a>(event: &'a Value, one: &[&str], other: &[&str]) -> &'a str {
    match text(event, one) {
        "" => text(event, other),
        found => found,
    }
}

fn cells(event: &Value, names: &Names, now: Timestamp) -> Vec<Value> {
    let first = first_of(event, &[names.first], &["eventTime"]);
    let (last, count) = match at(event, &["series"]) {
        Some(series) => (text(series, &["lastObservedTime"]), series.get("count")),
        None => (
            first_of(event, &[names.last], &[names.first]),
            event.get(names.count),
        ),
    };
    let has_series = at(event, &["series"]).is_some();
    let last = if last.is_empty() && !has_series {
        first
    } else {
        last
    };
    let count = count.and_then(Value::as_i64).unwrap_or(0);
    let count = if count == 0 && !has_series { 1 } else { count };
    let kind = text(event, &[names.object, "kind"]).to_lowercase();
    let object = match text(event, &[names.object, "name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = first_of(event, &[names.source, "component"], &[names.controller]);
    let source = match first_of(event, &[names.source, "host"], &["reportingInstance"]) {
        "" => component.to_owned(),
        instance => format!("{component}, {instance}"),
    };
    vec![
        age::since(last, now).into(),
        text(event, &["type"]).into(),
        text(event, &["reason"]).into(),
        object.into(),
        text(event, &[names.object, "fieldPath"]).into(),
        source.into(),
        text(event, &[names.message]).trim().into(),
        age::since(first, now).into(),
        count.into(),
        name(event),
    ]
}
