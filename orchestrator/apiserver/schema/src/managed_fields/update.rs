//! Owners after a write that brings a whole new state.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::entries::time_text;
use super::{Entry, Managed, Operation, UNTRACKED, Versions, Writer, stated};
use crate::fields_v1::{Branch, Element, Set, element_text};
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

/// The owners after a create (`live` is absent), an update or a patch, as the new `managedFields`; nothing if nobody
/// owns anything. `given` are the entries that the request states itself: they count, unless they are empty or
/// can't be read, or a subresource is written. Entries of versions that are not known any more are dropped.
///
/// An object without owners stays so until somebody applies.
#[must_use]
pub fn update<'s, V: Versions<'s>>(
    versions: &V,
    writer: &Writer<'_>,
    live: Option<&Value>,
    new: &Value,
    given: Option<&Value>,
) -> Option<Value> {
    let given = given.filter(|_| writer.subresource.is_empty());
    if given.is_some_and(is_reset) && live.is_some() {
        return None;
    }
    let before = live.and_then(stated);
    let given = given.filter(|given| Some(*given) != before);
    let stated = given.and_then(|given| Managed::decode(given).ok());
    let stated = stated.filter(|managed| !managed.entries.is_empty());
    if live.is_some() && before.is_none() && stated.is_none() {
        return None;
    }
    let schema = versions.schema(writer.api_version)?;
    let empty = Value::Object(serde_json::Map::new());
    let changes = compare(schema, Some(live.unwrap_or(&empty)), Some(new))
        .without(writer.ignored)
        .tracked();
    let managed = match (stated, before) {
        (Some(managed), _) => managed,
        (None, Some(before)) => {
            if let Some(after) = with_new_time(writer, before, &changes) {
                return Some(after);
            }
            Managed::decode(before).unwrap_or_default()
        }
        (None, None) => Managed::default(),
    };
    if managed.entries.is_empty() && live.is_some() {
        return None;
    }
    let live = live.unwrap_or(&empty);
    follow(versions, writer, managed, (live, new), changes).encode()
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

/// The short way of most writes: fields get other values that the writer owned before, and nobody else. Then only its
/// time changes, and no set has to be read. Nothing if it isn't so simple.
fn with_new_time(writer: &Writer<'_>, before: &Value, changes: &Comparison) -> Option<Value> {
    let list = before.as_array()?;
    if changes.is_same() {
        return Some(before.clone());
    }
    if !changes.added.is_empty() || !changes.removed.is_empty() {
        return None;
    }
    let text = |entry: &'_ Value, name: &str| {
        entry
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let own = writer.entry(Operation::Update, Set::default());
    let is_own = |entry: &Value| {
        text(entry, "manager") == own.manager
            && text(entry, "operation") == "Update"
            && text(entry, "subresource") == own.subresource
            && text(entry, "apiVersion") == own.api_version
    };
    let mut place = None;
    for (index, entry) in list.iter().enumerate() {
        let fields = entry.get("fieldsV1")?;
        if text(entry, "apiVersion") != own.api_version {
            return None;
        }
        if is_own(entry) {
            if place.replace(index).is_some() || !has_all(fields, &changes.modified) {
                return None;
            }
        } else if has_any(fields, &changes.modified) {
            return None;
        }
    }
    let mut after = list.clone();
    // The newest update stands last, among those of the same second in the order of their names.
    let mut entry = after.remove(place?);
    let time = time_text(writer.now);
    let is_behind = |other: &Value| {
        text(other, "operation") == "Apply"
            || (
                text(other, "time"),
                text(other, "manager"),
                text(other, "subresource"),
            ) <= (time.clone(), own.manager.clone(), own.subresource.clone())
    };
    let place = after.iter().take_while(|other| is_behind(other)).count();
    entry.as_object_mut()?.insert("time".to_owned(), time.into());
    after.insert(place, entry);
    Some(Value::Array(after))
}

fn inside<'v>(fields: &'v Value, step: &Element) -> Option<&'v Value> {
    fields.get(
        match step {
            Element::Field(name) => Cow::Owned(format!("f:{name}")),
            other => Cow::<str>::Owned(element_text(other)),
        }
        .as_ref(),
    )
}

/// Whether a node says that its path is a member.
fn is_member(node: &Value) -> bool {
    node.as_object()
        .is_some_and(|map| map.is_empty() || map.contains_key("."))
}

fn has_all(fields: &Value, set: &Set) -> bool {
    set.branches().all(
        |(
            step,
            Branch {
                is_member: wanted,
                below,
            },
        )| {
            inside(fields, step).is_some_and(|node| (!wanted || is_member(node)) && has_all(node, below))
        },
    )
}

fn has_any(fields: &Value, set: &Set) -> bool {
    set.branches().any(
        |(
            step,
            Branch {
                is_member: wanted,
                below,
            },
        )| {
            inside(fields, step).is_some_and(|node| (*wanted && is_member(node)) || has_any(node, below))
        },
    )
}
