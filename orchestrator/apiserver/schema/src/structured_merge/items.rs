//! The elements of lists that are sets or keyed, as steps of a path.

use serde_json::Value;

use crate::fields_v1::Element;
use crate::merge_schema::{ListRule, MergeSchema};

/// The step to a list's element; refused with the reason if there is none.
pub(super) fn element_of<'s, S: MergeSchema<'s>>(
    list: S,
    rule: ListRule,
    item: &Value,
) -> Result<Element, String> {
    match rule {
        ListRule::Keyed => keyed(list, item),
        ListRule::Set => scalar(item),
        ListRule::Atomic => Err("invalid indexing of non-associative list".to_owned()),
    }
}

fn keyed<'s, S: MergeSchema<'s>>(list: S, item: &Value) -> Result<Element, String> {
    let object = match item {
        Value::Object(object) => object,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let names = || (0..).map_while(|index| list.list_key(index));
    let value = |name: &str| object.get(name).or_else(|| list.list_key_default(name)).cloned();
    let keys: Vec<(Box<str>, Value)> = names()
        .filter_map(|name| value(name).map(|value| (name.into(), value)))
        .collect();
    if keys.is_empty() {
        let names: Vec<String> = names().map(|name| format!("{name:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            names.join(" ")
        ));
    }
    Ok(Element::key(keys))
}

fn scalar(item: &Value) -> Result<Element, String> {
    match item {
        Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
        Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
        Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
        scalar => Ok(Element::Value(Box::new(scalar.clone()))),
    }
}

/// A list's elements with their steps; those without one are left out.
pub(super) fn steps<'s, 'v, S: MergeSchema<'s>>(
    list: S,
    rule: ListRule,
    items: Option<&'v Value>,
) -> Vec<(Element, &'v Value)> {
    let items = items.and_then(Value::as_array).into_iter().flatten();
    items
        .filter_map(|item| Some((element_of(list, rule, item).ok()?, item)))
        .collect()
}
