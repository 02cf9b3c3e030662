//! Node selectors, as PVs (`spec.nodeAffinity.required`) and pods (required node affinity) carry them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorTerm, PersistentVolume};

use crate::label_selector::{Labels, SelectorError, Test};

/// What of a node can be selected by.
#[derive(Clone, Copy, Debug)]
pub struct NodeFacts<'a> {
    /// The Node's name; empty if unknown, which no `matchFields` on the name selects.
    pub name: &'a str,
    /// The Node's labels.
    pub labels: &'a Labels,
}

static NO_LABELS: Labels = BTreeMap::new();

impl<'a> From<&'a Node> for NodeFacts<'a> {
    fn from(node: &'a Node) -> Self {
        Self {
            name: node.metadata.name.as_deref().unwrap_or_default(),
            labels: node.metadata.labels.as_ref().unwrap_or(&NO_LABELS),
        }
    }
}

/// Whether one of the terms selects the node. No term selects nothing, and neither does an empty term.
///
/// # Errors
/// Final: a term is malformed and no other selects the node.
pub fn matches(selector: &NodeSelector, node: NodeFacts<'_>) -> Result<bool, SelectorError> {
    let mut malformed = None;
    for term in &selector.node_selector_terms {
        match term_matches(term, node) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => malformed = malformed.or(Some(error)),
        }
    }
    malformed.map_or(Ok(false), Err)
}

/// Whether the PV may be used on the node. A PV without node affinity may be used everywhere.
///
/// # Errors
/// Final: the affinity is malformed.
pub fn pv_fits_node(pv: &PersistentVolume, node: NodeFacts<'_>) -> Result<bool, SelectorError> {
    let affinity = pv.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    match affinity.and_then(|affinity| affinity.required.as_ref()) {
        Some(required) => matches(required, node),
        None => Ok(true),
    }
}

/// Whether one term selects the node: all its requirements hold, and there is one.
///
/// # Errors
/// Final: a requirement is malformed.
pub fn term_matches(term: &NodeSelectorTerm, node: NodeFacts<'_>) -> Result<bool, SelectorError> {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let mut is_match = !(expressions.is_empty() && fields.is_empty());
    // No early return: a malformed requirement is an error wherever it stands.
    for requirement in expressions {
        let values = requirement.values.as_deref().unwrap_or_default();
        let test = Test::parse(&requirement.key, &requirement.operator, values, true)?;
        is_match &= test.passes(node.labels.get(&requirement.key).map(String::as_str));
    }
    for requirement in fields {
        if requirement.key != "metadata.name" {
            return Err(SelectorError::UnknownField {
                field: requirement.key.clone(),
            });
        }
        let values = requirement.values.as_deref().unwrap_or_default();
        is_match &= field_test(&requirement.operator, values)?.passes(Some(node.name));
    }
    Ok(is_match)
}

/// Fields know `In` and `NotIn` with exactly one value.
fn field_test(operator: &str, values: &[String]) -> Result<Test, SelectorError> {
    let key = "metadata.name";
    match (operator, values) {
        ("In" | "NotIn", [_]) => Test::parse(key, operator, values, false),
        ("In" | "NotIn", _) => Err(SelectorError::WrongValueCount {
            key: key.to_string(),
            operator: operator.to_string(),
            count: values.len(),
        }),
        (_, _) => Err(SelectorError::UnknownOperator {
            key: key.to_string(),
            operator: operator.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(terms: Value) -> Result<bool, SelectorError> {
        let labels: Labels = [("zone", "z1"), ("cores", "8"), ("odd", "eight")]
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .into();
        let selector: NodeSelector = serde_json::from_value(json!({"nodeSelectorTerms": terms})).unwrap();
        let node = NodeFacts {
            name: "n1",
            labels: &labels,
        };
        matches(&selector, node)
    }

    fn one(key: &str, operator: &str, values: &[&str]) -> Value {
        json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
    }

    fn field(key: &str, operator: &str, values: &[&str]) -> Value {
        json!({"matchFields": [{"key": key, "operator": operator, "values": values}]})
    }

    #[test]
    fn selection() {
        let cases = [
            ("no term", json!([]), false),
            ("empty term", json!([{}]), false),
            ("in", json!([one("zone", "In", &["z0", "z1"])]), true),
            ("in other", json!([one("zone", "In", &["z0"])]), false),
            ("in absent", json!([one("disk", "In", &["x"])]), false),
            ("not in", json!([one("zone", "NotIn", &["z0"])]), true),
            ("not in same", json!([one("zone", "NotIn", &["z1"])]), false),
            ("not in absent", json!([one("disk", "NotIn", &["x"])]), true),
            ("exists", json!([one("zone", "Exists", &[])]), true),
            ("exists absent", json!([one("disk", "Exists", &[])]), false),
            ("does not exist", json!([one("zone", "DoesNotExist", &[])]), false),
            (
                "does not exist absent",
                json!([one("disk", "DoesNotExist", &[])]),
                true,
            ),
            ("gt", json!([one("cores", "Gt", &["7"])]), true),
            ("gt equal", json!([one("cores", "Gt", &["8"])]), false),
            ("gt absent", json!([one("disk", "Gt", &["0"])]), false),
            ("gt of a word", json!([one("odd", "Gt", &["0"])]), false),
            ("lt", json!([one("cores", "Lt", &["9"])]), true),
            ("lt equal", json!([one("cores", "Lt", &["8"])]), false),
            ("name", json!([field("metadata.name", "In", &["n1"])]), true),
            (
                "other name",
                json!([field("metadata.name", "In", &["n2"])]),
                false,
            ),
            (
                "not name",
                json!([field("metadata.name", "NotIn", &["n2"])]),
                true,
            ),
            (
                "second term",
                json!([one("zone", "In", &["z0"]), one("zone", "In", &["z1"])]),
                true,
            ),
            (
                "malformed beside a match",
                json!([one("zone", "Maybe", &[]), one("zone", "In", &["z1"])]),
                true,
            ),
            (
                "all of a term",
                json!([{"matchExpressions": [{"key": "zone", "operator": "Exists"}], "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]),
                false,
            ),
        ];
        for (name, terms, expected) in cases {
            assert_eq!(check(terms), Ok(expected), "{name}");
        }
    }

    #[test]
    fn malformed_terms() {
        let cases = [
            one("zone", "In", &[]),
            one("zone", "Exists", &["z1"]),
            one("zone", "Maybe", &["z1"]),
            one("cores", "Gt", &["many"]),
            one("cores", "Gt", &["1", "2"]),
            field("metadata.uid", "In", &["x"]),
            field("metadata.name", "In", &["n1", "n2"]),
            field("metadata.name", "Exists", &[]),
        ];
        for term in cases {
            assert!(check(json!([term])).is_err(), "{term}");
        }
    }

    #[test]
    fn pv_without_affinity_fits_everywhere_and_with_an_empty_one_nowhere() {
        let node = Node::default();
        let fits = |spec: Value| {
            let pv: PersistentVolume = serde_json::from_value(json!({"spec": spec})).unwrap();
            pv_fits_node(&pv, NodeFacts::from(&node)).unwrap()
        };
        assert!(fits(json!({})));
        assert!(fits(json!({"nodeAffinity": {}})));
        assert!(!fits(
            json!({"nodeAffinity": {"required": {"nodeSelectorTerms": []}}})
        ));
    }
}
