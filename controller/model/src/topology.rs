//! Topology segments: between Node labels, a class's `allowedTopologies`, CSI topologies and PV node affinity.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, TopologySelectorTerm, VolumeNodeAffinity,
};

use crate::label_selector::Labels;

/// One place: topology key to value, all of them together.
pub type Segments = BTreeMap<String, String>;

/// Whether a node with these labels is allowed by a class's `allowedTopologies`. No term allows every node; a term
/// without expressions allows none.
pub fn is_allowed(terms: &[TopologySelectorTerm], node_labels: &Labels) -> bool {
    terms.is_empty() || terms.iter().any(|term| term_allows(term, node_labels))
}

fn term_allows(term: &TopologySelectorTerm, node_labels: &Labels) -> bool {
    let expressions = term.match_label_expressions.as_deref().unwrap_or_default();
    let allows = |key: &String, values: &[String]| node_labels.get(key).is_some_and(|v| values.contains(v));
    !expressions.is_empty() && expressions.iter().all(|e| allows(&e.key, &e.values))
}

/// The places that `allowedTopologies` spell out: for each term, every combination of its values. Places named twice
/// appear once, order is that of the terms.
pub fn expand(terms: &[TopologySelectorTerm]) -> Vec<Segments> {
    let mut places: Vec<Segments> = Vec::new();
    for term in terms {
        let expressions = term.match_label_expressions.as_deref().unwrap_or_default();
        let mut combinations = vec![Segments::new()];
        for expression in expressions {
            combinations = combinations
                .iter()
                .flat_map(|place| {
                    expression.values.iter().map(|value| {
                        let mut place = place.clone();
                        place.insert(expression.key.clone(), value.clone());
                        place
                    })
                })
                .collect();
        }
        for place in combinations.into_iter().filter(|place| !place.is_empty()) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    places
}

/// The place of a node: the values of a driver's topology keys. `None` if the node lacks one of them.
pub fn segments_of_node<'a>(
    keys: impl IntoIterator<Item = &'a String>,
    node_labels: &Labels,
) -> Option<Segments> {
    keys.into_iter()
        .map(|key| node_labels.get(key).map(|value| (key.clone(), value.clone())))
        .collect()
}

/// The node affinity of a PV that is accessible from these places (CSI's `accessible_topology`). `None` for no
/// place: accessible from everywhere.
pub fn to_node_affinity(places: &[Segments]) -> Option<VolumeNodeAffinity> {
    let node_selector_terms: Vec<NodeSelectorTerm> = places
        .iter()
        .filter(|place| !place.is_empty())
        .map(to_term)
        .collect();
    if node_selector_terms.is_empty() {
        return None;
    }
    let required = NodeSelector { node_selector_terms };
    Some(VolumeNodeAffinity {
        required: Some(required),
    })
}

fn to_term(place: &Segments) -> NodeSelectorTerm {
    let expressions = place.iter().map(|(key, value)| NodeSelectorRequirement {
        key: key.clone(),
        operator: "In".to_string(),
        values: Some(vec![value.clone()]),
    });
    NodeSelectorTerm {
        match_expressions: Some(expressions.collect()),
        match_fields: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::node_affinity::{NodeFacts, matches};

    fn terms(value: Value) -> Vec<TopologySelectorTerm> {
        serde_json::from_value(value).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    }

    #[test]
    fn allowed_nodes() {
        let zone = json!({"matchLabelExpressions": [{"key": "zone", "values": ["a", "b"]}]});
        let both = json!({"matchLabelExpressions": [{"key": "zone", "values": ["c"]}, {"key": "rack", "values": ["1"]}]});
        let cases = [
            ("no term", json!([]), &[][..], true),
            ("empty term", json!([{}]), &[("zone", "a")][..], false),
            ("value listed", json!([zone]), &[("zone", "b")], true),
            ("value not listed", json!([zone]), &[("zone", "c")], false),
            ("label absent", json!([zone]), &[], false),
            (
                "second term",
                json!([zone, both]),
                &[("zone", "c"), ("rack", "1")],
                true,
            ),
            ("part of a term", json!([both]), &[("zone", "c")], false),
        ];
        for (name, value, node, expected) in cases {
            assert_eq!(is_allowed(&terms(value), &labels(node)), expected, "{name}");
        }
    }

    #[test]
    fn every_combination_is_a_place_once() {
        let value = json!([
            {"matchLabelExpressions": [{"key": "zone", "values": ["a", "b"]}, {"key": "rack", "values": ["1", "2"]}]},
            {"matchLabelExpressions": [{"key": "zone", "values": ["a"]}, {"key": "rack", "values": ["2"]}]},
            {},
        ]);
        let places = expand(&terms(value));
        let expected = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")];
        assert_eq!(
            places,
            expected.map(|(zone, rack)| labels(&[("zone", zone), ("rack", rack)]))
        );
    }

    #[test]
    fn a_node_without_one_of_the_keys_has_no_place() {
        let keys = ["zone".to_string(), "rack".to_string()];
        let whole = labels(&[("zone", "a"), ("rack", "1"), ("other", "x")]);
        assert_eq!(
            segments_of_node(&keys, &whole),
            Some(labels(&[("zone", "a"), ("rack", "1")]))
        );
        assert_eq!(segments_of_node(&keys, &labels(&[("zone", "a")])), None);
        assert_eq!(segments_of_node(&[], &whole), Some(Segments::new()));
    }

    #[test]
    fn affinity_selects_exactly_the_places() {
        let affinity = to_node_affinity(&[labels(&[("zone", "a"), ("rack", "1")]), labels(&[("zone", "b")])]);
        let required = affinity.and_then(|affinity| affinity.required).unwrap();
        let is_selected = |pairs: &[(&str, &str)]| {
            let labels = labels(pairs);
            let node = NodeFacts {
                name: "n",
                labels: &labels,
            };
            matches(&required, node).unwrap()
        };
        assert!(is_selected(&[("zone", "a"), ("rack", "1")]));
        assert!(!is_selected(&[("zone", "a")]));
        assert!(is_selected(&[("zone", "b"), ("rack", "9")]));
        assert_eq!(to_node_affinity(&[]), None);
        assert_eq!(to_node_affinity(&[Segments::new()]), None);
    }
}
