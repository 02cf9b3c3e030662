//! Owners after a write that brings a whole new state.

use std::collections::BTreeMap;

use serde_json::Value;

use super::stored::with_new_time;
use super::{Entry, Live, Managed, Operation, UNTRACKED, Versions, Writer};
use crate::fields_v1::Set;
use crate::structured_merge::{Comparison, compare, reconcile};

/// Entries of updates beyond this number are merged, the oldest first.
const UPDATERS_MAX: usize = 10;
/// The manager of what was merged.
const MERGED_MANAGER: &str = "ancient-changes";

/// Whether a request asks for the owners to be forgotten: an empty list, or a list of one empty entry.
#[must_use]
pub fn is_reset(given: &Value) -> bool {
    match given.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    }
}

/// The owners after a create (`live` is absent), an update or a patch, as the text of the new `managedFields`; nothing if
/// nobody owns anything. `given` are the entries that the request states itself: they count, unless they are empty or
/// can't be read, or a subresource is written. Entries of versions that are not known any more are dropped.
///
/// An object without owners stays so until somebody applies.
#[must_use]
pub fn update<'s, V: Versions<'s>>(
    versions: &V,
    writer: &Writer<'_>,
    live: Option<Live<'_>>,
    new: &Value,
    given: Option<&Value>,
) -> Option<String> {
    let given = given.filter(|_| writer.subresource.is_empty());
    if given.is_some_and(is_reset) && live.is_some() {
        return None;
    }
    let before = live.and_then(|live| live.managed);
    let stated = given.and_then(|given| stated_anew(given, before));
    if live.is_some() && before.is_none() && stated.is_none() {
        return None;
    }
    let schema = versions.schema(writer.api_version)?;
    let empty = Value::Object(serde_json::Map::new());
    let live_object = live.map_or(&empty, |live| live.object);
    let changes = compare(schema, Some(live_object), Some(new))
        .without(writer.ignored)
        .tracked();
    let managed = match (stated, before) {
        (Some(managed), _) => managed,
        (None, Some(before)) => {
            if let Some(after) = with_new_time(writer, before, &changes) {
                return Some(after);
            }
            Managed::parse(before).unwrap_or_default()
        }
        (None, None) => Managed::default(),
    };
    if managed.entries.is_empty() && live.is_some() {
        return None;
    }
    follow(versions, writer, managed, (live_object, new), changes).to_text()
}

/// The entries that a request states, if it doesn't just send back those it read.
fn stated_anew(given: &Value, before: Option<&str>) -> Option<Managed> {
    let before = before.and_then(|before| serde_json::from_str(before).ok());
    if before.as_ref() == Some(given) {
        return None;
    }
    Managed::decode(given)
        .ok()
        .filter(|managed| !managed.entries.is_empty())
}

impl Comparison {
    /// Without what nobody owns.
    fn tracked(self) -> Comparison {
        if self.is_same() {
            return self;
        }
        Comparison {
            added: self.added.difference(&UNTRACKED),
            modified: self.modified.difference(&UNTRACKED),
            removed: self.removed.difference(&UNTRACKED),
        }
    }
}

/// Gives the changed fields to the writer and takes them from everybody else.
pub(super) fn follow<'s, V: Versions<'s>>(
    versions: &V,
    writer: &Writer<'_>,
    managed: Managed,
    (live, new): (&Value, &Value),
    changes: Comparison,
) -> Managed {
    let changed = changes.changed();
    let mut managed = reconciled(versions, managed);
    let mut compared = BTreeMap::from([(writer.api_version.to_owned(), changes)]);
    take(
        versions,
        writer.ignored,
        &mut managed,
        (live, new),
        &mut compared,
        None,
    );
    if !changed.is_empty() {
        let mut entry = writer.entry(Operation::Update, changed);
        if let Some(before) = managed.take(&entry) {
            entry.fields = entry.fields.union(&before.fields);
        }
        managed.put(entry);
    }
    cap(&mut managed);
    managed
}

/// The owners under the schemas of today; those of versions that are not known any more are dropped.
pub(super) fn reconciled<'s, V: Versions<'s>>(versions: &V, managed: Managed) -> Managed {
    let entries = managed.entries.into_iter().filter_map(|mut entry| {
        entry.fields = reconcile(versions.schema(&entry.api_version)?, &entry.fields);
        Some(entry)
    });
    Managed {
        entries: entries.collect(),
    }
}

/// Takes from all owners but one what a change gave other values or removed. `compared` has the change as it looks in
/// the versions it was compared in so far.
pub(super) fn take<'s, V: Versions<'s>>(
    versions: &V,
    ignored: &Set,
    managed: &mut Managed,
    (live, new): (&Value, &Value),
    compared: &mut BTreeMap<String, Comparison>,
    but: Option<&Entry>,
) {
    for entry in &mut managed.entries {
        if but.is_some_and(|but| but.is_same_owner(entry)) {
            continue;
        }
        let changes = compared_in(versions, ignored, &entry.api_version, (live, new), compared);
        if changes.is_same() {
            continue;
        }
        let kept = entry.fields.difference(&changes.modified);
        entry.fields = kept.difference(&changes.added).difference(&changes.removed);
    }
    managed.drop_empty();
}

/// The change as it looks in one version.
pub(super) fn compared_in<'c, 's, V: Versions<'s>>(
    versions: &V,
    ignored: &Set,
    api_version: &str,
    (live, new): (&Value, &Value),
    compared: &'c mut BTreeMap<String, Comparison>,
) -> &'c Comparison {
    if !compared.contains_key(api_version) {
        let as_version = |object: &Value| versions.convert(object, api_version);
        let changes = match (versions.schema(api_version), as_version(live), as_version(new)) {
            (Some(schema), Some(live), Some(new)) => compare(schema, Some(&live), Some(&new))
                .without(ignored)
                .tracked(),
            // Entries of such versions were dropped before.
            _ => Comparison::default(),
        };
        compared.insert(api_version.to_owned(), changes);
    }
    &compared[api_version]
}

/// Merges the oldest updates of each version until there are few enough.
fn cap(managed: &mut Managed) {
    let is_update = |entry: &Entry| entry.operation == Operation::Update;
    let (mut updates, rest): (Vec<Entry>, Vec<Entry>) = managed.entries.drain(..).partition(is_update);
    managed.entries = rest;
    if updates.len() > UPDATERS_MAX {
        updates.sort_by_cached_key(|entry| (entry.seconds(), entry.identifier()));
        let mut length = updates.len();
        let mut merged: Vec<Entry> = Vec::new();
        for entry in updates {
            let first = merged
                .iter_mut()
                .find(|other| other.api_version == entry.api_version && length > UPDATERS_MAX);
            match first {
                Some(first) => {
                    first.manager = MERGED_MANAGER.to_owned();
                    first.subresource.clear();
                    first.fields = first.fields.union(&entry.fields);
                    first.time = entry.time;
                    length -= 1;
                }
                None => merged.push(entry),
            }
        }
        updates = merged;
    }
    for entry in updates {
        managed.put(entry);
    }
}
