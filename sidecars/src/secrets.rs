//! Which Secret a call gets: templates in class parameters, resolved per volume; and reading that Secret.
//!
//! The namespace template knows fewer tokens than the name template. That is a rule of security: whoever owns a claim
//! controls its name and annotations and must not be able to point at Secrets of another namespace.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Secret, SecretReference};
use kube::{Api, Client};
use moorline_model::secret_template;
pub(crate) use moorline_model::secret_template::{TemplateError, resolve};

/// A Secret that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("read secret {namespace}/{name}")]
pub(crate) struct SecretReadError {
    namespace: String,
    name: String,
    #[source]
    source: Box<kube::Error>,
}

/// What the tokens of class templates stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens<'a> {
    pub(crate) pv_name: &'a str,
    pub(crate) claim_namespace: &'a str,
    pub(crate) claim_name: &'a str,
    /// `None` where the claim isn't at hand (deletion): its tokens don't resolve then.
    pub(crate) claim_annotations: Option<&'a BTreeMap<String, String>>,
}

impl secret_template::Tokens for Tokens<'_> {
    fn in_namespace(&self, token: &str) -> Option<String> {
        match token {
            "pv.name" => Some(self.pv_name.to_string()),
            "pvc.namespace" => Some(self.claim_namespace.to_string()),
            _ => None,
        }
    }

    fn in_name(&self, token: &str) -> Option<String> {
        if token == "pvc.name" {
            return Some(self.claim_name.to_string());
        }
        if let Some(key) = token
            .strip_prefix("pvc.annotations['")
            .and_then(|rest| rest.strip_suffix("']"))
        {
            return self.claim_annotations?.get(key).cloned();
        }
        self.in_namespace(token)
    }
}

/// The data of the Secret, read live; empty for no reference.
///
/// # Errors
/// The Secret can't be read now: nothing was asked of the driver.
pub(crate) async fn read(
    client: &Client,
    reference: Option<&SecretReference>,
) -> Result<HashMap<String, String>, SecretReadError> {
    let Some(reference) = reference else {
        return Ok(HashMap::new());
    };
    let name = reference.name.clone().unwrap_or_default();
    let namespace = reference.namespace.clone().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let secret = secrets.get(&name).await.map_err(|source| SecretReadError {
        namespace,
        name,
        source: Box::new(source),
    })?;
    let data = secret.data.unwrap_or_default();
    Ok(data
        .into_iter()
        .map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(name: &str, namespace: &str) -> Result<String, String> {
        let annotations = BTreeMap::from([("team".to_string(), "blue".to_string())]);
        let tokens = Tokens {
            pv_name: "pvc-1",
            claim_namespace: "apps",
            claim_name: "data",
            claim_annotations: Some(&annotations),
        };
        resolve(Some(("n", name)), Some(("ns", namespace)), ("n", "ns"), &tokens)
            .map(|found| {
                found.map(|r| {
                    format!(
                        "{}/{}",
                        r.namespace.unwrap_or_default(),
                        r.name.unwrap_or_default()
                    )
                })
            })
            .map(Option::unwrap_or_default)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn templates_resolve_or_say_why_not() {
        let cases = [
            ("plain", "secrets", Ok("secrets/plain")),
            (
                "${pvc.name}-${pv.name}",
                "${pvc.namespace}",
                Ok("apps/data-pvc-1"),
            ),
            (
                "key-${pvc.annotations['team']}",
                "kube-system",
                Ok("kube-system/key-blue"),
            ),
            ("a", "${pv.name}", Ok("pvc-1/a")),
            ("a", "${pvc.name}", Err("unknown tokens: ${pvc.name}")),
            (
                "a",
                "${pvc.annotations['team']}",
                Err("unknown tokens: ${pvc.annotations['team']}"),
            ),
            (
                "${x}${pvc.annotations['no']}",
                "ns",
                Err("unknown tokens: ${x}, ${pvc.annotations['no']}"),
            ),
            ("${pv.name", "ns", Err("unclosed token")),
            ("$pv.name", "ns", Err("\"$pv.name\", which is not a valid name")),
            ("a", "Not_Valid", Err("not a valid namespace")),
            ("a.b-c", "ns", Ok("ns/a.b-c")),
            ("-a", "ns", Err("not a valid name")),
            ("", "ns", Err("must both be given")),
        ];
        for (name, namespace, expected) in cases {
            match (resolved(name, namespace), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{name} in {namespace}"),
                (Err(found), Err(part)) => assert!(found.contains(part), "{name} in {namespace}: {found}"),
                (found, expected) => panic!("{name} in {namespace}: {found:?}, wanted {expected:?}"),
            }
        }
    }

    #[test]
    fn neither_is_none_and_one_alone_is_an_error() {
        let tokens = Tokens::default();
        assert_eq!(resolve(None, None, ("n", "ns"), &tokens), Ok(None));
        assert!(resolve(Some(("n", "a")), None, ("n", "ns"), &tokens).is_err());
    }
}
