//! Server-side apply: a configuration is merged into an object, and its fields get an owner.

use std::collections::BTreeMap;

use serde_json::Value;

use super::update::{compared_in, follow, reconciled, take};
use super::{Conflicts, Entry, Managed, Operation, UNTRACKED, Versions, Writer, last_applied, stated};
use crate::fields_v1::Set;
use crate::structured_merge::{Comparison, Faults, check, compare, field_set, is_same, merge, remove};

/// The manager of what was there before anybody applied.
const BEFORE: &str = "before-first-apply";

/// What an apply leads to.
#[derive(Clone, PartialEq, Debug)]
pub struct Applied {
    /// The merged object without its owners; the object as it was if nothing in it changed.
    pub object: Value,
    /// Its owners, as the new `managedFields`.
    pub managed: Option<Value>,
}

/// Why a configuration is not applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ApplyError {
    /// It is of another type than the request.
    #[error("invalid object type: {0}")]
    OtherType(String),
    /// It states owners.
    #[error("metadata.managedFields must be nil")]
    StatesOwners,
    /// It is not as its schema says.
    #[error("failed to create typed patch object ({about}): {faults}")]
    Malformed {
        /// The object.
        about: String,
        /// All faults.
        faults: Faults,
    },
    /// The merge failed; says why.
    #[error("failed to merge config: {0}")]
    Merge(Faults),
    /// The stored owners can't be read.
    #[error("failed to decode managed fields: {0}")]
    Owners(String),
    /// The version is not known.
    #[error("no schema is known for {0}")]
    Version(String),
    /// Others own fields that would change.
    #[error("{0}")]
    Conflict(Conflicts),
}

/// Applies a configuration to an object (`live`; absent: it is made). The caller has checked that it is of the
/// request's type and names the right object; what results is to be decoded, defaulted and validated.
///
/// # Errors
/// [`ApplyError`].
pub fn apply<'s, V: Versions<'s>>(
    versions: &V,
    writer: &Writer<'_>,
    live: Option<&Value>,
    config: &Value,
    force: bool,
) -> Result<Applied, ApplyError> {
    if stated(config).is_some_and(|owners| !owners.is_null()) {
        return Err(ApplyError::StatesOwners);
    }
    let schema = versions
        .schema(writer.api_version)
        .ok_or_else(|| ApplyError::Version(writer.api_version.to_owned()))?;
    check(schema, config).map_err(|faults| ApplyError::Malformed {
        about: about(config),
        faults,
    })?;
    let is_new = live.is_none();
    let live = bare(live, config);
    let managed = owners(versions, writer, &live, is_new)?;
    let live = without_owners(live);
    let mut apply = Apply {
        versions,
        writer,
        live: &live,
        config,
    };
    let outcome = apply.run(schema, managed.clone(), force);
    let mut applied = match outcome {
        Err(ApplyError::Conflict(conflicts)) if last_applied::is_kubectl(writer) => {
            // What kubectl applied from the client's side is its own, whoever it was called then.
            let own = last_applied::fields(versions, writer, &live);
            match own {
                Some(own) if conflicts.to_set().difference(&own).is_empty() => {
                    apply.run(schema, managed, true)?
                }
                Some(own) => return Err(ApplyError::Conflict(conflicts.without(&own))),
                None => return Err(ApplyError::Conflict(conflicts)),
            }
        }
        outcome => outcome?,
    };
    if last_applied::is_kubectl(writer) {
        last_applied::keep_up(&mut applied.object, config);
    }
    Ok(applied)
}

/// `namespace/name; group/version, Kind=kind`, as messages name an object.
fn about(object: &Value) -> String {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let version = text("/apiVersion");
    let slash = if version.contains('/') { "" } else { "/" };
    format!(
        "{}/{}; {slash}{version}, Kind={}",
        text("/metadata/namespace"),
        text("/metadata/name"),
        text("/kind")
    )
}

/// The object to merge into; for a new one only its type.
fn bare(live: Option<&Value>, config: &Value) -> Value {
    live.cloned().unwrap_or_else(|| {
        let mut bare = serde_json::Map::new();
        for name in ["apiVersion", "kind"] {
            bare.extend(config.get(name).map(|value| (name.to_owned(), value.clone())));
        }
        bare.insert("metadata".to_owned(), Value::Object(serde_json::Map::new()));
        Value::Object(bare)
    })
}

fn without_owners(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// The owners of an object. One without any gets an entry for all that is there, so that it can't be taken unseen.
fn owners<'s, V: Versions<'s>>(
    versions: &V,
    writer: &Writer<'_>,
    live: &Value,
    is_new: bool,
) -> Result<Managed, ApplyError> {
    let managed = match stated(live) {
        Some(owners) => Managed::decode(owners).map_err(|error| ApplyError::Owners(error.to_string()))?,
        None => Managed::default(),
    };
    if !managed.entries.is_empty() || is_new {
        return Ok(managed);
    }
    let Some(schema) = versions.schema(writer.api_version) else {
        return Ok(managed);
    };
    let before = Writer {
        manager: BEFORE,
        ..*writer
    };
    let empty = Value::Object(serde_json::Map::new());
    let mut changes = compare(schema, Some(&empty), Some(live)).without(writer.ignored);
    changes.added = changes.added.difference(&UNTRACKED);
    changes.modified = changes.modified.difference(&UNTRACKED);
    Ok(follow(versions, &before, managed, (&empty, live), changes))
}

struct Apply<'a, V> {
    versions: &'a V,
    writer: &'a Writer<'a>,
    /// Without owners.
    live: &'a Value,
    config: &'a Value,
}

impl<'s, V: Versions<'s>> Apply<'_, V> {
    fn run(&mut self, schema: V::Schema, managed: Managed, force: bool) -> Result<Applied, ApplyError> {
        let mut managed = reconciled(self.versions, managed);
        let merged = merge(schema, self.live, self.config).map_err(ApplyError::Merge)?;
        let fields = field_set(schema, self.config).difference_below(self.writer.ignored);
        let mut own = self.writer.entry(Operation::Apply, fields);
        let last = managed.take(&own);
        own.time = last.as_ref().and_then(|last| last.time);
        managed.put(own.clone());
        let object = self.prune(merged, &managed, last.as_ref());
        let mut compared = BTreeMap::new();
        if !force {
            let conflicts = self.conflicts(&managed, &object, &own, &mut compared);
            if !conflicts.0.is_empty() {
                return Err(ApplyError::Conflict(conflicts));
            }
        }
        let change = (self.live, &object);
        take(
            self.versions,
            self.writer.ignored,
            &mut managed,
            change,
            &mut compared,
            Some(&own),
        );
        let is_changed = !is_same(schema, self.live, &object);
        if let Some(mut entry) = managed.take(&own) {
            entry.fields = entry.fields.difference(&UNTRACKED);
            if is_changed {
                entry.time = Some(self.writer.now);
            }
            managed.put(entry);
        }
        managed.drop_empty();
        Ok(Applied {
            object: if is_changed { object } else { self.live.clone() },
            managed: managed.encode(),
        })
    }

    /// What would be taken from others.
    fn conflicts(
        &self,
        managed: &Managed,
        object: &Value,
        own: &Entry,
        compared: &mut BTreeMap<String, Comparison>,
    ) -> Conflicts {
        let mut taken = Vec::new();
        for entry in managed.entries.iter().filter(|entry| !entry.is_same_owner(own)) {
            let change = (self.live, object);
            let changes = compared_in(
                self.versions,
                self.writer.ignored,
                &entry.api_version,
                change,
                compared,
            );
            let fields = entry.fields.intersection(&changes.changed());
            if !fields.is_empty() {
                taken.push((entry, fields));
            }
        }
        Conflicts::of(taken)
    }

    /// Takes out what the manager applied last time, but not now, unless somebody else owns it too.
    fn prune(&self, merged: Value, managed: &Managed, last: Option<&Entry>) -> Value {
        let Some(last) = last.filter(|last| !last.fields.is_empty()) else {
            return merged;
        };
        let version = last.api_version.as_str();
        let Some((schema, converted)) = self.as_version(&merged, version) else {
            return merged;
        };
        let last_fields = last.fields.with_declared_fields(Some(schema));
        let pruned = remove(schema, &converted, &last_fields);
        let pruned = self.with_owned(&converted, pruned, version, managed);
        let Some((_, pruned)) = self.as_version(&pruned, version) else {
            return merged;
        };
        // Only what the manager owned goes; what lies below it without an owner, or with one, stays.
        let kept = field_set(schema, &pruned).with_declared_fields(Some(schema));
        let all = field_set(schema, &converted).with_declared_fields(Some(schema));
        let gone = all.difference(&kept).intersection(&last_fields);
        let pruned = remove(schema, &converted, &gone);
        let back = self.versions.convert(&pruned, self.writer.api_version);
        back.unwrap_or(merged)
    }

    fn as_version(&self, object: &Value, api_version: &str) -> Option<(V::Schema, Value)> {
        let schema = self.versions.schema(api_version)?;
        Some((schema, self.versions.convert(object, api_version)?))
    }

    /// Puts back what somebody owns, the manager's new configuration among them. The version it was taken out in comes
    /// first: without that, other versions might not be reached.
    fn with_owned(&self, merged: &Value, pruned: Value, first: &str, managed: &Managed) -> Value {
        let mut owned: BTreeMap<&str, Set> = BTreeMap::new();
        for entry in &managed.entries {
            let fields = owned.entry(&entry.api_version).or_default();
            *fields = fields.union(&entry.fields);
        }
        let mut versions: Vec<(&str, Set)> = owned.into_iter().collect();
        versions.sort_by_key(|(version, _)| *version != first);
        let mut pruned = pruned;
        for (version, owned) in versions {
            let both = (
                self.as_version(merged, version),
                self.as_version(&pruned, version),
            );
            let (Some((schema, merged)), Some((_, less))) = both else {
                continue;
            };
            let declared = |set: &Set| set.with_declared_fields(Some(schema));
            let all = declared(&field_set(schema, &merged));
            let kept = declared(&field_set(schema, &less)).union(&declared(&owned));
            pruned = remove(schema, &merged, &all.difference(&kept));
        }
        pruned
    }
}
