//! What a StorageClass's parameters mean: those for the sidecar are taken out, the rest goes to the driver. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::SecretReference;

use crate::secrets::{TemplateError, Tokens, resolve};

/// All parameters below it belong to the sidecars; drivers never see them.
const PREFIX: &str = "csi.storage.k8s.io/";
const FS_TYPE: &str = "csi.storage.k8s.io/fstype";
const FS_TYPE_DEPRECATED: &str = "fstype";

/// A class that can't be used as it is. Final, but an admin may replace the class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParameterError {
    #[error("storage class parameters give the filesystem type twice, as {0:?} and {1:?}")]
    FsTypeTwice(String, String),
    #[error("storage class parameter {0:?} is unknown; the prefix {PREFIX:?} is reserved")]
    Unknown(String),
    #[error("storage class parameters {0:?} and {1:?} exclude each other")]
    SecretTwice(String, &'static str),
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// For what a Secret is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SecretUse {
    Provisioner,
    ControllerPublish,
    NodeStage,
    NodePublish,
    ControllerExpand,
    NodeExpand,
    ControllerModify,
}

struct SecretKeys {
    secret_use: SecretUse,
    /// Between prefix and `name` or `namespace`.
    infix: &'static str,
    /// Without `Name` or `Namespace`.
    deprecated: Option<&'static str>,
}

const SECRET_KEYS: [SecretKeys; 7] = [
    SecretKeys {
        secret_use: SecretUse::Provisioner,
        infix: "provisioner-secret-",
        deprecated: Some("csiProvisionerSecret"),
    },
    SecretKeys {
        secret_use: SecretUse::ControllerPublish,
        infix: "controller-publish-secret-",
        deprecated: Some("csiControllerPublishSecret"),
    },
    SecretKeys {
        secret_use: SecretUse::NodeStage,
        infix: "node-stage-secret-",
        deprecated: Some("csiNodeStageSecret"),
    },
    SecretKeys {
        secret_use: SecretUse::NodePublish,
        infix: "node-publish-secret-",
        deprecated: Some("csiNodePublishSecret"),
    },
    SecretKeys {
        secret_use: SecretUse::ControllerExpand,
        infix: "controller-expand-secret-",
        deprecated: None,
    },
    SecretKeys {
        secret_use: SecretUse::NodeExpand,
        infix: "node-expand-secret-",
        deprecated: None,
    },
    SecretKeys {
        secret_use: SecretUse::ControllerModify,
        infix: "controller-modify-secret-",
        deprecated: None,
    },
];
/// The pair that stands for every use without a pair of its own.
const DEFAULT_INFIX: &str = "secret-";

type Parameters = BTreeMap<String, String>;

/// A class's parameters, sorted out for one volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ClassParameters {
    /// The filesystem type, if the class names one.
    pub(crate) fs_type: Option<String>,
    /// Secrets by use.
    pub(crate) secrets: BTreeMap<SecretUse, SecretReference>,
    /// What the driver gets.
    pub(crate) for_driver: Parameters,
}

/// Sorts out `parameters`; secret templates are resolved with `tokens`.
pub(crate) fn parse(parameters: &Parameters, tokens: &Tokens<'_>) -> Result<ClassParameters, ParameterError> {
    let fs_type = fs_type(parameters)?;
    let mut for_driver = Parameters::new();
    for (key, value) in parameters {
        let is_fs_type = key.eq_ignore_ascii_case(FS_TYPE_DEPRECATED);
        match key.strip_prefix(PREFIX) {
            Some(rest) if !is_known(rest) => return Err(ParameterError::Unknown(key.clone())),
            Some(_) => {}
            None if is_fs_type => {}
            None => {
                for_driver.insert(key.clone(), value.clone());
            }
        }
    }
    Ok(ClassParameters {
        fs_type,
        secrets: all_secrets(parameters, tokens)?,
        for_driver,
    })
}

/// The parameters that drivers get, without looking at the others.
pub(crate) fn without_reserved(parameters: Option<&Parameters>) -> Parameters {
    let own = |key: &String| !key.starts_with(PREFIX) && !key.eq_ignore_ascii_case(FS_TYPE_DEPRECATED);
    parameters
        .into_iter()
        .flatten()
        .filter(|(key, _)| own(key))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

/// The reference for one use alone: for deletion, where only the provisioner's counts.
pub(crate) fn secret_for(
    secret_use: SecretUse,
    parameters: &Parameters,
    tokens: &Tokens<'_>,
) -> Result<Option<SecretReference>, ParameterError> {
    let keys = SECRET_KEYS.iter().find(|keys| keys.secret_use == secret_use);
    keys.map_or(Ok(None), |keys| secret(keys, parameters, tokens))
}

fn fs_type(parameters: &Parameters) -> Result<Option<String>, ParameterError> {
    let mut found: Option<(&String, &String)> = None;
    for (key, value) in parameters {
        if key == FS_TYPE || key.eq_ignore_ascii_case(FS_TYPE_DEPRECATED) {
            if let Some((other, _)) = found {
                return Err(ParameterError::FsTypeTwice(other.clone(), key.clone()));
            }
            found = Some((key, value));
        }
    }
    Ok(found
        .map(|(_, value)| value.clone())
        .filter(|value| !value.is_empty()))
}

fn is_known(unprefixed: &str) -> bool {
    let is_pair = |infix: &str| {
        unprefixed
            .strip_prefix(infix)
            .is_some_and(|rest| rest == "name" || rest == "namespace")
    };
    unprefixed == "fstype" || is_pair(DEFAULT_INFIX) || SECRET_KEYS.iter().any(|keys| is_pair(keys.infix))
}

fn all_secrets(
    parameters: &Parameters,
    tokens: &Tokens<'_>,
) -> Result<BTreeMap<SecretUse, SecretReference>, ParameterError> {
    let mut secrets = BTreeMap::new();
    for keys in &SECRET_KEYS {
        if let Some(reference) = secret(keys, parameters, tokens)? {
            secrets.insert(keys.secret_use, reference);
        }
    }
    Ok(secrets)
}

fn secret(
    keys: &SecretKeys,
    parameters: &Parameters,
    tokens: &Tokens<'_>,
) -> Result<Option<SecretReference>, ParameterError> {
    let own = (
        format!("{PREFIX}{}name", keys.infix),
        format!("{PREFIX}{}namespace", keys.infix),
    );
    let default = (
        format!("{PREFIX}{DEFAULT_INFIX}name"),
        format!("{PREFIX}{DEFAULT_INFIX}namespace"),
    );
    let old = keys
        .deprecated
        .map(|old| (format!("{old}Name"), format!("{old}Namespace")));
    let is_given =
        |pair: &(String, String)| parameters.contains_key(&pair.0) || parameters.contains_key(&pair.1);
    let pair = match old {
        Some(old) if is_given(&old) => {
            if is_given(&own) {
                return Err(ParameterError::SecretTwice(
                    own.0,
                    "the deprecated key of the same use",
                ));
            }
            old
        }
        _ if is_given(&own) => own,
        _ => default,
    };
    let entry = |key: &String| {
        parameters
            .get_key_value(key)
            .map(|(key, value)| (key.as_str(), value.as_str()))
    };
    Ok(resolve(
        entry(&pair.0),
        entry(&pair.1),
        (&pair.0, &pair.1),
        tokens,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pairs: &[(&str, &str)]) -> Result<ClassParameters, ParameterError> {
        let parameters = pairs
            .iter()
            .map(|(key, value)| ((*key).to_string(), (*value).to_string()))
            .collect();
        let tokens = Tokens {
            pv_name: "pvc-1",
            claim_namespace: "apps",
            claim_name: "data",
            claim_annotations: None,
        };
        parse(&parameters, &tokens)
    }

    fn reference(namespace: &str, name: &str) -> SecretReference {
        SecretReference {
            name: Some(name.into()),
            namespace: Some(namespace.into()),
        }
    }

    #[test]
    fn without_reserved_leaves_what_is_the_drivers() {
        let all = ["pool", "fsType", "csi.storage.k8s.io/fstype"];
        let all: Parameters = all.map(|key| (key.to_string(), "x".to_string())).into();
        let left = without_reserved(Some(&all));
        assert_eq!(left.keys().collect::<Vec<_>>(), ["pool"]);
        assert!(without_reserved(None).is_empty());
    }

    #[test]
    fn the_driver_gets_only_what_is_its_own() {
        let found = parsed(&[
            ("pool", "fast"),
            ("csi.storage.k8s.io/fstype", "xfs"),
            ("csi.storage.k8s.io/node-stage-secret-name", "s"),
            ("csi.storage.k8s.io/node-stage-secret-namespace", "ns"),
        ])
        .expect("valid");
        assert_eq!(
            found.for_driver,
            BTreeMap::from([("pool".to_string(), "fast".to_string())])
        );
        assert_eq!(found.fs_type.as_deref(), Some("xfs"));
        assert_eq!(
            found.secrets,
            BTreeMap::from([(SecretUse::NodeStage, reference("ns", "s"))])
        );
    }

    #[test]
    fn a_pair_of_its_own_beats_the_default_pair() {
        let found = parsed(&[
            ("csi.storage.k8s.io/secret-name", "all-${pvc.name}"),
            ("csi.storage.k8s.io/secret-namespace", "${pvc.namespace}"),
            ("csi.storage.k8s.io/provisioner-secret-name", "mine"),
            ("csi.storage.k8s.io/provisioner-secret-namespace", "ns"),
        ])
        .expect("valid");
        assert_eq!(found.secrets.len(), 7);
        assert_eq!(found.secrets[&SecretUse::Provisioner], reference("ns", "mine"));
        assert_eq!(
            found.secrets[&SecretUse::NodeExpand],
            reference("apps", "all-data")
        );
    }

    #[test]
    fn deprecated_keys_work_and_are_passed_on() {
        let found = parsed(&[
            ("csiNodeStageSecretName", "s"),
            ("csiNodeStageSecretNamespace", "ns"),
            ("FsType", "ext4"),
        ])
        .expect("valid");
        assert_eq!(found.secrets[&SecretUse::NodeStage], reference("ns", "s"));
        assert_eq!(found.for_driver.len(), 2);
        assert_eq!(found.fs_type.as_deref(), Some("ext4"));
    }

    #[test]
    fn faults_are_named() {
        let cases: [(&[(&str, &str)], &str); 5] = [
            (
                &[("csi.storage.k8s.io/fstype", "xfs"), ("fsType", "ext4")],
                "twice",
            ),
            (&[("csi.storage.k8s.io/nonsense", "1")], "unknown"),
            (&[("csi.storage.k8s.io/secret-name", "s")], "must both be given"),
            (
                &[
                    ("csi.storage.k8s.io/node-stage-secret-name", "s"),
                    ("csi.storage.k8s.io/node-stage-secret-namespace", "ns"),
                    ("csiNodeStageSecretName", "s"),
                ],
                "exclude",
            ),
            (
                &[
                    ("csi.storage.k8s.io/secret-name", "${pvc.annotations['a']}"),
                    ("csi.storage.k8s.io/secret-namespace", "ns"),
                ],
                "unknown tokens",
            ),
        ];
        for (pairs, part) in cases {
            let error = parsed(pairs).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
