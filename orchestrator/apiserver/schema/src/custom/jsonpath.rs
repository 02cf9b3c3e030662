//! The JSON paths of printer columns, selectable fields and the scale subresource: fields, brackets, indices,
//! wildcards, and filters that compare with a literal.

use serde_json::Value;

/// A parsed path.
#[derive(Clone, PartialEq, Debug)]
pub struct Path(Vec<Step>);

#[derive(Clone, PartialEq, Debug)]
enum Step {
    Field(String),
    Index(i64),
    Every,
    Filter {
        path: Path,
        equal: Option<bool>,
        literal: Value,
    },
}

/// Text that is no path of this kind.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a JSON path: {0}")]
pub struct PathError(String);

impl Path {
    /// Parses `.spec.list[0].name`, `.metadata.annotations['a.b/c']`, `.status.conditions[?(@.type=="Ready")].status`.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn parse(text: &str) -> Result<Path, PathError> {
        let fail = || PathError(text.to_owned());
        let mut steps = Vec::new();
        let mut rest = text.trim();
        rest = rest
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .unwrap_or(rest);
        rest = rest
            .strip_prefix('$')
            .or_else(|| rest.strip_prefix('@'))
            .unwrap_or(rest);
        while !rest.is_empty() {
            let (step, left) = if let Some(inner) = rest.strip_prefix('[') {
                let end = bracket_end(inner).ok_or_else(fail)?;
                (bracket(&inner[..end]).ok_or_else(fail)?, &inner[end + 1..])
            } else {
                let inner = rest.strip_prefix('.').ok_or_else(fail)?;
                if inner.starts_with('[') {
                    rest = inner;
                    continue;
                }
                let (name, left) = field(inner);
                if name.is_empty() {
                    return Err(fail());
                }
                (
                    if name == "*" {
                        Step::Every
                    } else {
                        Step::Field(name)
                    },
                    left,
                )
            };
            steps.push(step);
            rest = left;
        }
        Ok(Path(steps))
    }

    /// The names of a path that consists of fields alone.
    #[must_use]
    pub fn fields(&self) -> Option<Vec<&str>> {
        let name = |step: &'_ Step| matches!(step, Step::Field(_));
        if self.0.is_empty() || !self.0.iter().all(name) {
            return None;
        }
        let names = self.0.iter().filter_map(|step| match step {
            Step::Field(name) => Some(name.as_str()),
            _ => None,
        });
        Some(names.collect())
    }

    /// All values at the path.
    #[must_use]
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.find(value)).collect();
        }
        found
    }
}

impl Step {
    fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Step::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Step::Index(index), Value::Array(list)) => {
                let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
                let place = if *index < 0 { index + length } else { *index };
                usize::try_from(place)
                    .ok()
                    .and_then(|place| list.get(place))
                    .into_iter()
                    .collect()
            }
            (Step::Every, Value::Array(list)) => list.iter().collect(),
            (Step::Every, Value::Object(map)) => map.values().collect(),
            (Step::Filter { path, equal, literal }, Value::Array(list)) => list
                .iter()
                .filter(|one| {
                    let found = path.find(one);
                    match equal {
                        None => !found.is_empty(),
                        Some(equal) => found.first().is_some_and(|value| (*value == literal) == *equal),
                    }
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// A field name up to the next dot or bracket; a backslash takes the next character as it is.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, &text[at..]),
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            other => name.push(other),
        }
    }
    (name, "")
}

/// Where a bracket closes, quotes and inner brackets left aside.
fn bracket_end(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::Every);
    }
    if let Some(name) = quoted(text) {
        return Some(Step::Field(name));
    }
    if let Some(condition) = text.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        let operator = [("==", true), ("!=", false)]
            .into_iter()
            .find_map(|(sign, equal)| {
                condition
                    .split_once(sign)
                    .map(|(path, literal)| (path, equal, literal))
            });
        let Some((path, equal, literal)) = operator else {
            return Some(Step::Filter {
                path: Path::parse(condition).ok()?,
                equal: None,
                literal: Value::Null,
            });
        };
        let literal = match quoted(literal.trim()) {
            Some(text) => text.into(),
            None => serde_json::from_str(literal.trim()).ok()?,
        };
        return Some(Step::Filter {
            path: Path::parse(path).ok()?,
            equal: Some(equal),
            literal,
        });
    }
    text.parse().ok().map(Step::Index)
}

fn quoted(text: &str) -> Option<String> {
    let inner = ['\'', '"']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))?;
    Some(inner.replace('\\', ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_they_name() {
        let object = json!({"metadata": {"annotations": {"a.b/c": "x"}}, "spec": {"list": [{"n": 1}, {"n": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]}});
        let cases = [
            (".spec.list[0].n", vec![json!(1)]),
            (".spec.list[-1].n", vec![json!(2)]),
            (".spec.list[*].n", vec![json!(1), json!(2)]),
            ("{.spec.list[1].n}", vec![json!(2)]),
            (".metadata.annotations['a.b/c']", vec![json!("x")]),
            (".metadata.annotations.a\\.b/c", vec![json!("x")]),
            (
                ".status.conditions[?(@.type==\"Ready\")].status",
                vec![json!("True")],
            ),
            (
                ".status.conditions[?(@.type=='Other')].status",
                vec![json!("False")],
            ),
            (
                ".status.conditions[?(@.type!='Other')].status",
                vec![json!("True")],
            ),
            (".spec.missing.n", vec![]),
            (".spec.list[9]", vec![]),
        ];
        for (text, expected) in cases {
            let found: Vec<Value> = Path::parse(text)
                .unwrap()
                .find(&object)
                .into_iter()
                .cloned()
                .collect();
            assert_eq!(found, expected, "{text}");
        }
        for bad in ["spec", ".spec[", ".spec..x", ".a[b]", ".a[?(@.x==y)]"] {
            assert!(Path::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Path::parse(".a.b").unwrap().fields(), Some(vec!["a", "b"]));
        assert_eq!(Path::parse(".a[0]").unwrap().fields(), None);
    }
}
