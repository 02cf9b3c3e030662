//! ReferenceGrants: the owner of a namespace allows claims of another one to be filled from what is there. Pure.

use serde::Deserialize;

use super::source::SourceKey;

/// API version and kind.
pub(crate) const GROUP: &str = "gateway.networking.k8s.io";
/// As upstream's provisioner reads them.
pub(crate) const VERSION: &str = "v1beta1";
/// The kind.
pub(crate) const KIND: &str = "ReferenceGrant";

/// The `spec` of a grant: whoever is in `from` may refer to what is in `to`, in the grant's own namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GrantSpec {
    from: Vec<From>,
    to: Vec<To>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct From {
    group: String,
    kind: String,
    namespace: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct To {
    group: String,
    kind: String,
    /// All of the kind without one.
    name: Option<String>,
}

/// Whether one of the grants of the source's namespace lets claims of `claim_namespace` use it.
pub(crate) fn is_granted(grants: &[GrantSpec], claim_namespace: &str, source: &SourceKey) -> bool {
    let is_from = |from: &From| {
        from.group.is_empty() && from.kind == "PersistentVolumeClaim" && from.namespace == claim_namespace
    };
    let is_to = |to: &To| {
        let name = to.name.as_deref().unwrap_or_default();
        to.group == source.kind.group()
            && to.kind == source.kind.as_str()
            && (name.is_empty() || name == source.name)
    };
    grants
        .iter()
        .any(|grant| grant.from.iter().any(is_from) && grant.to.iter().any(is_to))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::source::SourceKind;
    use super::*;
    use crate::testing::object;

    #[test]
    fn who_may_use_what() {
        let claims =
            |namespace: &str| json!({"group": "", "kind": "PersistentVolumeClaim", "namespace": namespace});
        let snapshots =
            |name: Value| json!({"group": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": name});
        let pods = json!({"group": "", "kind": "Pod", "namespace": "ns"});
        let grant = |from: Value, to: Value| object::<GrantSpec>(json!({"from": [from], "to": [to]}));
        let source = SourceKey {
            kind: SourceKind::Snapshot,
            namespace: "other".into(),
            name: "s".into(),
        };
        let cases = [
            ("none", vec![], false),
            (
                "all snapshots",
                vec![grant(claims("ns"), snapshots(json!(null)))],
                true,
            ),
            (
                "an empty name is all",
                vec![grant(claims("ns"), snapshots(json!("")))],
                true,
            ),
            ("this one", vec![grant(claims("ns"), snapshots(json!("s")))], true),
            (
                "another one",
                vec![grant(claims("ns"), snapshots(json!("t")))],
                false,
            ),
            (
                "to another namespace",
                vec![grant(claims("x"), snapshots(json!(null)))],
                false,
            ),
            ("to pods", vec![grant(pods, snapshots(json!(null)))], false),
            (
                "of claims",
                vec![grant(
                    claims("ns"),
                    json!({"group": "", "kind": "PersistentVolumeClaim"}),
                )],
                false,
            ),
            (
                "halves of two make no whole",
                vec![
                    grant(claims("x"), snapshots(json!(null))),
                    grant(claims("ns"), snapshots(json!("t"))),
                ],
                false,
            ),
            (
                "one of several",
                vec![
                    grant(claims("x"), snapshots(json!("t"))),
                    grant(claims("ns"), snapshots(json!("s"))),
                ],
                true,
            ),
        ];
        for (name, grants, expected) in cases {
            assert_eq!(is_granted(&grants, "ns", &source), expected, "{name}");
        }
    }
}
