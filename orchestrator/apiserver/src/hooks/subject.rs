//! A request as webhooks and policies see it.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::matching::{Operation, Place, Request};
use super::review;
use crate::cache::Entry;
use crate::objects::forms::{self, Forms};
use crate::objects::{Call, decode, tree};

/// A request under admission. Objects are in the version of the request.
#[derive(Debug)]
pub(crate) struct Subject<'s> {
    pub(crate) call: &'s Call<'s>,
    pub(crate) operation: Operation,
    pub(crate) old: Option<Cow<'s, Value>>,
    pub(crate) new: Option<Cow<'s, Value>>,
    name: String,
    namespace: String,
    /// The namespace it lives in; nothing for cluster-wide objects.
    found: Option<std::sync::Arc<Entry>>,
    /// The labels of a namespace itself.
    own_labels: Option<Map<String, Value>>,
    equivalents: Vec<(String, String)>,
}

impl<'s> Subject<'s> {
    pub(crate) fn new(
        call: &'s Call<'s>,
        operation: Operation,
        old: Option<&'s Value>,
        new: Option<&'s Value>,
    ) -> Self {
        let facts = call.resource.facts;
        let is_namespace = (facts.group, facts.plural) == ("", "namespaces");
        let either = new.or(old);
        let stated = either.map(|object| tree::text(object, &["metadata", "name"]).to_owned());
        let name = call.name.map(str::to_owned).or(stated).unwrap_or_default();
        let namespace = match call.namespace {
            Some(namespace) if facts.namespaced => namespace.to_owned(),
            _ if is_namespace => name.clone(),
            _ => String::new(),
        };
        let found = call.namespace.filter(|_| facts.namespaced).and_then(|namespace| {
            let namespaces = call.api.registry.resource("", "v1", "namespaces")?;
            call.api.caches.collection(namespaces)?.get(namespace)
        });
        let own_labels = is_namespace.then(|| {
            let labels = either.and_then(|object| tree::at(object, &["metadata", "labels"]));
            labels.and_then(Value::as_object).cloned().unwrap_or_default()
        });
        Subject {
            call,
            operation,
            old: old.map(|old| in_request_form(call, old)),
            new: new.map(|new| in_request_form(call, new)),
            name,
            namespace,
            found,
            own_labels,
            equivalents: equivalents(call),
        }
    }

    /// Group, version and kind of what the request brings.
    pub(crate) fn kind(&self) -> (String, String, String) {
        let expected = decode::expected(self.call);
        let (group, version) = expected
            .api_version
            .split_once('/')
            .unwrap_or(("", &expected.api_version));
        (group.to_owned(), version.to_owned(), expected.kind.to_owned())
    }

    pub(crate) fn place(&self) -> Place<'_> {
        let facts = self.call.resource.facts;
        Place {
            group: facts.group,
            version: facts.version,
            plural: facts.plural,
            subresource: self.call.subresource.map_or("", |sub| sub.name),
        }
    }

    /// Asks something about the request as it is matched.
    pub(crate) fn with_request<T>(&self, ask: impl FnOnce(&Request<'_>) -> T) -> T {
        let others: Vec<(&str, &str)> = self
            .equivalents
            .iter()
            .map(|(group, version)| (group.as_str(), version.as_str()))
            .collect();
        let of_namespace = self.found.as_ref().map(|entry| &entry.facts.labels);
        let none = Map::new();
        let labels = match (&self.own_labels, of_namespace) {
            (Some(own), _) => Some(own),
            (None, Some(found)) => Some(found.as_ref().unwrap_or(&none)),
            (None, None) => None,
        };
        ask(&Request {
            operation: self.operation,
            place: self.place(),
            equivalents: &others,
            is_namespaced: self.call.resource.facts.namespaced && self.call.namespace.is_some(),
            name: &self.name,
            object: self.new.as_deref(),
            old: self.old.as_deref(),
            namespace_labels: labels,
        })
    }

    /// The request itself, without its objects; `group` and `version` are those in which it matched.
    pub(crate) fn head(&self, group: &str, version: &str) -> Value {
        let (own_group, own_version, kind) = self.kind();
        let place = self.place();
        let is_part = (own_group.as_str(), own_version.as_str()) != (place.group, place.version);
        let resource = |group: &str, version: &str| json!({ "group": group, "version": version, "resource": place.plural });
        let kind_in =
            |group: &str, version: &str| json!({ "group": group, "version": version, "kind": kind });
        let matched_kind = if is_part {
            kind_in(&own_group, &own_version)
        } else {
            kind_in(group, version)
        };
        let mut head = json!({
            "kind": matched_kind,
            "resource": resource(group, version),
            "requestKind": kind_in(&own_group, &own_version),
            "requestResource": resource(place.group, place.version),
            "operation": self.operation.name(),
            "userInfo": review::user_info(self.call.user),
            "dryRun": self.call.query.dry_run().unwrap_or(false),
            "options": self.options(),
        });
        let texts = [
            ("name", self.name.as_str()),
            ("namespace", self.namespace.as_str()),
            ("subResource", place.subresource),
            ("requestSubResource", place.subresource),
        ];
        for (field, text) in texts {
            if !text.is_empty() {
                head[field] = text.into();
            }
        }
        head
    }

    fn options(&self) -> Value {
        let kind = match self.operation {
            Operation::Create => "CreateOptions",
            Operation::Update if self.call.is_patch() => "PatchOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => return Value::Null,
        };
        let mut options = json!({ "kind": kind, "apiVersion": "meta.k8s.io/v1" });
        if let Some(manager) = self.call.query.get("fieldManager") {
            options["fieldManager"] = manager.into();
        }
        if self.call.query.dry_run().unwrap_or(false) {
            options["dryRun"] = json!(["All"]);
        }
        options
    }

    /// An object of the request in another of its versions.
    pub(crate) fn in_version(&self, object: &Value, group: &str, version: &str) -> Value {
        let facts = self.call.resource.facts;
        if (group, version) == (facts.group, facts.version) {
            return object.clone();
        }
        let api_version = if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        };
        if let Some(forms) = Forms::of(facts) {
            return forms.convert(object.clone(), &api_version);
        }
        let mut object = object.clone();
        tree::map_mut(&mut object, &[]).insert("apiVersion".to_owned(), api_version.into());
        object
    }

    /// The namespace as policies see it; null for cluster-wide objects.
    pub(crate) fn namespace_object(&self) -> Value {
        let Some(entry) = &self.found else {
            return Value::Null;
        };
        let mut namespace = entry.value();
        tree::map_mut(&mut namespace, &["metadata"]).remove("managedFields");
        namespace
    }

    /// The name of the namespace that the object lives in.
    pub(crate) fn namespace_name(&self) -> &str {
        if self.found.is_some() { &self.namespace } else { "" }
    }
}

/// An object that is admitted, in the version of the request.
pub(crate) fn in_request_form<'v>(call: &Call<'_>, object: &'v Value) -> Cow<'v, Value> {
    if call.resource.is_converted() && call.subresource.is_none_or(|sub| sub.name == "status") {
        Cow::Owned(forms::to_served(call.resource.facts, object.clone()))
    } else {
        Cow::Borrowed(object)
    }
}

/// The other versions in which the same objects are served.
fn equivalents(call: &Call<'_>) -> Vec<(String, String)> {
    let facts = call.resource.facts;
    if call.subresource.is_some_and(|sub| sub.name != "status") {
        return Vec::new();
    }
    let all: Vec<(String, String)> = match (&call.resource.custom, Forms::of(facts)) {
        (Some(custom), _) => {
            let definition = &custom.definition;
            let served = definition.versions.iter().filter(|version| version.served);
            served
                .map(|version| (definition.group.clone(), version.name.clone()))
                .collect()
        }
        (None, Some(forms)) => forms
            .all()
            .into_iter()
            .map(|(group, version)| (group.to_owned(), version.to_owned()))
            .collect(),
        (None, None) => Vec::new(),
    };
    let is_other = |(group, version): &(String, String)| {
        (group.as_str(), version.as_str()) != (facts.group, facts.version)
    };
    all.into_iter().filter(is_other).collect()
}
