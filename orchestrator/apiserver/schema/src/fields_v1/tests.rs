//! The algebra's laws, and the wire form.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Element, Path, Set};

fn element() -> impl Strategy<Value = Element> {
    prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "spec"]).prop_map(Element::field),
        2 => (0u8..3).prop_map(|n| Element::key(vec![("name".into(), json!(n.to_string()))])),
        1 => prop::sample::select(vec![80, 443, 8080])
            .prop_map(|port| Element::key(vec![("port".into(), json!(port)), ("p".into(), json!("TCP"))])),
        1 => prop::sample::select(vec![json!("x<y"), json!(1), json!(2.5), json!(true)])
            .prop_map(|value| Element::Value(Box::new(value))),
        1 => (0i64..3).prop_map(Element::Index),
    ]
}

fn set() -> impl Strategy<Value = Set> {
    let path = prop::collection::vec(element(), 1..4).prop_map(Path);
    prop::collection::vec(path, 0..12).prop_map(Set::of)
}

proptest! {
    #[test]
    fn union_and_intersection_are_lattice_operations(a in set(), b in set(), c in set()) {
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
        prop_assert_eq!(a.intersection(&b).intersection(&c), a.intersection(&b.intersection(&c)));
        prop_assert_eq!(a.union(&a.intersection(&b)), a.clone());
        prop_assert_eq!(a.intersection(&a.union(&b)), a.clone());
        prop_assert_eq!(
            a.intersection(&b.union(&c)),
            a.intersection(&b).union(&a.intersection(&c))
        );
    }

    #[test]
    fn differences_take_away_and_nothing_else(a in set(), b in set()) {
        prop_assert!(a.difference(&a).is_empty());
        prop_assert!(a.difference(&b).intersection(&b).is_empty());
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert_eq!(a.difference(&Set::default()), a.clone());
        // What is below a path goes with it.
        let below = a.difference_below(&b);
        prop_assert_eq!(below.difference(&a), Set::default());
        for path in below.paths() {
            for length in 1..=path.0.len() {
                prop_assert!(!b.has(&Path(path.0[..length].to_vec())), "{}", path);
            }
        }
    }

    #[test]
    fn sets_are_their_paths(a in set(), b in set()) {
        prop_assert_eq!(Set::of(a.paths()), a.clone());
        prop_assert_eq!(a.paths().len(), a.len());
        for path in a.union(&b).paths() {
            prop_assert!(a.has(&path) || b.has(&path));
        }
    }

    #[test]
    fn the_wire_form_loses_nothing(a in set()) {
        let text = a.to_json();
        let value: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&Set::from_json(&value).unwrap(), &a);
        prop_assert_eq!(&a.to_value(), &value);
        let mut ordered = Vec::new();
        super::write_ordered(&mut ordered, &value);
        prop_assert_eq!(String::from_utf8(ordered).unwrap(), text);
    }
}

#[test]
fn wire_forms() {
    let ports = |port: i32| {
        let key = Element::key(vec![
            ("protocol".into(), json!("TCP")),
            ("containerPort".into(), json!(port)),
        ]);
        Path(vec![Element::field("ports"), key])
    };
    let cases = [
        ("nothing", Set::default(), "{}"),
        (
            "a field",
            Set::of([Path::fields(&["a", "b"])]),
            r#"{"f:a":{"f:b":{}}}"#,
        ),
        (
            "a field and what is below it",
            Set::of([Path::fields(&["a"]), Path::fields(&["a", "b"])]),
            r#"{"f:a":{".":{},"f:b":{}}}"#,
        ),
        (
            "keys by number, not by text",
            Set::of([ports(443), ports(80)]),
            r#"{"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{},"k:{\"containerPort\":443,\"protocol\":\"TCP\"}":{}}}"#,
        ),
        (
            "texts as in HTML",
            Set::of([Path(vec![Element::Value(Box::new(json!("a<b&\"c\"\n")))])]),
            r#"{"v:\"a\\u003cb\\u0026\\\"c\\\"\\n\"":{}}"#,
        ),
        (
            "fields, keys, values, places",
            Set::of([
                Path(vec![Element::Index(2)]),
                Path(vec![Element::Value(Box::new(json!(1)))]),
                Path(vec![Element::key(vec![("n".into(), json!("x"))])]),
                Path::fields(&["z"]),
            ]),
            r#"{"f:z":{},"k:{\"n\":\"x\"}":{},"v:1":{},"i:2":{}}"#,
        ),
    ];
    for (case, set, expected) in cases {
        assert_eq!(set.to_json(), expected, "{case}");
    }
}

#[test]
fn what_cannot_be_read() {
    let cases = [
        (json!([]), "expected an object"),
        (json!({"a": {}}), "expected a letter and a colon"),
        (json!({"k:{": {}}), "parsing key as path element"),
        (json!({"k:1": {}}), "expected an object of keys"),
        (json!({"i:x": {}}), "expected a number"),
        (json!({"f:a": 1}), "expected an object"),
    ];
    for (value, expected) in cases {
        let error = Set::from_json(&value).unwrap_err().to_string();
        assert!(error.contains(expected), "{value}: {error}");
    }
    // A kind of element that a later version may know.
    assert_eq!(
        Set::from_json(&json!({"x:new": {}, "f:a": {}})).unwrap(),
        Set::of([Path::fields(&["a"])])
    );
}

#[test]
fn paths_are_named_as_upstream_names_them() {
    let path = Path(vec![
        Element::field("spec"),
        Element::key(vec![("port".into(), json!(80)), ("name".into(), json!("a"))]),
        Element::Value(Box::new(json!("x"))),
        Element::Index(3),
    ]);
    assert_eq!(path.to_string(), r#".spec[name="a",port=80][="x"][3]"#);
}
