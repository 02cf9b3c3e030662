//! Secrets that class parameters name: templates whose tokens stand for names of the object at hand.
//!
//! The namespace template knows fewer tokens than the name template. That is a rule of security: whoever owns a claim
//! controls its name and annotations and must not be able to point at Secrets of another namespace.

use k8s_openapi::api::core::v1::SecretReference;

/// A secret reference that can't be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
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

/// What the tokens of templates stand for. The implementor keeps claim owners' values out of the namespace.
pub trait Tokens {
    /// The value of a token in a namespace template.
    fn in_namespace(&self, token: &str) -> Option<String>;
    /// The value of a token in a name template.
    fn in_name(&self, token: &str) -> Option<String>;
}

/// Resolves a pair of templates, each given with the key of its parameter. `None` if neither is given.
///
/// # Errors
/// Final until the class changes: one of the pair is missing, or gives no valid name.
pub fn resolve(
    name: Option<(&str, &str)>,
    namespace: Option<(&str, &str)>,
    keys: (&str, &str),
    tokens: &impl Tokens,
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
