//! Forms of names, labels and the like; each check gives upstream's explanations, none if all is well.

const LABEL_FORM: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_MESSAGE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const LABEL_1035_MESSAGE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const QUALIFIED_FORM: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE_MESSAGE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// Longest DNS-1123 or DNS-1035 label, label value, and name part of a qualified name.
pub const LABEL_LENGTH_MAX: usize = 63;
/// Longest DNS-1123 subdomain.
pub const SUBDOMAIN_LENGTH_MAX: usize = 253;

fn too_long(length_max: usize) -> String {
    format!("must be no more than {length_max} characters")
}

/// Upstream's sentence, with its own way of listing examples.
fn form_error(message: &str, form: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!(
        "{message} (e.g. {}regex used for validation is '{form}')",
        examples.join(" or ")
    )
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let end = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    end(bytes.first())
        && end(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

fn is_qualified_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    end(bytes.first())
        && end(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A DNS-1123 label: at most 63 of `[-a-z0-9]`, beginning and ending with a letter or digit.
#[must_use]
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > LABEL_LENGTH_MAX {
        faults.push(too_long(LABEL_LENGTH_MAX));
    }
    if !is_label(text) {
        faults.push(if text.split('.').all(is_label) && text.contains('.') {
            "must not contain dots".to_owned()
        } else {
            form_error(LABEL_MESSAGE, LABEL_FORM, &["my-name", "123-abc"])
        });
    }
    faults
}

/// A DNS-1123 subdomain: at most 253 characters, labels joined by dots.
#[must_use]
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > SUBDOMAIN_LENGTH_MAX {
        faults.push(too_long(SUBDOMAIN_LENGTH_MAX));
    }
    if !text.split('.').all(is_label) {
        let form = format!("{LABEL_FORM}(\\.{LABEL_FORM})*");
        faults.push(form_error(SUBDOMAIN_MESSAGE, &form, &["example.com"]));
    }
    faults
}

/// A DNS-1035 label: like a DNS-1123 label, but beginning with a letter.
#[must_use]
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > LABEL_LENGTH_MAX {
        faults.push(too_long(LABEL_LENGTH_MAX));
    }
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        faults.push(form_error(
            LABEL_1035_MESSAGE,
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    faults
}

/// A name that can be one segment of a path: not `.` or `..`, without `/` and `%`.
#[must_use]
pub fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." | ".." => vec![format!("may not be '{text}'")],
        _ => {
            let found = ["/", "%"].iter().filter(|bad| text.contains(**bad));
            found.map(|bad| format!("may not contain '{bad}'")).collect()
        }
    }
}

/// A qualified name, as label keys and finalizers are: `[prefix/]name`.
#[must_use]
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let name = match text.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".to_owned());
            } else {
                faults.extend(
                    dns1123_subdomain(prefix)
                        .iter()
                        .map(|fault| format!("prefix part {fault}")),
                );
            }
            *name
        }
        _ => {
            let form = form_error(
                QUALIFIED_MESSAGE,
                QUALIFIED_FORM,
                &["MyName", "my.name", "123-abc"],
            );
            return vec![format!(
                "a valid label key {form} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_LENGTH_MAX {
        faults.push(format!("name part {}", too_long(LABEL_LENGTH_MAX)));
    }
    if !is_qualified_part(name) {
        let form = form_error(
            QUALIFIED_MESSAGE,
            QUALIFIED_FORM,
            &["MyName", "my.name", "123-abc"],
        );
        faults.push(format!("name part {form}"));
    }
    faults
}

/// The value of a label: empty, or at most 63 characters of `[-A-Za-z0-9_.]`.
#[must_use]
pub fn label_value(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > LABEL_LENGTH_MAX {
        faults.push(too_long(LABEL_LENGTH_MAX));
    }
    if !text.is_empty() && !is_qualified_part(text) {
        let form = format!("({QUALIFIED_FORM})?");
        faults.push(form_error(
            LABEL_VALUE_MESSAGE,
            &form,
            &["MyValue", "my_value", "12345"],
        ));
    }
    faults
}

/// The name of an environment variable: any printable ASCII but `=`.
#[must_use]
pub fn environment_variable(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    let well = text
        .bytes()
        .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=');
    let message =
        "a valid environment variable name must consist only of printable ASCII characters other than '='";
    if well {
        Vec::new()
    } else {
        vec![message.to_owned()]
    }
}

/// The key of a ConfigMap or Secret: at most 253 of `[-A-Za-z0-9_.]`, not `.`, `..` or beginning with `..`.
#[must_use]
pub fn config_key(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > SUBDOMAIN_LENGTH_MAX {
        faults.push(too_long(SUBDOMAIN_LENGTH_MAX));
    }
    let known = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || !text.as_bytes().iter().all(known) {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        faults.push(form_error(
            message,
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => faults.push("must not be '.'".to_owned()),
        ".." => faults.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => faults.push("must not start with '..'".to_owned()),
        _ => {}
    }
    faults
}

/// The name of a port: at most 15 of `[-a-z0-9]` with a letter, no two hyphens in a row, none at the ends.
#[must_use]
pub fn port_name(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 15 {
        faults.push(too_long(15));
    }
    if text.is_empty()
        || !text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        faults.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        faults.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        faults.push("must not begin or end with a hyphen".to_owned());
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&str) -> Vec<String>;

    #[test]
    fn names_are_told_from_what_is_none() {
        let long = "a".repeat(64);
        let longer = "a".repeat(254);
        let cases: [(&str, Check, &[&str], &[&str]); 9] = [
            (
                "label",
                dns1123_label,
                &["a", "0-a", "a-b"],
                &["", "-a", "a-", "A", "a.b", "a_b", &long],
            ),
            (
                "subdomain",
                dns1123_subdomain,
                &["a", "a.b-c.0", &long],
                &["", ".", "a..b", "a.", "A.b", &longer],
            ),
            (
                "1035 label",
                dns1035_label,
                &["a", "a-0"],
                &["0a", "", "a.b", &long],
            ),
            (
                "path segment",
                path_segment,
                &["system:node", "a b"],
                &[".", "..", "a/b", "50%"],
            ),
            (
                "qualified",
                qualified_name,
                &["a", "A_b.c", "x.io/Y"],
                &["", "/a", "a/", "a/b/c", "X.io/y", "-a", &long],
            ),
            ("label value", label_value, &["", "A_b.c-1"], &["-", "a b", &long]),
            (
                "environment",
                environment_variable,
                &["A", "a.b", "0 x"],
                &["", "a=b", "ü"],
            ),
            (
                "key",
                config_key,
                &["a", ".hidden", "A_b-c"],
                &["", ".", "..", "..a", "a/b"],
            ),
            (
                "port",
                port_name,
                &["http", "a-1"],
                &["", "1", "a--b", "-a", "Http", "sixteen-letters-x"],
            ),
        ];
        for (name, check, good, bad) in cases {
            for text in good {
                assert_eq!(check(text), Vec::<String>::new(), "{name} {text:?}");
            }
            for text in bad {
                assert!(!check(text).is_empty(), "{name} {text:?}");
            }
        }
    }

    #[test]
    fn explanations_are_upstreams() {
        let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
        assert_eq!(dns1123_label("A"), [label]);
        let subdomain = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        assert_eq!(dns1123_subdomain("A_"), [subdomain]);
        let value = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
        assert_eq!(label_value("-"), [value]);
    }
}
