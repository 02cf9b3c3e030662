//! Printer columns of a custom resource.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::jsonpath::Path;
use crate::object::text;
use crate::table::{age_of, name_column};

/// A column as the definition states it.
#[derive(Clone, Debug)]
pub struct PrinterColumn {
    name: String,
    kind: String,
    format: String,
    priority: i64,
    description: String,
    /// Nothing for a path that can't be understood: its cells stay empty.
    path: Option<Path>,
}

/// Reads `additionalPrinterColumns`; without any there is the age.
pub(super) fn read(columns: &[Value]) -> Vec<PrinterColumn> {
    if columns.is_empty() {
        let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
            "description": "How long ago the object was created."});
        return vec![column(&age)];
    }
    columns.iter().map(column).collect()
}

fn column(column: &Value) -> PrinterColumn {
    let stated = |field: &str| text(column, &[field]).to_owned();
    PrinterColumn {
        name: stated("name"),
        kind: stated("type"),
        format: stated("format"),
        priority: column["priority"].as_i64().unwrap_or(0),
        description: stated("description"),
        path: Path::parse(text(column, &["jsonPath"])).ok(),
    }
}

/// The `columnDefinitions` of a table.
#[must_use]
pub fn definitions(columns: &[PrinterColumn]) -> Vec<Value> {
    let own = columns.iter().map(|column| {
        json!({
            "name": column.name, "type": column.kind, "format": column.format, "priority": column.priority,
            "description": column.description,
        })
    });
    std::iter::once(name_column()).chain(own).collect()
}

/// The cells of an object's row.
#[must_use]
pub fn row(columns: &[PrinterColumn], object: &Value, now: Timestamp) -> Vec<Value> {
    let own = columns.iter().map(|column| {
        let found = column
            .path
            .as_ref()
            .and_then(|path| path.find(object).into_iter().next());
        found.map_or(Value::Null, |value| cell(&column.kind, value, now))
    });
    std::iter::once(text(object, &["metadata", "name"]).into())
        .chain(own)
        .collect()
}

fn cell(kind: &str, value: &Value, now: Timestamp) -> Value {
    match (kind, value) {
        ("string", Value::String(text)) => text.as_str().into(),
        ("string", Value::Null) => "<nil>".into(),
        ("string", other) => other.to_string().into(),
        ("integer", Value::Number(number)) if number.is_i64() => value.clone(),
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        // Go cuts off what is behind the point.
        ("integer", Value::Number(number)) => number.as_f64().map_or(Value::Null, |number| {
            format!("{:.0}", number.trunc())
                .parse::<i64>()
                .map_or(Value::Null, Value::from)
        }),
        ("date", Value::String(text)) if crate::time::parse(text).is_some() => age_of(text, now).into(),
        ("date", Value::String(_)) => "<invalid>".into(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_the_type_of_their_column() {
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"count": 3, "ratio": 1.5, "on": true, "text": "t", "tags": ["a", "b"], "when": "no time"}});
        let now: Timestamp = "2026-01-01T00:05:00Z".parse().unwrap();
        let cases = [
            ("integer", ".spec.count", json!(3)),
            ("integer", ".spec.ratio", json!(1)),
            ("integer", ".spec.text", Value::Null),
            ("number", ".spec.ratio", json!(1.5)),
            ("boolean", ".spec.on", json!(true)),
            ("string", ".spec.text", json!("t")),
            ("string", ".spec.count", json!("3")),
            ("string", ".spec.tags", json!("[\"a\",\"b\"]")),
            ("string", ".spec.missing", Value::Null),
            ("date", ".metadata.creationTimestamp", json!("5m")),
            ("date", ".spec.when", json!("<invalid>")),
        ];
        for (kind, path, expected) in cases {
            let columns = read(&[json!({"name": "X", "type": kind, "jsonPath": path})]);
            assert_eq!(
                row(&columns, &object, now),
                [json!("a"), expected],
                "{kind} {path}"
            );
        }
        let default = read(&[]);
        assert_eq!(row(&default, &object, now), [json!("a"), json!("5m")]);
        let names: Vec<Value> = definitions(&default)
            .iter()
            .map(|one| one["name"].clone())
            .collect();
        assert_eq!(names, ["Name", "Age"]);
    }
}
