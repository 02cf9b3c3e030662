//! A container's environment variables. Pure: the ConfigMaps and Secrets are given.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

use super::expansion::expand;
use super::fields::{NodeFacts, field_value, resource_value};

/// Names an object of the pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    ConfigMap(String),
    Secret(String),
}

/// Entries of the objects a container's environment refers to; none for one that isn't there.
pub(crate) type Objects = BTreeMap<Source, Option<BTreeMap<String, Vec<u8>>>>;

/// A container can't be made as it stands; retried, since the object may come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EnvError(pub String);

/// The objects that have to be read before [`build`].
pub(crate) fn sources(container: &Container) -> BTreeSet<Source> {
    let mut found = BTreeSet::new();
    for from in container.env_from.iter().flatten() {
        found.extend(
            from.config_map_ref
                .iter()
                .map(|reference| Source::ConfigMap(reference.name.clone())),
        );
        found.extend(
            from.secret_ref
                .iter()
                .map(|reference| Source::Secret(reference.name.clone())),
        );
    }
    for from in container
        .env
        .iter()
        .flatten()
        .filter_map(|variable| variable.value_from.as_ref())
    {
        found.extend(
            from.config_map_key_ref
                .iter()
                .map(|reference| Source::ConfigMap(reference.name.clone())),
        );
        found.extend(
            from.secret_key_ref
                .iter()
                .map(|reference| Source::Secret(reference.name.clone())),
        );
    }
    found
}

/// All variables in order; a later one of the same name wins.
pub(crate) fn build(
    pod: &Pod,
    container: &Container,
    objects: &Objects,
    node: NodeFacts<'_>,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: String, value: String, values: &mut BTreeMap<String, String>| {
        variables.retain(|(held, _)| *held != name);
        variables.push((name.clone(), value.clone()));
        values.insert(name, value);
    };
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let (source, optional) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(reference), _) => (Source::ConfigMap(reference.name.clone()), reference.optional),
            (None, Some(reference)) => (Source::Secret(reference.name.clone()), reference.optional),
            (None, None) => continue,
        };
        match entries(objects, &source) {
            Some(entries) => {
                for (key, value) in entries {
                    set(
                        format!("{prefix}{key}"),
                        String::from_utf8_lossy(value).into_owned(),
                        &mut values,
                    );
                }
            }
            None if optional == Some(true) => {}
            None => return Err(not_found(&source)),
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), &values)),
            Some(from) => value_from(pod, container, from, objects, node)?,
        };
        if let Some(value) = value {
            set(variable.name.clone(), value, &mut values);
        }
    }
    Ok(variables)
}

fn entries<'a>(objects: &'a Objects, source: &Source) -> Option<&'a BTreeMap<String, Vec<u8>>> {
    objects.get(source).and_then(Option::as_ref)
}

fn not_found(source: &Source) -> EnvError {
    EnvError(match source {
        Source::ConfigMap(name) => format!("configmap {name:?} not found"),
        Source::Secret(name) => format!("secret {name:?} not found"),
    })
}

fn value_from(
    pod: &Pod,
    container: &Container,
    from: &EnvVarSource,
    objects: &Objects,
    node: NodeFacts<'_>,
) -> Result<Option<String>, EnvError> {
    if let Some(field) = &from.field_ref {
        let value = field_value(pod, &field.field_path, node);
        return value
            .map(Some)
            .ok_or_else(|| EnvError(format!("unsupported fieldPath: {}", field.field_path)));
    }
    if let Some(resource) = &from.resource_field_ref {
        return resource_value(pod, Some(container), resource, node)
            .map(Some)
            .map_err(EnvError);
    }
    let (source, key, optional, kind) = if let Some(reference) = &from.config_map_key_ref {
        (
            Source::ConfigMap(reference.name.clone()),
            &reference.key,
            reference.optional,
            "ConfigMap",
        )
    } else if let Some(reference) = &from.secret_key_ref {
        (
            Source::Secret(reference.name.clone()),
            &reference.key,
            reference.optional,
            "Secret",
        )
    } else {
        return Err(EnvError("valueFrom names no source that is supported".into()));
    };
    let is_optional = optional == Some(true);
    match entries(objects, &source).map(|entries| entries.get(key)) {
        Some(Some(value)) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        Some(None) | None if is_optional => Ok(None),
        None => Err(not_found(&source)),
        Some(None) => {
            let (Source::ConfigMap(name) | Source::Secret(name)) = &source;
            Err(EnvError(format!(
                "couldn't find key {key} in {kind} {}/{name}",
                super::namespace(pod)
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn built(container: Value) -> Result<Vec<(String, String)>, String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}})).unwrap();
        let container: Container = serde_json::from_value(container).unwrap();
        let data = BTreeMap::from([("K".to_owned(), b"v".to_vec()), ("L".to_owned(), b"w".to_vec())]);
        let objects = Objects::from([
            (Source::ConfigMap("cm".into()), Some(data)),
            (Source::ConfigMap("gone".into()), None),
            (Source::Secret("gone".into()), None),
        ]);
        let allocatable = BTreeMap::new();
        let node = NodeFacts {
            node_ip: "10.0.0.1".parse().unwrap(),
            allocatable: &allocatable,
        };
        build(&pod, &container, &objects, node).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_come_from_everywhere() {
        let key = |name: &str, key: &str, optional: bool| {
            json!({"name": "c", "env": [{"name": "X",
            "valueFrom": {"configMapKeyRef": {"name": name, "key": key, "optional": optional}}}]})
        };
        type Case<'a> = (&'a str, Value, Result<Vec<(&'a str, &'a str)>, &'a str>);
        let cases: Vec<Case<'_>> = vec![
            ("none", json!({"name": "c"}), Ok(vec![])),
            (
                "values refer to earlier ones",
                json!({"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)"}]}),
                Ok(vec![("A", "1"), ("B", "1$(C)")]),
            ),
            (
                "all keys with a prefix",
                json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}]}),
                Ok(vec![("P_K", "v"), ("P_L", "w")]),
            ),
            (
                "env wins over envFrom",
                json!({"name": "c", "envFrom": [{"configMapRef": {"name": "cm"}}], "env": [{"name": "K", "value": "x"}]}),
                Ok(vec![("L", "w"), ("K", "x")]),
            ),
            ("one key", key("cm", "K", false), Ok(vec![("X", "v")])),
            (
                "missing key",
                key("cm", "Z", false),
                Err("couldn't find key Z in ConfigMap ns/cm"),
            ),
            ("missing optional key", key("cm", "Z", true), Ok(vec![])),
            (
                "missing object",
                key("gone", "K", false),
                Err("configmap \"gone\" not found"),
            ),
            ("missing optional object", key("gone", "K", true), Ok(vec![])),
            (
                "missing secret for all keys",
                json!({"name": "c", "envFrom": [{"secretRef": {"name": "gone"}}]}),
                Err("secret \"gone\" not found"),
            ),
            (
                "field",
                json!({"name": "c", "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
                Ok(vec![("X", "p")]),
            ),
            (
                "unknown field",
                json!({"name": "c", "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}),
                Err("unsupported fieldPath: spec.x"),
            ),
        ];
        for (name, container, want) in cases {
            let want = want
                .map(|list| {
                    list.into_iter()
                        .map(|(k, v)| (k.to_owned(), v.to_owned()))
                        .collect::<Vec<_>>()
                })
                .map_err(str::to_owned);
            assert_eq!(built(container), want, "{name}");
        }
    }
}
