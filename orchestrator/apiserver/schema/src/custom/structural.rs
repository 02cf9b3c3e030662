//! A structural schema, compiled once from `openAPIV3Schema` for all that is done with objects.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::rules::{Rule, RuleError};
use crate::object::{list, text};

/// Schemas nest no deeper than this.
const DEPTH_MAX: usize = 64;
/// A compiled pattern takes no more than this.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// What a value has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JsonType {
    /// An object.
    Object,
    /// A list.
    Array,
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// True or false.
    Boolean,
}

impl JsonType {
    /// As schemas write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            JsonType::Object => "object",
            JsonType::Array => "array",
            JsonType::String => "string",
            JsonType::Integer => "integer",
            JsonType::Number => "number",
            JsonType::Boolean => "boolean",
        }
    }

    /// Reads a schema's `type`.
    #[must_use]
    pub fn parse(name: &str) -> Option<JsonType> {
        let all = [
            JsonType::Object,
            JsonType::Array,
            JsonType::String,
            JsonType::Integer,
            JsonType::Number,
            JsonType::Boolean,
        ];
        all.into_iter().find(|one| one.name() == name)
    }
}

/// How elements of a list belong together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ListKind {
    /// The list is one unit.
    #[default]
    Atomic,
    /// Each element is there once.
    Set,
    /// Elements are known by some of their fields.
    Map(Vec<String>),
}

/// A pattern and the text it was made from.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// As the schema states it.
    pub text: String,
    /// Compiled.
    pub regex: Regex,
}

/// One place of a schema. Those below `allOf`, `anyOf`, `oneOf` and `not` state value checks alone.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// What a value has to be; anything if absent.
    pub kind: Option<JsonType>,
    /// Null is a value too.
    pub nullable: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    /// What stands in for absence.
    pub default: Option<Value>,
    /// Known fields.
    pub properties: BTreeMap<String, Schema>,
    /// Values of all other fields.
    pub additional: Option<Box<Schema>>,
    /// Elements.
    pub items: Option<Box<Schema>>,
    /// `x-kubernetes-list-type`, with its keys; nothing if it isn't stated.
    pub list_kind: Option<ListKind>,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
    /// `x-kubernetes-validations`.
    pub rules: Vec<Rule>,
    /// Any such check here or below.
    pub has_rules: bool,
    /// A default here or below.
    pub has_defaults: bool,
    /// Format of texts and numbers.
    pub format: String,
    /// Closed set of values.
    pub values: Vec<Value>,
    /// Pattern of texts.
    pub pattern: Option<Pattern>,
    /// Least number, and whether it is left out.
    pub minimum: Option<(f64, bool)>,
    /// Greatest number, and whether it is left out.
    pub maximum: Option<(f64, bool)>,
    /// What numbers are multiples of.
    pub multiple_of: Option<f64>,
    /// Lengths of texts in characters.
    pub length: Bounds,
    /// Numbers of elements.
    pub items_count: Bounds,
    /// Numbers of fields.
    pub properties_count: Bounds,
    /// Elements differ.
    pub unique_items: bool,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// All of these must hold.
    pub all_of: Vec<Schema>,
    /// One of these at least must hold.
    pub any_of: Vec<Schema>,
    /// Exactly one of these must hold.
    pub one_of: Vec<Schema>,
    /// This must not hold.
    pub not: Option<Box<Schema>>,
}

/// Least and greatest count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bounds {
    /// Least.
    pub min: Option<u64>,
    /// Greatest.
    pub max: Option<u64>,
}

/// Why a schema can't be compiled.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{path}: {message}")]
pub struct SchemaError {
    /// Where in the schema, such as `properties[spec].pattern`; empty at the root.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

impl SchemaError {
    fn below(self, outer: &str) -> SchemaError {
        let path = match (outer, self.path.as_str()) {
            (outer, "") => outer.to_owned(),
            (outer, inner) => format!("{outer}.{inner}"),
        };
        SchemaError { path, ..self }
    }
}

impl Schema {
    /// Compiles the schema of a whole object.
    ///
    /// # Errors
    /// [`SchemaError`].
    pub fn compile_root(source: &Value) -> Result<Schema, SchemaError> {
        let mut schema = Schema::compile(source, 0)?;
        schema.embedded = true;
        Ok(schema)
    }

    fn compile(source: &Value, depth: usize) -> Result<Schema, SchemaError> {
        if depth > DEPTH_MAX {
            return Err(SchemaError {
                path: String::new(),
                message: format!("nests deeper than {DEPTH_MAX}"),
            });
        }
        let flag = |name: &str| source[name] == Value::Bool(true);
        let each = |name: &str| -> Result<Vec<Schema>, SchemaError> {
            let all = list(source, &[name]).iter().enumerate();
            all.map(|(index, one)| {
                Schema::compile(one, depth + 1).map_err(|error| error.below(&format!("{name}[{index}]")))
            })
            .collect()
        };
        let inner = |name: &str| -> Result<Option<Box<Schema>>, SchemaError> {
            let found = source.get(name).filter(|found| found.is_object());
            found
                .map(|one| {
                    Schema::compile(one, depth + 1)
                        .map(Box::new)
                        .map_err(|error| error.below(name))
                })
                .transpose()
        };
        let mut properties = BTreeMap::new();
        for (name, one) in source["properties"].as_object().into_iter().flatten() {
            let compiled = Schema::compile(one, depth + 1)
                .map_err(|error| error.below(&format!("properties[{name}]")))?;
            properties.insert(name.clone(), compiled);
        }
        let additional = match source.get("additionalProperties") {
            Some(Value::Bool(true)) => Some(Box::new(Schema {
                preserve_unknown: true,
                ..Schema::default()
            })),
            _ => inner("additionalProperties")?,
        };
        let mut schema = Schema {
            kind: JsonType::parse(text(source, &["type"])),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            default: source.get("default").filter(|value| !value.is_null()).cloned(),
            properties,
            additional,
            items: inner("items")?,
            list_kind: list_kind(source),
            atomic_map: text(source, &["x-kubernetes-map-type"]) == "atomic",
            all_of: each("allOf")?,
            any_of: each("anyOf")?,
            one_of: each("oneOf")?,
            not: inner("not")?,
            unique_items: flag("uniqueItems"),
            ..Schema::default()
        };
        schema.compile_checks(source)?;
        schema.compile_rules(source)?;
        let below = || {
            let named = schema.properties.values();
            named
                .chain(schema.items.as_deref())
                .chain(schema.additional.as_deref())
        };
        let has_rules = !schema.rules.is_empty() || below().any(|one| one.has_rules);
        let has_defaults = below().any(|one| one.has_defaults || one.default.is_some());
        (schema.has_rules, schema.has_defaults) = (has_rules, has_defaults);
        Ok(schema)
    }

    fn compile_checks(&mut self, source: &Value) -> Result<(), SchemaError> {
        let number = |name: &str| source.get(name).and_then(Value::as_f64);
        let excluded = |name: &str| source[name] == Value::Bool(true);
        let bounds = |min: &str, max: &str| Bounds {
            min: source[min].as_u64(),
            max: source[max].as_u64(),
        };
        text(source, &["format"]).clone_into(&mut self.format);
        self.values = list(source, &["enum"]).to_vec();
        self.minimum = number("minimum").map(|bound| (bound, excluded("exclusiveMinimum")));
        self.maximum = number("maximum").map(|bound| (bound, excluded("exclusiveMaximum")));
        self.multiple_of = number("multipleOf");
        self.length = bounds("minLength", "maxLength");
        self.items_count = bounds("minItems", "maxItems");
        self.properties_count = bounds("minProperties", "maxProperties");
        self.required = list(source, &["required"])
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        self.pattern = match text(source, &["pattern"]) {
            "" => None,
            text => Some(Pattern {
                text: text.to_owned(),
                regex: compile_pattern(text).map_err(|message| SchemaError {
                    path: "pattern".to_owned(),
                    message,
                })?,
            }),
        };
        Ok(())
    }

    fn compile_rules(&mut self, source: &Value) -> Result<(), SchemaError> {
        for (index, rule) in list(source, &["x-kubernetes-validations"]).iter().enumerate() {
            let compiled = Rule::compile(rule, self).map_err(|RuleError { field, message }| SchemaError {
                path: format!("x-kubernetes-validations[{index}].{field}"),
                message,
            })?;
            self.rules.push(compiled);
        }
        Ok(())
    }

    /// The schema of a field: its own, or that of all other fields.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or(self.additional.as_deref())
    }
}

/// Compiles a pattern within limits of memory. Patterns match anywhere in a text, in time linear to it.
///
/// # Errors
/// What is wrong with the pattern.
pub(crate) fn compile_pattern(text: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(text)
        .size_limit(PATTERN_BYTES_MAX)
        .build()
        .map_err(|error| error.to_string())
}

fn list_kind(source: &Value) -> Option<ListKind> {
    let keys = list(source, &["x-kubernetes-list-map-keys"]).iter();
    match text(source, &["x-kubernetes-list-type"]) {
        "set" => Some(ListKind::Set),
        "map" => Some(ListKind::Map(
            keys.filter_map(Value::as_str).map(str::to_owned).collect(),
        )),
        "atomic" => Some(ListKind::Atomic),
        _ => None,
    }
}
