//! Selectors in the form of text, as `scale` and tables show them.

use serde_json::{Map, Value};

use crate::object::{list, map, text};

/// A `LabelSelector` object: its conditions by key. One that selects everything, or nothing, is empty.
#[must_use]
pub fn describe(selector: &Value) -> String {
    let equal = map(selector, &["matchLabels"]).into_iter().flatten();
    let mut terms: Vec<(&str, String)> = equal
        .map(|(key, value)| {
            (
                key.as_str(),
                format!("{key}={}", value.as_str().unwrap_or_default()),
            )
        })
        .collect();
    for expression in list(selector, &["matchExpressions"]) {
        let key = text(expression, &["key"]);
        let mut values: Vec<&str> = list(expression, &["values"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        let term = match text(expression, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => continue,
        };
        terms.push((key, term));
    }
    terms.sort_by_key(|(key, _)| *key);
    let terms: Vec<String> = terms.into_iter().map(|(_, term)| term).collect();
    terms.join(",")
}

/// A selector that is a map of labels.
#[must_use]
pub fn describe_labels(labels: &Map<String, Value>) -> String {
    let terms: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    terms.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::selector::LabelSelector;

    #[test]
    fn selectors_are_told_by_key_and_can_be_read_again() {
        let cases = [
            ("nothing", json!(null), ""),
            ("everything", json!({}), ""),
            ("labels", json!({"matchLabels": {"b": "2", "a": "1"}}), "a=1,b=2"),
            (
                "expressions",
                json!({"matchLabels": {"m": "1"}, "matchExpressions": [
                    {"key": "z", "operator": "In", "values": ["y", "x"]},
                    {"key": "a", "operator": "NotIn", "values": ["x"]},
                    {"key": "e", "operator": "Exists"},
                    {"key": "n", "operator": "DoesNotExist"},
                ]}),
                "a notin (x),e,m=1,!n,z in (x,y)",
            ),
        ];
        for (case, selector, expected) in cases {
            let told = describe(&selector);
            assert_eq!(told, expected, "{case}");
            assert!(LabelSelector::parse(&told).is_ok(), "{case}");
        }
        assert_eq!(
            describe_labels(json!({"b": "2", "a": "1"}).as_object().unwrap()),
            "a=1,b=2"
        );
    }
}
