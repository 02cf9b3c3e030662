//! Who owns which fields of the objects a request writes: what `managed_fields` of the schema crate decides, fed with
//! the request's manager, resource and subresource.

use std::borrow::Cow;
use std::sync::LazyLock;

use http::header;
use jiff::Timestamp;
use moorline_schema::fields_v1::{Path, Set};
use moorline_schema::managed_fields::{self, Versions, Writer};
use moorline_schema::merge_schema::Builtin;
use moorline_schema::{Registry, TypeId};
use serde_json::{Map, Value};

use super::{Call, events, tree};
use crate::http::failure::About;
use crate::http::{Cause, Failure};

/// Names of managers may have so many bytes.
const MANAGER_BYTES_MAX: usize = 128;
const FIELD: &str = "managedFields";

/// Where the owners of a new state come from.
#[derive(Debug, Clone)]
pub(crate) enum Owners {
    /// From what the write changes; with the entries that the request states itself.
    Followed(Option<Value>),
    /// They are known already.
    Known(Option<Value>),
    /// They stay as they are.
    Kept,
}

impl Owners {
    /// Of a state that a client sent: takes the entries out of it.
    pub(crate) fn of(object: &mut Value) -> Owners {
        Owners::Followed(take(object))
    }
}

/// Takes the entries out of an object.
pub(crate) fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove(FIELD)
}

/// Puts entries into an object.
pub(crate) fn put(object: &mut Value, managed: Option<Value>) {
    tree::set(tree::map_mut(object, &["metadata"]), FIELD, managed);
}

fn stated(object: &Value) -> Option<&Value> {
    tree::at(object, &["metadata", FIELD])
}

/// The owners after a write to an object (`old` is absent: a create), as the new entries. Both are in the stored form.
pub(crate) fn after(
    call: &Call<'_>,
    owners: Owners,
    old: Option<&Value>,
    new: &Value,
) -> Result<Option<Value>, Failure> {
    let given = match owners {
        Owners::Known(managed) => return Ok(managed),
        Owners::Kept => return Ok(old.and_then(stated).cloned()),
        Owners::Followed(given) => given,
    };
    let manager = manager(call)?;
    let api_version = call.resource.facts.api_version();
    let writer = writer(call, &manager, &api_version);
    let versions = ServedVersions::of(call);
    if call.resource.is_converted() {
        let served = |object: &Value| events::to_events_group(object.clone());
        let (old, new) = (old.map(served), served(new));
        return Ok(managed_fields::update(
            &versions,
            &writer,
            old.as_ref(),
            &new,
            given.as_ref(),
        ));
    }
    Ok(managed_fields::update(
        &versions,
        &writer,
        old,
        new,
        given.as_ref(),
    ))
}

/// Entries that differ from the old ones in their times alone are no change if nothing else is one.
pub(crate) fn without_idle_times(old: &Value, new: &Value, managed: Option<Value>) -> Option<Value> {
    let before = stated(old);
    if before == managed.as_ref() || !is_same_otherwise(old, new) {
        return managed;
    }
    managed_fields::keep_times(before.cloned(), managed)
}

/// Whether two states are the same but for owners and revision.
fn is_same_otherwise(old: &Value, new: &Value) -> bool {
    is_same_but(old, new, &["metadata"])
        && is_same_but(&old["metadata"], &new["metadata"], &[FIELD, "resourceVersion"])
}

fn is_same_but(old: &Value, new: &Value, skipped: &[&str]) -> bool {
    let empty = Map::new();
    let (old, new) = (
        old.as_object().unwrap_or(&empty),
        new.as_object().unwrap_or(&empty),
    );
    let counts =
        |map: &Map<String, Value>| map.len() - skipped.iter().filter(|name| map.contains_key(**name)).count();
    let is_same =
        |(name, value): (&String, &Value)| skipped.contains(&name.as_str()) || new.get(name) == Some(value);
    counts(old) == counts(new) && old.iter().all(is_same)
}

/// The request as a writer.
pub(crate) fn writer<'w>(call: &'w Call<'_>, manager: &'w str, api_version: &'w str) -> Writer<'w> {
    Writer {
        manager,
        subresource: call.subresource.map_or("", |sub| sub.name),
        api_version,
        ignored: ignored(call),
        now: Timestamp::now(),
    }
}

/// The fields that the request's endpoint leaves alone, whatever the request says.
fn ignored(call: &Call<'_>) -> &'static Set {
    static NONE: LazyLock<Set> = LazyLock::new(Set::default);
    static STATUS: LazyLock<Set> = LazyLock::new(|| Set::of([Path::fields(&["status"])]));
    static SPEC: LazyLock<Set> = LazyLock::new(|| Set::of([Path::fields(&["spec"])]));
    static POD: LazyLock<Set> = LazyLock::new(|| {
        let metadata = ["deletionTimestamp", "ownerReferences"].map(|name| Path::fields(&["metadata", name]));
        Set::of(metadata.into_iter().chain([Path::fields(&["spec"])]))
    });
    static SPEC_LABELS: LazyLock<Set> =
        LazyLock::new(|| Set::of([Path::fields(&["spec"]), Path::fields(&["metadata", "labels"])]));
    static ALL_BUT_STATUS: LazyLock<Set> =
        LazyLock::new(|| Set::of([Path::fields(&["spec"]), Path::fields(&["metadata"])]));
    let facts = call.resource.facts;
    match (call.is_status(), facts.group, facts.plural) {
        (true, "", "pods") => &POD,
        (true, "apps", "deployments") => &SPEC_LABELS,
        (true, "storage.k8s.io", "volumeattachments") => &ALL_BUT_STATUS,
        (true, ..) => &SPEC,
        (false, ..) if facts.subresource("status").is_some() => &STATUS,
        (false, ..) => &NONE,
    }
}

/// The manager of a request: the `fieldManager` parameter, or the client's name from `User-Agent`.
pub(crate) fn manager<'c>(call: &'c Call<'_>) -> Result<Cow<'c, str>, Failure> {
    if let Some(stated) = call.query.get("fieldManager") {
        check_manager(call, stated)?;
        return Ok(Cow::Borrowed(stated));
    }
    Ok(Cow::Owned(client_name(
        call.header(header::USER_AGENT).unwrap_or_default(),
    )))
}

/// What stands before the first slash, as far as it can be printed and is not too long.
fn client_name(agent: &str) -> String {
    let mut name = String::new();
    for c in agent.split('/').next().unwrap_or_default().chars() {
        if c.is_control() {
            continue;
        }
        if name.len() + c.len_utf8() > MANAGER_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    name
}

fn check_manager(call: &Call<'_>, manager: &str) -> Result<(), Failure> {
    let mut causes = Vec::new();
    if manager.len() > MANAGER_BYTES_MAX {
        causes.push(Cause {
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {MANAGER_BYTES_MAX} bytes"),
            field: "fieldManager".to_owned(),
        });
    }
    let odd = manager.char_indices().filter(|(_, c)| c.is_control());
    causes.extend(odd.map(|(at, c)| Cause {
        reason: "FieldValueInvalid",
        message: format!(
            "Invalid value: {manager:?}: invalid character U+{:04X} (at position {at})",
            u32::from(c)
        ),
        field: "fieldManager".to_owned(),
    }));
    if causes.is_empty() {
        return Ok(());
    }
    let options = match (call.is_patch(), call.name) {
        (true, _) => "PatchOptions",
        (false, None) => "CreateOptions",
        (false, Some(_)) => "UpdateOptions",
    };
    Err(Failure::invalid(about_options(options), causes))
}

/// For messages about the parameters of a write.
pub(crate) fn about_options(kind: &'static str) -> About<'static> {
    About {
        group: "meta.k8s.io",
        resource: kind,
        name: "",
    }
}

/// The versions of a call's resource. All built-in ones have one, but events, which are two views of one type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServedVersions {
    registry: &'static Registry,
    type_id: TypeId,
    group: &'static str,
    version: &'static str,
    is_event: bool,
    is_custom: bool,
}

impl ServedVersions {
    pub(crate) fn of(call: &Call<'_>) -> Self {
        let facts = call.resource.facts;
        ServedVersions {
            registry: call.api.registry,
            type_id: facts.type_id,
            group: facts.group,
            version: facts.version,
            is_event: facts.kind == "Event" && !facts.custom,
            is_custom: facts.custom,
        }
    }

    fn is_own(&self, api_version: &str) -> bool {
        match api_version.split_once('/') {
            Some(parts) => parts == (self.group, self.version),
            None => self.group.is_empty() && api_version == self.version,
        }
    }

    fn is_known(&self, api_version: &str) -> bool {
        let is_other =
            self.is_custom && api_version.split_once('/').map(|(group, _)| group) == Some(self.group);
        is_other
            || self.is_own(api_version)
            || (self.is_event && matches!(api_version, "v1" | "events.k8s.io/v1"))
    }
}

impl Versions<'static> for ServedVersions {
    type Schema = Builtin<'static>;

    fn schema(&self, api_version: &str) -> Option<Builtin<'static>> {
        // Custom objects are merged by what they look like: objects field by field, lists as one.
        if self.is_custom {
            return self
                .is_known(api_version)
                .then(|| Builtin::deduced(self.registry));
        }
        if self.is_own(api_version) {
            return Some(Builtin::new(self.registry, self.type_id));
        }
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let other = self.registry.type_by_gvk(group, "v1", "Event");
        other
            .filter(|_| self.is_known(api_version))
            .map(|type_id| Builtin::new(self.registry, type_id))
    }

    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        if !self.is_known(api_version) {
            return None;
        }
        let is_stated = tree::text(object, &["apiVersion"]) == api_version;
        Some(match (is_stated, api_version) {
            (false, "v1") if self.is_event => events::to_core(object.clone()),
            (false, _) if self.is_event => events::to_events_group(object.clone()),
            (false, _) if self.is_custom => {
                let mut object = object.clone();
                tree::map_mut(&mut object, &[]).insert("apiVersion".to_owned(), api_version.into());
                object
            }
            _ => object.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_clients() {
        let long = "x".repeat(200);
        let cases = [
            ("kubectl/v1.32 (linux/amd64)", "kubectl"),
            ("", ""),
            ("a\u{7}b/1", "ab"),
            ("curl", "curl"),
            (&long, &long[..128]),
        ];
        for (agent, expected) in cases {
            assert_eq!(client_name(agent), expected, "{agent}");
        }
    }

    #[test]
    fn times_alone_are_no_change() {
        let entry = |time: &str, fields: Value| json!([{"manager": "m", "time": time, "fieldsV1": fields}]);
        let object = |data: &str, revision: &str, managed: Value| json!({"metadata": {"name": "a", "resourceVersion": revision, "managedFields": managed}, "data": data});
        let old = object("1", "7", entry("t1", json!({"f:data": {}})));
        let cases = [
            ("only the time", "1", entry("t2", json!({"f:data": {}})), "t1"),
            ("other data", "2", entry("t2", json!({"f:data": {}})), "t2"),
            ("other fields", "1", entry("t2", json!({"f:more": {}})), "t2"),
        ];
        for (case, data, managed, expected) in cases {
            let mut new = object(data, "", json!(null));
            take(&mut new);
            let kept = without_idle_times(&old, &new, Some(managed)).unwrap();
            assert_eq!(kept[0]["time"], expected, "{case}");
        }
    }
}
