//! Strategic merge: objects are merged field by field, lists by the key that the facts name.

use serde_json::{Map, Value};

use super::PatchError;
use crate::registry::{Cardinality, Field, Kind, Registry, TypeId};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

/// What is known about an object that is merged.
#[derive(Clone, Copy)]
enum Schema {
    /// It has the fields of a type.
    Type(TypeId),
    /// It is a map whose values are objects of a type.
    MapOf(TypeId),
    /// Nothing: it is merged like JSON.
    Unknown,
}

struct Merge<'r> {
    registry: &'r Registry,
}

pub(super) fn merge(
    registry: &Registry,
    type_id: TypeId,
    base: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let not_an_object = || PatchError::NotAnObject { path: String::new() };
    let base = base.as_object().ok_or_else(not_an_object)?;
    let patch = patch.as_object().ok_or_else(not_an_object)?;
    let merge = Merge { registry };
    merge
        .objects(Schema::Type(type_id), base.clone(), patch, "")
        .map(Value::Object)
}

impl<'r> Merge<'r> {
    fn field(&self, schema: Schema, name: &str) -> Option<&'r Field> {
        match schema {
            Schema::Type(id) => self.registry.get(id).field(name),
            Schema::MapOf(_) | Schema::Unknown => None,
        }
    }

    fn inner(schema: Schema, field: Option<&Field>) -> Schema {
        match (schema, field.map(|field| (field.cardinality, field.kind))) {
            (Schema::MapOf(id), _) | (_, Some((Cardinality::One | Cardinality::List, Kind::Message(id)))) => {
                Schema::Type(id)
            }
            (_, Some((Cardinality::Map, Kind::Message(id)))) => Schema::MapOf(id),
            _ => Schema::Unknown,
        }
    }

    fn objects(
        &self,
        schema: Schema,
        mut base: Object,
        patch: &Object,
        path: &str,
    ) -> Result<Object, PatchError> {
        match patch
            .get(PATCH)
            .map(|directive| directive.as_str().unwrap_or_default())
        {
            None | Some("merge") => {}
            Some("replace") => return Ok(without_directives(patch)),
            Some("delete") => return Ok(Object::new()),
            Some(_) => return Err(unknown_directive(patch, path)),
        }
        retain_keys(&mut base, patch, path)?;
        for (name, change) in patch {
            if name.starts_with('$') {
                self.list_directive(schema, &mut base, patch, (name, change), path)?;
                continue;
            }
            let inner_path = join(path, name);
            let field = self.field(schema, name);
            match (base.get_mut(name).map(Value::take), change) {
                (_, Value::Null) => {
                    base.remove(name);
                }
                (Some(Value::Object(old)), Value::Object(change))
                    if !field.is_some_and(|f| f.patch.replace) =>
                {
                    let merged = self.objects(Self::inner(schema, field), old, change, &inner_path)?;
                    base.insert(name.clone(), Value::Object(merged));
                }
                (Some(Value::Array(old)), Value::Array(change)) if field.is_some_and(|f| f.patch.merge) => {
                    let order = order_of(patch, name, &inner_path)?;
                    let merged = self.lists(schema, field, (old, change, order), &inner_path)?;
                    base.insert(name.clone(), Value::Array(merged));
                }
                (_, change) => {
                    base.insert(name.clone(), new_value(change));
                }
            }
        }
        Ok(base)
    }

    /// `$setElementOrder` of a list that the patch doesn't change otherwise, and `$deleteFromPrimitiveList`.
    fn list_directive(
        &self,
        schema: Schema,
        base: &mut Object,
        patch: &Object,
        (name, value): (&str, &Value),
        path: &str,
    ) -> Result<(), PatchError> {
        if let Some(list) = name.strip_prefix(DELETE_FROM_LIST) {
            let gone = value.as_array().ok_or_else(|| malformed(name, path, "values"))?;
            if let Some(Value::Array(items)) = base.get_mut(list) {
                items.retain(|item| !gone.contains(item));
            }
        } else if let Some(list) = name.strip_prefix(SET_ELEMENT_ORDER)
            && !patch.contains_key(list)
        {
            let order = order_of(patch, list, &join(path, list))?;
            let key = self.field(schema, list).and_then(|field| field.patch.merge_key);
            if let Some(Value::Array(items)) = base.get_mut(list) {
                let before = std::mem::take(items);
                *items = ordered(before.clone(), &before, order, key);
            }
        }
        Ok(())
    }

    /// Merges two lists; elements are the same if their merge keys are, or, being scalars, if they are equal.
    fn lists(
        &self,
        schema: Schema,
        field: Option<&Field>,
        (base, patch, order): (Vec<Value>, &[Value], Option<&[Value]>),
        path: &str,
    ) -> Result<Vec<Value>, PatchError> {
        let key = field.and_then(|field| field.patch.merge_key);
        let Some(key) = key else {
            let mut merged = base.clone();
            for item in patch {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            return Ok(ordered(merged, &base, order, None));
        };
        let element_schema = Self::inner(schema, field);
        let server = base.clone();
        let mut merged = base;
        if patch.iter().any(|item| directive(item) == Some("replace")) {
            merged.clear();
        }
        for item in patch {
            let element = item.as_object().ok_or_else(|| PatchError::NotAnObject {
                path: path.to_owned(),
            })?;
            let is_same = |other: &Value| {
                other
                    .get(key)
                    .is_some_and(|value| Some(value) == element.get(key))
            };
            match directive(item) {
                Some("replace") if element.len() == 1 => continue,
                Some("delete") => {
                    require_key(element, key, path)?;
                    merged.retain(|other| !is_same(other));
                    continue;
                }
                None | Some("replace" | "merge") => require_key(element, key, path)?,
                Some(_) => return Err(unknown_directive(element, path)),
            }
            match merged.iter_mut().find(|other| is_same(other)) {
                Some(Value::Object(found)) => {
                    let merged = self.objects(element_schema, std::mem::take(found), element, path)?;
                    *found = merged;
                }
                _ => merged.push(new_value(item)),
            }
        }
        Ok(ordered(merged, &server, order, Some(key)))
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn directive(item: &Value) -> Option<&str> {
    item.get(PATCH)
        .map(|directive| directive.as_str().unwrap_or_default())
}

fn unknown_directive(object: &Object, path: &str) -> PatchError {
    let directive = object.get(PATCH).map(Value::to_string).unwrap_or_default();
    PatchError::UnknownDirective {
        path: path.to_owned(),
        directive,
    }
}

fn malformed(directive: &str, path: &str, expected: &'static str) -> PatchError {
    PatchError::MalformedDirective {
        path: path.to_owned(),
        directive: directive.to_owned(),
        expected,
    }
}

fn require_key(element: &Object, key: &'static str, path: &str) -> Result<(), PatchError> {
    let found = element.contains_key(key);
    if found {
        Ok(())
    } else {
        Err(PatchError::MissingMergeKey {
            path: path.to_owned(),
            key,
        })
    }
}

/// `$retainKeys`: fields of the base that are not named go away.
fn retain_keys(base: &mut Object, patch: &Object, path: &str) -> Result<(), PatchError> {
    let Some(directive) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let keep = directive
        .as_array()
        .ok_or_else(|| malformed(RETAIN_KEYS, path, "field names"))?;
    let is_kept = |name: &str| keep.iter().any(|one| one.as_str() == Some(name));
    let set = patch
        .iter()
        .filter(|(name, value)| !name.starts_with('$') && !value.is_null());
    if let Some((name, _)) = set.into_iter().find(|(name, _)| !is_kept(name)) {
        return Err(PatchError::NotRetained {
            path: path.to_owned(),
            field: name.clone(),
        });
    }
    base.retain(|name, _| is_kept(name));
    Ok(())
}

fn order_of<'p>(patch: &'p Object, list: &str, path: &str) -> Result<Option<&'p [Value]>, PatchError> {
    let name = format!("{SET_ELEMENT_ORDER}{list}");
    match patch.get(&name) {
        None => Ok(None),
        Some(Value::Array(order)) => Ok(Some(order)),
        Some(_) => Err(malformed(&name, path, "elements")),
    }
}

/// Brings the elements that `order` names into that order. The others, which only the server knows, stay where they
/// stood relative to the ones before and after them.
fn ordered(items: Vec<Value>, server: &[Value], order: Option<&[Value]>, key: Option<&str>) -> Vec<Value> {
    let Some(order) = order else { return items };
    let identity = |item: &Value| key.map_or_else(|| Some(item.clone()), |key| item.get(key).cloned());
    let place =
        |list: &[Value], item: &Value| list.iter().position(|other| identity(other) == identity(item));
    let (mut named, rest): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    let mut result = Vec::with_capacity(named.len() + rest.len());
    let mut named = named.into_iter().peekable();
    for item in rest {
        let own = place(server, &item);
        // A named element goes first if it stood before on the server; new ones (no place) stay behind.
        while let Some(next) = named.next_if(|next| match (place(server, next), own) {
            (Some(other), Some(own)) => other < own,
            (Some(_), None) => true,
            (None, _) => false,
        }) {
            result.push(next);
        }
        result.push(item);
    }
    result.extend(named);
    result
}

/// A value that the base doesn't have, without the directives in it.
fn new_value(value: &Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(without_directives(object)),
        Value::Array(list) => {
            let items = list.iter().filter(|item| match directive(item) {
                Some("delete") => false,
                Some("replace") => item.as_object().is_some_and(|object| object.len() > 1),
                _ => true,
            });
            items.map(new_value).collect()
        }
        other => other.clone(),
    }
}

fn without_directives(object: &Object) -> Object {
    let is_directive = |name: &str| {
        name == PATCH
            || name == RETAIN_KEYS
            || name.starts_with(SET_ELEMENT_ORDER)
            || name.starts_with(DELETE_FROM_LIST)
    };
    let fields = object
        .iter()
        .filter(|(name, value)| !is_directive(name) && !value.is_null());
    fields
        .map(|(name, value)| (name.clone(), new_value(value)))
        .collect()
}
