//! The wire form of sets, byte for byte as the reference server writes it.

use serde_json::{Map, Number, Value};

use super::set::Node;
use super::{Branch, Element, Set};

/// Why a JSON value is no set.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FieldsError {
    /// A node is not an object.
    #[error("expected an object of path elements, found {found}")]
    NotAnObject {
        /// What stands there.
        found: String,
    },
    /// A key names no element.
    #[error("parsing key as path element: {key:?}: {why}")]
    Element {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Set {
    /// Reads a set. Elements of kinds that are not known are dropped, as a later version may know them.
    ///
    /// # Errors
    /// [`FieldsError`]: the value is not in this form.
    pub fn from_json(value: &Value) -> Result<Set, FieldsError> {
        branch(value).map(|branch| branch.below)
    }

    /// The set as JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(256);
        self.write(&mut out, false);
        out
    }

    /// The set as a tree. Its keys may have another order than in [`Set::to_json`]; see [`write_ordered`].
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::Object(self.to_map(false))
    }

    fn to_map(&self, includes_self: bool) -> Map<String, Value> {
        let mut map = Map::new();
        if includes_self && !self.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for Node { element, branch } in &self.nodes {
            map.insert(
                element_text(element),
                Value::Object(branch.below.to_map(branch.is_member)),
            );
        }
        map
    }

    fn write(&self, out: &mut String, includes_self: bool) {
        out.push('{');
        let mut is_first = true;
        if includes_self && !self.nodes.is_empty() {
            out.push_str("\".\":{}");
            is_first = false;
        }
        for Node { element, branch } in &self.nodes {
            if !is_first {
                out.push(',');
            }
            is_first = false;
            put_string(out, &element_text(element), Escapes::Plain);
            out.push(':');
            branch.below.write(out, branch.is_member);
        }
        out.push('}');
    }
}

fn branch(value: &Value) -> Result<Branch, FieldsError> {
    let empty = Map::new();
    let map = match value {
        Value::Object(map) => map,
        Value::Null => &empty,
        other => {
            return Err(FieldsError::NotAnObject {
                found: other.to_string(),
            });
        }
    };
    let mut found = Branch::default();
    for (key, value) in map {
        if key == "." {
            found.is_member = true;
            continue;
        }
        if let Some(element) = parse_element(key)? {
            found.below.push(|| element, branch(value)?);
        }
    }
    found.is_member |= found.below.is_empty();
    Ok(found)
}

/// Reads one key; nothing if its kind is not known.
fn parse_element(key: &str) -> Result<Option<Element>, FieldsError> {
    let malformed = |why: String| FieldsError::Element {
        key: key.to_owned(),
        why,
    };
    let Some((kind, rest)) = key.split_once(':').filter(|(kind, _)| kind.len() == 1) else {
        return Err(malformed("expected a letter and a colon".to_owned()));
    };
    let json = |text: &str| serde_json::from_str(text).map_err(|error| malformed(error.to_string()));
    Ok(Some(match kind {
        "f" => Element::field(rest),
        "v" => Element::Value(Box::new(json(rest)?)),
        "i" => Element::Index(
            rest.parse()
                .map_err(|_| malformed("expected a number".to_owned()))?,
        ),
        "k" => {
            let Value::Object(keys) = json(rest)? else {
                return Err(malformed("expected an object of keys".to_owned()));
            };
            Element::Key(
                keys.into_iter()
                    .map(|(name, value)| (name.into(), value))
                    .collect(),
            )
        }
        _ => return Ok(None),
    }))
}

/// An element as a key.
pub(crate) fn element_text(element: &Element) -> String {
    match element {
        Element::Field(name) => format!("f:{name}"),
        Element::Index(index) => format!("i:{index}"),
        Element::Value(value) => {
            let mut text = "v:".to_owned();
            put_value(&mut text, value);
            text
        }
        Element::Key(keys) => {
            let mut text = "k:{".to_owned();
            for (index, (name, value)) in keys.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                put_string(&mut text, name, Escapes::Plain);
                text.push(':');
                put_value(&mut text, value);
            }
            text.push('}');
            text
        }
    }
}

/// Writes a tree of sets (`fieldsV1`, or a whole `managedFields` list with such in it) as JSON text, with the keys of
/// each set in the order of the wire form. A tree sorts them as texts, which puts port 443 before port 80.
pub fn write_ordered(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Object(map) => {
            let is_by_text =
                |key: &String| !key.starts_with("k:") && !key.starts_with("v:") && !key.starts_with("i:");
            if map.keys().all(is_by_text) {
                write_entries(out, map.iter());
            } else {
                let mut entries: Vec<(&String, &Value)> = map.iter().collect();
                entries.sort_by_cached_key(|(key, _)| parse_element(key).ok().flatten());
                write_entries(out, entries.into_iter());
            }
        }
        Value::Array(list) => {
            out.push(b'[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_ordered(out, item);
            }
            out.push(b']');
        }
        // Writing a scalar to memory cannot fail.
        scalar => serde_json::to_writer(out, scalar).unwrap_or_default(),
    }
}

fn write_entries<'v>(out: &mut Vec<u8>, entries: impl Iterator<Item = (&'v String, &'v Value)>) {
    out.push(b'{');
    for (index, (key, value)) in entries.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, key).unwrap_or_default();
        out.push(b':');
        write_ordered(out, value);
    }
    out.push(b'}');
}

/// How texts are escaped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    /// What JSON asks for.
    Plain,
    /// Also what could be read as HTML.
    Html,
}

fn put_value(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => put_string(out, text, Escapes::Html),
        Value::Number(number) => out.push_str(&number_text(number)),
        other => out.push_str(&other.to_string()),
    }
}

/// Whole numbers have no fraction, whatever they were written as.
fn number_text(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => format!("{float:.0}"),
        _ => number.to_string(),
    }
}

fn put_string(out: &mut String, text: &str, escapes: Escapes) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if escapes == Escapes::Html => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
