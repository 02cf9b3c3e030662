//! Label selectors as claims and capacity objects carry them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use thiserror::Error;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A selector that means nothing. The API server refuses most of these, so seeing one is rare.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SelectorError {
    /// The operator is none of those known at this place.
    #[error("unknown operator {operator:?} for key {key:?}")]
    UnknownOperator {
        /// The key of the requirement.
        key: String,
        /// What stands there.
        operator: String,
    },
    /// The number of values doesn't suit the operator.
    #[error("operator {operator} for key {key:?} can't have {count} values")]
    WrongValueCount {
        /// The key of the requirement.
        key: String,
        /// The operator.
        operator: String,
        /// How many values there are.
        count: usize,
    },
    /// `Gt` and `Lt` compare whole numbers.
    #[error("operator {operator} for key {key:?} needs a whole number, not {value:?}")]
    NotANumber {
        /// The key of the requirement.
        key: String,
        /// The operator.
        operator: String,
        /// The value that is no number.
        value: String,
    },
    /// Nodes can only be selected by this field's name.
    #[error("field {field:?} can't select nodes")]
    UnknownField {
        /// The field named.
        field: String,
    },
}

/// How one key's value is tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

impl Test {
    /// The test that operator and values describe; `Gt` and `Lt` only exist where `has_order`.
    pub(crate) fn parse(
        key: &str,
        operator: &str,
        values: &[String],
        has_order: bool,
    ) -> Result<Self, SelectorError> {
        let wrong_count = || SelectorError::WrongValueCount {
            key: key.to_string(),
            operator: operator.to_string(),
            count: values.len(),
        };
        match (operator, values) {
            ("In", [_, ..]) => Ok(Test::In(values.to_vec())),
            ("NotIn", [_, ..]) => Ok(Test::NotIn(values.to_vec())),
            ("Exists", []) => Ok(Test::Exists),
            ("DoesNotExist", []) => Ok(Test::DoesNotExist),
            ("Gt", [value]) if has_order => parse_number(key, operator, value).map(Test::GreaterThan),
            ("Lt", [value]) if has_order => parse_number(key, operator, value).map(Test::LessThan),
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => Err(wrong_count()),
            ("Gt" | "Lt", _) if has_order => Err(wrong_count()),
            (_, _) => Err(SelectorError::UnknownOperator {
                key: key.to_string(),
                operator: operator.to_string(),
            }),
        }
    }

    /// Whether a key with this value (`None`: without) passes.
    pub(crate) fn passes(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Test::In(values), Some(value)) => values.iter().any(|v| v == value),
            (Test::NotIn(values), Some(value)) => values.iter().all(|v| v != value),
            (Test::Exists, Some(_)) | (Test::NotIn(_) | Test::DoesNotExist, None) => true,
            (Test::GreaterThan(bound), Some(value)) => value.parse::<i64>().is_ok_and(|v| v > *bound),
            (Test::LessThan(bound), Some(value)) => value.parse::<i64>().is_ok_and(|v| v < *bound),
            (Test::In(_) | Test::Exists | Test::GreaterThan(_) | Test::LessThan(_), None)
            | (Test::DoesNotExist, Some(_)) => false,
        }
    }
}

fn parse_number(key: &str, operator: &str, value: &str) -> Result<i64, SelectorError> {
    value.parse().map_err(|_| SelectorError::NotANumber {
        key: key.to_string(),
        operator: operator.to_string(),
        value: value.to_string(),
    })
}

/// A label selector, checked. All requirements must hold; without any, everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    tests: Vec<(String, Test)>,
}

impl Selector {
    /// Checks a selector of the API.
    ///
    /// # Errors
    /// Final: it is malformed.
    pub fn parse(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let equalities = selector
            .match_labels
            .iter()
            .flatten()
            .map(|(key, value)| Ok((key.clone(), Test::In(vec![value.clone()]))));
        let expressions = selector.match_expressions.iter().flatten().map(|expression| {
            let values = expression.values.as_deref().unwrap_or_default();
            let test = Test::parse(&expression.key, &expression.operator, values, false)?;
            Ok((expression.key.clone(), test))
        });
        let tests = equalities.chain(expressions).collect::<Result<_, _>>()?;
        Ok(Self { tests })
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: Option<&Labels>) -> bool {
        self.tests.iter().all(|(key, test)| {
            let value = labels.and_then(|labels| labels.get(key));
            test.passes(value.map(String::as_str))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selector(value: serde_json::Value) -> Result<Selector, SelectorError> {
        Selector::parse(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn matching() {
        let labels: Labels = [
            ("a".to_string(), "1".to_string()),
            ("b".to_string(), String::new()),
        ]
        .into();
        let cases = [
            ("nothing asked", json!({}), true, true),
            ("label equal", json!({"matchLabels": {"a": "1"}}), true, false),
            ("label other", json!({"matchLabels": {"a": "2"}}), false, false),
            (
                "label empty value",
                json!({"matchLabels": {"b": ""}}),
                true,
                false,
            ),
            (
                "in",
                json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["0", "1"]}]}),
                true,
                false,
            ),
            (
                "not in",
                json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}),
                false,
                true,
            ),
            (
                "exists",
                json!({"matchExpressions": [{"key": "b", "operator": "Exists"}]}),
                true,
                false,
            ),
            (
                "absent",
                json!({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}),
                false,
                true,
            ),
            (
                "all must hold",
                json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]}),
                false,
                false,
            ),
        ];
        for (name, value, labelled, bare) in cases {
            let selector = selector(value).unwrap();
            assert_eq!(selector.matches(Some(&labels)), labelled, "{name}");
            assert_eq!(selector.matches(None), bare, "{name}, without labels");
        }
    }

    #[test]
    fn malformed_selectors() {
        let one = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "k", "operator": operator, "values": values}]});
        for value in [
            one("In", &[]),
            one("NotIn", &[]),
            one("Exists", &["x"]),
            one("DoesNotExist", &["x"]),
            one("Gt", &["1"]),
            one("in", &["x"]),
        ] {
            assert!(selector(value.clone()).is_err(), "{value}");
        }
    }
}
