//! Which files a configMap, secret, downwardAPI or projected volume consists of. Pure: the objects are given.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use super::atomic_writer::{File, Payload};
use super::error::VolumeError;
use crate::pods::fields::{NodeFacts, field_value, resource_value};

/// Mode of files when nobody says otherwise.
pub(crate) const DEFAULT_MODE: i32 = 0o644;

/// What a key-value object holds, with what it is called in messages.
#[derive(Debug)]
pub(crate) struct Keys {
    pub what: &'static str,
    pub namespace: String,
    pub name: String,
    /// None when the object isn't there.
    pub data: Option<BTreeMap<String, Vec<u8>>>,
    pub is_optional: bool,
}

/// All entries of a ConfigMap.
pub(crate) fn of_config_map(object: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = object
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = object
        .binary_data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()));
    text.chain(binary).collect()
}

/// All entries of a Secret.
pub(crate) fn of_secret(object: &Secret) -> BTreeMap<String, Vec<u8>> {
    object
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect()
}

fn mode(item: Option<i32>, default: i32) -> u32 {
    u32::try_from(item.unwrap_or(default)).unwrap_or(0) & 0o777
}

/// The files of a ConfigMap or Secret: all keys, or those that `items` name.
pub(crate) fn project(
    keys: Keys,
    items: Option<&[KeyToPath]>,
    default_mode: i32,
) -> Result<Payload, VolumeError> {
    let Some(data) = keys.data else {
        if keys.is_optional {
            return Ok(Payload::new());
        }
        return Err(VolumeError::Missing(format!(
            "{} {:?} not found",
            keys.what, keys.name
        )));
    };
    let file = |content: &Vec<u8>, mode| File {
        content: content.clone(),
        mode,
        owner: None,
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data
            .iter()
            .map(|(key, value)| (key.clone(), file(value, mode(None, default_mode))))
            .collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(&item.key) {
            Some(value) => {
                payload.insert(item.path.clone(), file(value, mode(item.mode, default_mode)));
            }
            None if keys.is_optional => {}
            None => {
                return Err(VolumeError::Missing(format!(
                    "references non-existent {} key: {} in {}/{}",
                    keys.what, item.key, keys.namespace, keys.name
                )));
            }
        }
    }
    Ok(payload)
}

/// The files of a downwardAPI source.
pub(crate) fn downward(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: i32,
    node: NodeFacts<'_>,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    for item in items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => field_value(pod, &field.field_path, node).ok_or_else(|| {
                VolumeError::Refused(format!("unsupported fieldPath: {}", field.field_path))
            })?,
            (None, Some(resource)) => {
                resource_value(pod, None, resource, node).map_err(VolumeError::Refused)?
            }
            (None, None) => {
                return Err(VolumeError::Refused(format!(
                    "downwardAPI item {:?} names no field",
                    item.path
                )));
            }
        };
        let file = File {
            content: value.into_bytes(),
            mode: mode(item.mode, default_mode),
            owner: None,
        };
        payload.insert(item.path.clone(), file);
    }
    Ok(payload)
}

/// Mode and owner of a token file: private to whoever is known to read it.
pub(crate) fn token_file(pod: &Pod, token: &str, default_mode: i32) -> File {
    let spec = pod.spec.as_ref();
    let security = spec.and_then(|spec| spec.security_context.as_ref());
    let has_group = security.is_some_and(|security| security.fs_group.is_some());
    let pod_user = security.and_then(|security| security.run_as_user);
    let containers = super::spec::all_containers(pod);
    let mut users = containers.iter().map(|container| {
        container
            .security_context
            .as_ref()
            .and_then(|security| security.run_as_user)
            .or(pod_user)
    });
    let first = users.next().flatten();
    let common = first.filter(|first| users.all(|user| user == Some(*first)));
    let owner = common
        .and_then(|user| u32::try_from(user).ok())
        .filter(|_| !has_group);
    let mode = if has_group || owner.is_some() {
        0o600
    } else {
        mode(None, default_mode)
    };
    File {
        content: token.as_bytes().to_vec(),
        mode,
        owner,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(data: Option<&[(&str, &str)]>, is_optional: bool) -> Keys {
        let data = data.map(|data| {
            data.iter()
                .map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec()))
                .collect()
        });
        Keys {
            what: "configmap",
            namespace: "ns".into(),
            name: "cm".into(),
            data,
            is_optional,
        }
    }

    fn item(key: &str, path: &str, mode: Option<i32>) -> KeyToPath {
        KeyToPath {
            key: key.into(),
            path: path.into(),
            mode,
        }
    }

    #[test]
    fn keys_become_files() {
        let two: &[(&str, &str)] = &[("a", "1"), ("b", "2")];
        let cases = [
            (
                "all keys",
                keys(Some(two), false),
                vec![],
                Ok(vec![("a", 0o644), ("b", 0o644)]),
            ),
            (
                "chosen",
                keys(Some(two), false),
                vec![item("a", "x/y", Some(0o400))],
                Ok(vec![("x/y", 0o400)]),
            ),
            (
                "missing key",
                keys(Some(two), false),
                vec![item("z", "z", None)],
                Err("references non-existent configmap key: z in ns/cm"),
            ),
            (
                "missing optional key",
                keys(Some(two), true),
                vec![item("z", "z", None)],
                Ok(vec![]),
            ),
            (
                "missing object",
                keys(None, false),
                vec![],
                Err("configmap \"cm\" not found"),
            ),
            (
                "missing optional object",
                keys(None, true),
                vec![item("z", "z", None)],
                Ok(vec![]),
            ),
        ];
        for (name, keys, items, want) in cases {
            let got = project(keys, Some(&items), DEFAULT_MODE);
            let got = got.map(|payload| {
                payload
                    .into_iter()
                    .map(|(path, file)| (path, file.mode))
                    .collect::<Vec<_>>()
            });
            let want = want
                .map(|files| {
                    files
                        .into_iter()
                        .map(|(path, mode)| (path.to_owned(), mode))
                        .collect::<Vec<_>>()
                })
                .map_err(str::to_owned);
            assert_eq!(got.map_err(|error| error.to_string()), want, "{name}");
        }
    }

    #[test]
    fn token_is_readable_to_its_user_only() {
        let pod = |security: serde_json::Value, users: &[Option<i64>]| -> Pod {
            let containers: Vec<_> = users
                .iter()
                .map(|user| json!({"name": "c", "securityContext": {"runAsUser": user}}))
                .collect();
            serde_json::from_value(json!({"spec": {"securityContext": security, "containers": containers}}))
                .unwrap()
        };
        let cases = [
            ("nobody known", pod(json!({}), &[None]), (0o644, None)),
            ("one user", pod(json!({}), &[Some(7), Some(7)]), (0o600, Some(7))),
            ("two users", pod(json!({}), &[Some(7), Some(8)]), (0o644, None)),
            (
                "user of the pod",
                pod(json!({"runAsUser": 5}), &[None, None]),
                (0o600, Some(5)),
            ),
            (
                "group",
                pod(json!({"fsGroup": 9, "runAsUser": 5}), &[None]),
                (0o600, None),
            ),
        ];
        for (name, pod, want) in cases {
            let file = token_file(&pod, "t", DEFAULT_MODE);
            assert_eq!((file.mode, file.owner), want, "{name}");
        }
    }
}
