//! Which Secret a call gets: templates in class parameters, resolved per volume; and reading that Secret.
//!
//! The namespace template knows fewer tokens than the name template. That is a rule of security: whoever owns a claim
//! controls its name and annotations and must not be able to point at Secrets of another namespace.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Secret, SecretReference};
use kube::{Api, Client};

/// A secret reference that can't be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// Name without namespace, or the other way round.
    #[error("parameters {name_key} and {namespace_key} must both be given, or neither")]
    Incomplete {
        /// Parameter that holds the name.
        name_key: String,
        /// Parameter that holds the namespace.
        namespace_key: String,
    },
    /// Tokens that the template may not contain, or that have no value here.
    #[error("secret template {template:?} has unknown tokens: {}", .tokens.join(", "))]
    UnknownTokens {
        /// The template.
        template: String,
        /// The tokens, as written.
        tokens: Vec<String>,
    },
    /// A `${` without `}`.
    #[error("secret template {0:?} has an unclosed token")]
    Unclosed(String),
    /// The result isn't a valid name.
    #[error("secret template {template:?} gives {found:?}, which is not a valid {what}")]
    InvalidName {
        /// The template.
        template: String,
        /// What it gave.
        found: String,
        /// `name` or `namespace`.
        what: &'static str,
    },
}

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

impl Tokens<'_> {
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

/// Resolves the pair of templates `<key>-name` and `<key>-namespace`. `None` if neither is given.
pub(crate) fn resolve(
    name: Option<(&str, &str)>,
    namespace: Option<(&str, &str)>,
    keys: (&str, &str),
    tokens: &Tokens<'_>,
) -> Result<Option<SecretReference>, TemplateError> {
    let (name, namespace) = match (name, namespace) {
        (None, None) => return Ok(None),
        (Some((_, name)), Some((_, namespace))) if !name.is_empty() && !namespace.is_empty() => {
            (name, namespace)
        }
        _ => {
            return Err(TemplateError::Incomplete {
                name_key: keys.0.to_string(),
                namespace_key: keys.1.to_string(),
            });
        }
    };
    let resolved_namespace = expand(namespace, |token| tokens.in_namespace(token))?;
    let resolved_name = expand(name, |token| tokens.in_name(token))?;
    if !is_label(&resolved_namespace) {
        return Err(invalid(namespace, resolved_namespace, "namespace"));
    }
    if resolved_name.len() > 253 || resolved_name.is_empty() || !resolved_name.split('.').all(is_label_like) {
        return Err(invalid(name, resolved_name, "name"));
    }
    Ok(Some(SecretReference {
        name: Some(resolved_name),
        namespace: Some(resolved_namespace),
    }))
}

fn invalid(template: &str, found: String, what: &'static str) -> TemplateError {
    TemplateError::InvalidName {
        template: template.to_string(),
        found,
        what,
    }
}

/// Replaces each `${token}`. Only this form is special; a lone `$` stands for itself.
fn expand(template: &str, value_of: impl Fn(&str) -> Option<String>) -> Result<String, TemplateError> {
    let mut result = String::new();
    let mut unknown = Vec::new();
    let mut rest = template;
    while let Some(start) = rest.find("${") {
        result.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let end = after
            .find('}')
            .ok_or_else(|| TemplateError::Unclosed(template.to_string()))?;
        match value_of(&after[..end]) {
            Some(value) => result.push_str(&value),
            None => unknown.push(format!("${{{}}}", &after[..end])),
        }
        rest = &after[end + 1..];
    }
    result.push_str(rest);
    if unknown.is_empty() {
        Ok(result)
    } else {
        Err(TemplateError::UnknownTokens {
            template: template.to_string(),
            tokens: unknown,
        })
    }
}

fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_label_like(text)
}

/// The characters of a DNS-1123 label, of any length.
fn is_label_like(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let bytes = text.as_bytes();
    let is_edge = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-' && is_inner(*byte));
    bytes.iter().all(|byte| is_inner(*byte)) && is_edge(bytes.first()) && is_edge(bytes.last())
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
