//! `metadata.managedFields`: who owns which fields of an object, kept up to date by every write.
//!
//! [`update`] follows a write that brings a whole new state (create, update, and all patches but one); [`apply`] is
//! server-side apply, which merges a configuration into an object. Both are pure. What they know of types comes in
//! through [`Versions`], so they work for built-in types and for CustomResourceDefinitions.
//!
//! An entry is found again by its manager, operation, subresource and, for updates, version. Writes that change a field
//! take it from all other entries; [`apply`] refuses that unless it is forced, and shares fields that have the same
//! value already.

mod apply;
mod conflict;
mod entries;
mod last_applied;
mod scale;
mod stored;
mod times;
mod update;

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::Value;

use crate::fields_v1::{Path, Set};
use crate::merge_schema::{Builtin, MergeSchema};
use crate::registry::{Registry, TypeId};

pub use apply::{Applied, ApplyError, apply};
pub use conflict::{Conflict, Conflicts};
pub use entries::{Entry, Managed, ManagedError, Operation};
pub use scale::{from_scale, to_scale};
pub use times::keep_times;
pub use update::{is_reset, update};

/// The versions in which a type is known.
pub trait Versions<'s> {
    /// A place in the type's schema.
    type Schema: MergeSchema<'s>;

    /// The schema of a version, by its `apiVersion`; nothing if that version is not known (any more).
    fn schema(&self, api_version: &str) -> Option<Self::Schema>;

    /// An object of one version in another one; nothing if one of them is not known.
    fn convert(&self, object: &Value, api_version: &str) -> Option<Value>;
}

/// A built-in type in the version it is served in. Entries of other versions count as those of versions gone by.
#[derive(Clone, Copy, Debug)]
pub struct OneVersion<'r> {
    registry: &'r Registry,
    type_id: TypeId,
    api_version: &'r str,
}

impl<'r> OneVersion<'r> {
    /// The only version of a type.
    #[must_use]
    pub fn new(registry: &'r Registry, type_id: TypeId, api_version: &'r str) -> Self {
        OneVersion {
            registry,
            type_id,
            api_version,
        }
    }
}

impl<'r> Versions<'r> for OneVersion<'r> {
    type Schema = Builtin<'r>;

    fn schema(&self, api_version: &str) -> Option<Builtin<'r>> {
        (api_version == self.api_version).then(|| Builtin::new(self.registry, self.type_id))
    }

    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        (api_version == self.api_version).then(|| object.clone())
    }
}

/// An object before a write, apart from its owners.
#[derive(Clone, Copy, Debug)]
pub struct Live<'a> {
    /// The object; entries in it don't count.
    pub object: &'a Value,
    /// The text of its `managedFields`.
    pub managed: Option<&'a str>,
}

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The manager's name; empty counts as `unknown`.
    pub manager: &'a str,
    /// The subresource that is written; empty for the object itself.
    pub subresource: &'a str,
    /// The `apiVersion` of the request.
    pub api_version: &'a str,
    /// Fields that the request can't change, whatever it says: these and all below them get no owner from it.
    pub ignored: &'a Set,
    /// Now.
    pub now: Timestamp,
}

impl Writer<'_> {
    fn entry(&self, operation: Operation, fields: Set) -> Entry {
        Entry {
            manager: if self.manager.is_empty() {
                "unknown".to_owned()
            } else {
                self.manager.to_owned()
            },
            operation,
            api_version: self.api_version.to_owned(),
            time: Some(self.now),
            subresource: self.subresource.to_owned(),
            fields,
        }
    }
}

/// The fields that nobody owns, as the server alone writes them.
static UNTRACKED: LazyLock<Set> = LazyLock::new(|| {
    let metadata = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    let top = ["apiVersion", "kind", "metadata"].map(|name| Path::fields(&[name]));
    let inner = metadata.map(|name| Path::fields(&["metadata", name]));
    Set::of(top.into_iter().chain(inner))
});

/// The entries an object has, as they stand there.
fn stated(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

#[cfg(test)]
mod tests;
