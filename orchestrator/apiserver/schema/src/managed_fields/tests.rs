//! Owners after histories of writes.

use serde_json::Value;

use super::{Live, Versions, Writer, stated};

mod histories;
mod tables;

/// [`super::update`] of an object that has its entries in it; gives them as a tree.
fn update<'s, V: Versions<'s>>(
    versions: &V,
    writer: &Writer<'_>,
    live: Option<&Value>,
    new: &Value,
    given: Option<&Value>,
) -> Option<Value> {
    let before = live.and_then(stated).map(text);
    let live = live.map(|object| Live {
        object,
        managed: before.as_deref(),
    });
    let after = super::update(versions, writer, live, new, given);
    after.map(|after| serde_json::from_str(&after).unwrap())
}

/// Entries as they are stored.
fn text(managed: &Value) -> String {
    let mut out = Vec::new();
    crate::fields_v1::write_ordered(&mut out, managed);
    String::from_utf8(out).unwrap()
}
