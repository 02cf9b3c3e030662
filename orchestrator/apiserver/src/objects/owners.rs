//! Who owns which fields of the objects a request writes: what `managed_fields` of the schema crate decides, fed with
//! the request's manager, resource and subresource.

use std::borrow::Cow;
use std::sync::LazyLock;

use http::header;
use jiff::Timestamp;
use moorline_schema::custom::Definition;
use moorline_schema::fields_v1::{self, Path, Set};
use moorline_schema::managed_fields::{self, Live, Versions, Writer};
use moorline_schema::merge_schema::{Builtin, Structural};
use moorline_schema::{Registry, TypeId};
use serde_json::Value;

use super::forms::Forms;
use super::{Call, forms, tree};
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
    /// They are known already, as text.
    Known(Option<String>),
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

/// The text of entries, as it is stored.
pub(crate) fn text(managed: &Value) -> String {
    let mut out = Vec::with_capacity(512);
    fields_v1::write_ordered(&mut out, managed);
    // JSON text is UTF-8.
    String::from_utf8(out).unwrap_or_default()
}

/// An object with its owners in it.
pub(crate) fn whole(seen: Live<'_>) -> Value {
    let mut object = seen.object.clone();
    let managed = seen.managed.and_then(|text| serde_json::from_str(text).ok());
    tree::set(tree::map_mut(&mut object, &["metadata"]), FIELD, managed);
    object
}

/// The owners after a write to an object (`old` is absent: a create), as the text of the new entries. Both are in the
/// stored form.
pub(crate) fn after(
    call: &Call<'_>,
    owners: Owners,
    old: Option<Live<'_>>,
    new: &Value,
) -> Result<Option<String>, Failure> {
    let given = match owners {
        Owners::Known(managed) => return Ok(managed),
        Owners::Kept => return Ok(old.and_then(|old| old.managed).map(str::to_owned)),
        Owners::Followed(given) => given,
    };
    let manager = manager(call)?;
    let api_version = call.resource.facts.api_version();
    let writer = writer(call, &manager, &api_version);
    let versions = ServedVersions::of(call);
    let follow = |old: Option<Live<'_>>, new: &Value| {
        managed_fields::update(&versions, &writer, old, new, given.as_ref())
    };
    if !call.resource.is_converted() {
        return Ok(follow(old, new));
    }
    let served = |object: &Value| forms::to_served(call.resource.facts, object.clone());
    let before = old.map(|old| served(old.object));
    let old = before.as_ref().map(|object| Live {
        object,
        managed: old.and_then(|old| old.managed),
    });
    Ok(follow(old, &served(new)))
}

/// Entries that differ from the old ones in their times alone are no change if nothing else is one.
pub(crate) fn without_idle_times(old: Live<'_>, new: &Value, managed: Option<String>) -> Option<String> {
    if old.managed == managed.as_deref() || !is_same_otherwise(old.object, new) {
        return managed;
    }
    managed_fields::keep_times(old.managed, managed)
}

/// Whether two states without owners are the same but for the revision.
fn is_same_otherwise(old: &Value, new: &Value) -> bool {
    is_same_but(old, new, "metadata") && is_same_but(&old["metadata"], &new["metadata"], "resourceVersion")
}

fn is_same_but(old: &Value, new: &Value, skipped: &str) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return false;
    };
    let others = |name: &&String| *name != skipped;
    let counts = [old, new].map(|map| map.keys().filter(others).count());
    counts[0] == counts[1]
        && old
            .iter()
            .all(|(name, value)| name == skipped || new.get(name) == Some(value))
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
        _ if call.subresource.is_some_and(|sub| sub.name == "approval") => &SPEC,
        (true, ..) if facts.custom => &ALL_BUT_STATUS,
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

/// The versions of a call's resource. Built-in ones have one, but events and autoscalers, of which there are two forms;
/// custom ones have those of their definition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServedVersions<'c> {
    registry: &'static Registry,
    type_id: TypeId,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    forms: Option<Forms>,
    definition: Option<&'c Definition>,
}

impl<'c> ServedVersions<'c> {
    pub(crate) fn of(call: &'c Call<'_>) -> Self {
        let facts = call.resource.facts;
        ServedVersions {
            registry: call.api.registry,
            type_id: facts.type_id,
            group: facts.group,
            version: facts.version,
            kind: facts.kind,
            forms: Forms::of(facts),
            definition: call.resource.custom.as_ref().map(|custom| &*custom.definition),
        }
    }

    fn is_own(&self, api_version: &str) -> bool {
        match api_version.split_once('/') {
            Some(parts) => parts == (self.group, self.version),
            None => self.group.is_empty() && api_version == self.version,
        }
    }

    /// Another version of a custom resource than that of the request, or the same.
    fn of_definition(&self, api_version: &str) -> Option<Structural<'c>> {
        let (group, name) = api_version.split_once('/')?;
        let definition = self.definition.filter(|definition| definition.group == group)?;
        let version = definition.versions.iter().find(|version| version.name == name)?;
        Some(Structural::new(self.registry, version))
    }
}

impl<'c> Versions<'c> for ServedVersions<'c> {
    type Schema = Structural<'c>;

    fn schema(&self, api_version: &str) -> Option<Structural<'c>> {
        if self.definition.is_some() {
            return self.of_definition(api_version);
        }
        let type_id = if self.is_own(api_version) {
            self.type_id
        } else if self.forms.is_some_and(|forms| forms.has(api_version)) {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            self.registry.type_by_gvk(group, version, self.kind)?
        } else {
            return None;
        };
        let schema = Builtin::new(self.registry, type_id);
        Some(Structural::builtin(self.registry, schema))
    }

    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        self.schema(api_version)?;
        let is_stated = tree::text(object, &["apiVersion"]) == api_version;
        if is_stated {
            return Some(object.clone());
        }
        if let Some(forms) = self.forms {
            return Some(forms.convert(object.clone(), api_version));
        }
        let mut object = object.clone();
        if self.definition.is_some() {
            // Where a webhook converts, its answer would have to be waited for: the fields are compared by their names.
            tree::map_mut(&mut object, &[]).insert("apiVersion".to_owned(), api_version.into());
        }
        Some(object)
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
        let entry = |time: &str, fields: Value| {
            json!([{"fieldsV1": fields, "manager": "m", "time": time}]).to_string()
        };
        let object = |data: &str, revision: &str| json!({"metadata": {"name": "a", "resourceVersion": revision}, "data": data});
        let (before, owned) = (object("1", "7"), entry("t1", json!({"f:data": {}})));
        let old = Live {
            object: &before,
            managed: Some(&owned),
        };
        let cases = [
            ("only the time", "1", entry("t2", json!({"f:data": {}})), "t1"),
            ("other data", "2", entry("t2", json!({"f:data": {}})), "t2"),
            ("other fields", "1", entry("t2", json!({"f:more": {}})), "t2"),
        ];
        for (case, data, managed, expected) in cases {
            let kept = without_idle_times(old, &object(data, ""), Some(managed)).unwrap();
            assert!(kept.contains(expected), "{case}: {kept}");
        }
    }
}
