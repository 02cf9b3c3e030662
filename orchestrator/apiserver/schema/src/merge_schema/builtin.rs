//! The schema of built-in types, read from the registry's facts.

use serde_json::Value;

use super::{Forms, ListRule, MapRule, MergeSchema, Scalar, Untyped};
use crate::registry::{Cardinality, Field, Kind, ListType, Registry, TypeId};

/// A place in a built-in type.
#[derive(Clone, Copy, Debug)]
pub struct Builtin<'r> {
    registry: &'r Registry,
    place: Place<'r>,
}

#[derive(Clone, Copy, Debug)]
enum Place<'r> {
    /// An object of a type.
    Object(TypeId),
    /// All that a field holds.
    Field(&'r Field),
    /// One value of a list or map field.
    Value(&'r Field),
    /// One text of a list of texts.
    Text,
    /// Something the facts leave open.
    Untyped(Untyped),
}

impl<'r> Builtin<'r> {
    /// The schema of a type's objects.
    #[must_use]
    pub fn new(registry: &'r Registry, type_id: TypeId) -> Self {
        Builtin {
            registry,
            place: Place::Object(type_id),
        }
    }

    fn at(self, place: Place<'r>) -> Self {
        Builtin { place, ..self }
    }

    /// The type whose fields an object has here.
    fn type_id(self) -> Option<TypeId> {
        let single = |field: &Field| match field.kind {
            Kind::Message(id) | Kind::Inline(id) => Some(id),
            _ => None,
        };
        match self.place {
            Place::Object(id) => Some(id),
            Place::Field(field) if field.cardinality == Cardinality::One => single(field),
            Place::Value(field) => single(field),
            Place::Field(_) | Place::Text | Place::Untyped(_) => None,
        }
    }

    fn object_forms(self, id: TypeId, map_type: Option<&str>) -> Forms {
        let is_atomic = match map_type {
            Some(stated) => stated == "atomic",
            None => self.registry.get(id).atomic,
        };
        Forms::map(map_rule(is_atomic))
    }

    fn value_forms(self, kind: Kind, map_type: Option<&str>) -> Forms {
        match kind {
            Kind::String | Kind::Bytes => Forms::scalar(Scalar::Text),
            Kind::Bool => Forms::scalar(Scalar::Boolean),
            Kind::Int32 | Kind::Int64 | Kind::Double => Forms::scalar(Scalar::Number),
            Kind::Quantity | Kind::Time | Kind::MicroTime | Kind::Duration | Kind::IntOrString => {
                Forms::scalar(Scalar::Any)
            }
            Kind::Message(id) | Kind::Inline(id) => self.object_forms(id, map_type),
            Kind::RawObject => Forms::map(MapRule::Granular),
            Kind::AnyJson | Kind::SchemaOrArray(_) | Kind::SchemaOrBool(_) | Kind::SchemaOrStrings(_) => {
                Untyped::Atomic.forms()
            }
            Kind::StringList => Forms::list(ListRule::Atomic),
        }
    }
}

fn map_rule(is_atomic: bool) -> MapRule {
    if is_atomic {
        MapRule::Atomic
    } else {
        MapRule::Granular
    }
}

impl<'r> MergeSchema<'r> for Builtin<'r> {
    fn forms(self) -> Forms {
        match self.place {
            Place::Object(id) => self.object_forms(id, None),
            Place::Text => Forms::scalar(Scalar::Text),
            Place::Untyped(untyped) => untyped.forms(),
            Place::Value(field) => self.value_forms(field.kind, None),
            Place::Field(field) => match field.cardinality {
                Cardinality::One => self.value_forms(field.kind, field.map_type),
                Cardinality::Map => Forms::map(map_rule(field.map_type == Some("atomic"))),
                Cardinality::List => Forms::list(match field.list_type {
                    None | Some(ListType::Atomic) => ListRule::Atomic,
                    Some(ListType::Set) => ListRule::Set,
                    Some(ListType::Map) => ListRule::Keyed,
                }),
            },
        }
    }

    fn element(self) -> Self {
        match self.place {
            Place::Field(field) if field.cardinality == Cardinality::List => self.at(Place::Value(field)),
            Place::Field(field) | Place::Value(field) if field.kind == Kind::StringList => {
                self.at(Place::Text)
            }
            Place::Untyped(untyped) => self.at(Place::Untyped(untyped.element())),
            Place::Object(_) | Place::Field(_) | Place::Value(_) | Place::Text => {
                self.at(Place::Untyped(Untyped::Atomic))
            }
        }
    }

    fn field(self, name: &str) -> Option<Self> {
        let field = self.registry.get(self.type_id()?).field(name)?;
        Some(self.at(Place::Field(field)))
    }

    fn entry(self) -> Option<Self> {
        match self.place {
            Place::Field(field) if field.cardinality == Cardinality::Map => {
                Some(self.at(Place::Value(field)))
            }
            Place::Field(field) | Place::Value(field) => match field.kind {
                Kind::RawObject => Some(self.at(Place::Untyped(Untyped::Deduced))),
                Kind::AnyJson | Kind::SchemaOrArray(_) | Kind::SchemaOrBool(_) | Kind::SchemaOrStrings(_) => {
                    Some(self.at(Place::Untyped(Untyped::Atomic)))
                }
                _ => None,
            },
            Place::Untyped(untyped) => untyped.entry().map(|entry| self.at(Place::Untyped(entry))),
            Place::Object(_) | Place::Text => None,
        }
    }

    fn list_key(self, index: usize) -> Option<&'r str> {
        match self.place {
            Place::Field(field) => field.list_keys.get(index).copied(),
            _ => None,
        }
    }

    fn list_key_default(self, key: &str) -> Option<&'r Value> {
        let registry: &'r Registry = self.registry;
        let element = self.element().type_id()?;
        registry.get(element).field(key)?.default.as_ref()
    }

    fn implied(self) -> &'r [(&'static str, Value)] {
        let registry: &'r Registry = self.registry;
        self.type_id().map_or(&[], |id| &registry.get(id).implied)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Walks down by names; `*` is a list's element or a map's value.
    fn at(root: &str, path: &str) -> Builtin<'static> {
        let registry = Registry::builtin();
        let root = Builtin::new(registry, registry.type_by_id(root).unwrap());
        path.split('.')
            .filter(|step| !step.is_empty())
            .fold(root, |node, step| match step {
                "*" if node.forms().list.is_some() => node.element(),
                "*" => node.entry().unwrap(),
                name => node.field(name).unwrap(),
            })
    }

    #[test]
    fn forms_of_known_places() {
        use {ListRule::*, MapRule::Granular, Scalar::*};
        let list = Forms::list;
        let cases = [
            ("core/v1.Pod", "", Forms::map(Granular)),
            ("core/v1.Pod", "metadata.labels", Forms::map(Granular)),
            ("core/v1.Pod", "metadata.labels.*", Forms::scalar(Text)),
            ("core/v1.Pod", "metadata.finalizers", list(Set)),
            ("core/v1.Pod", "metadata.ownerReferences", list(Keyed)),
            (
                "core/v1.Pod",
                "metadata.ownerReferences.*",
                Forms::map(MapRule::Atomic),
            ),
            ("core/v1.Pod", "spec.containers", list(Keyed)),
            ("core/v1.Pod", "spec.containers.*.ports", list(Keyed)),
            ("core/v1.Pod", "spec.containers.*.args", list(ListRule::Atomic)),
            (
                "core/v1.Pod",
                "spec.containers.*.resources.limits.*",
                Forms::scalar(Any),
            ),
            ("core/v1.Pod", "spec.tolerations", list(ListRule::Atomic)),
            ("core/v1.Pod", "spec.nodeSelector", Forms::map(MapRule::Atomic)),
            ("core/v1.Pod", "spec.hostNetwork", Forms::scalar(Boolean)),
            (
                "core/v1.Pod",
                "spec.terminationGracePeriodSeconds",
                Forms::scalar(Number),
            ),
            (
                "core/v1.PersistentVolumeClaim",
                "spec.selector",
                Forms::map(MapRule::Atomic),
            ),
            ("core/v1.Secret", "data.*", Forms::scalar(Text)),
            ("core/v1.Node", "spec.podCIDRs", list(Set)),
        ];
        for (root, path, expected) in cases {
            assert_eq!(at(root, path).forms(), expected, "{root} {path}");
        }
    }

    #[test]
    fn keys_and_their_defaults() {
        let ports = at("core/v1.Pod", "spec.containers.*.ports");
        assert_eq!(ports.list_key(0), Some("containerPort"));
        assert_eq!(ports.list_key(1), Some("protocol"));
        assert_eq!(ports.list_key(2), None);
        assert_eq!(ports.list_key_default("protocol"), Some(&json!("TCP")));
        assert!(at("core/v1.Pod", "spec").field("nonsense").is_none());
        assert!(at("core/v1.Pod", "spec").entry().is_none());
    }

    #[test]
    fn what_is_no_pointer_is_implied() {
        let implied = |path: &str| at("core/v1.Pod", path).implied().to_vec();
        let names = ["metadata", "spec", "status"].map(|name| (name, json!({})));
        assert_eq!(implied(""), names);
        assert_eq!(implied("spec"), [("containers", json!(null))]);
        assert_eq!(
            implied("spec.containers.*"),
            [("name", json!("")), ("resources", json!({}))]
        );
        assert!(implied("metadata.labels").is_empty());
    }
}
