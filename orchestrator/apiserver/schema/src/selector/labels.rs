//! Label selectors: `a=b,c!=d,e in (x,y),f notin (z),g,!h,i>1`, and the structured form of the API.

use serde_json::{Map, Value};

use super::SelectorError;
use crate::names;
use crate::object::list;

/// What a condition asks of a label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LabelOperator {
    /// It is there, with one of the values.
    In,
    /// It is not there, or has none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
    /// It is there with a larger integer.
    GreaterThan,
    /// It is there with a smaller integer.
    LessThan,
}

/// One condition of a label selector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelRequirement {
    /// The label's key.
    pub key: String,
    /// What is asked.
    pub operator: LabelOperator,
    /// The values compared with.
    pub values: Vec<String>,
}

impl LabelRequirement {
    fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let found = labels
            .and_then(|labels| labels.get(&self.key))
            .and_then(Value::as_str);
        let is_among = |value: &str| self.values.iter().any(|one| one == value);
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = self.values.first().and_then(|text| number(text));
        match self.operator {
            LabelOperator::In => found.is_some_and(is_among),
            LabelOperator::NotIn => !found.is_some_and(is_among),
            LabelOperator::Exists => found.is_some(),
            LabelOperator::DoesNotExist => found.is_none(),
            LabelOperator::GreaterThan => found
                .and_then(number)
                .zip(bound)
                .is_some_and(|(value, bound)| value > bound),
            LabelOperator::LessThan => found
                .and_then(number)
                .zip(bound)
                .is_some_and(|(value, bound)| value < bound),
        }
    }
}

/// A parsed label selector; the empty one matches all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LabelSelector {
    requirements: Vec<LabelRequirement>,
}

impl LabelSelector {
    /// Parses the `labelSelector` parameter.
    ///
    /// # Errors
    /// [`SelectorError::Syntax`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut tokens = Tokens { rest: text };
        let mut requirements = Vec::new();
        if tokens.peek().is_none() {
            return Ok(LabelSelector { requirements });
        }
        loop {
            requirements.push(requirement(&mut tokens)?);
            match tokens.next() {
                None => return Ok(LabelSelector { requirements }),
                Some(",") if tokens.peek().is_some() => {}
                Some(other) => {
                    return Err(syntax(&format!(
                        "found '{other}', expected: ',' or 'end of string'"
                    )));
                }
            }
        }
    }

    /// The selector that a `LabelSelector` object of the API stands for: `matchLabels` and `matchExpressions`.
    /// Conditions with an operator that isn't known match nothing.
    #[must_use]
    pub fn from_object(object: &Value) -> Self {
        let equal = object
            .get("matchLabels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        let equal = equal.map(|(key, value)| LabelRequirement {
            key: key.clone(),
            operator: LabelOperator::In,
            values: value.as_str().map(str::to_owned).into_iter().collect(),
        });
        let expressions = list(object, &["matchExpressions"]).iter().map(|expression| {
            let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
            let values = list(expression, &["values"])
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned);
            let (operator, values) = match text("operator") {
                "In" => (LabelOperator::In, values.collect()),
                "NotIn" => (LabelOperator::NotIn, values.collect()),
                "Exists" => (LabelOperator::Exists, Vec::new()),
                "DoesNotExist" => (LabelOperator::DoesNotExist, Vec::new()),
                _ => (LabelOperator::In, Vec::new()),
            };
            LabelRequirement {
                key: text("key").to_owned(),
                operator,
                values,
            }
        });
        LabelSelector {
            requirements: equal.chain(expressions).collect(),
        }
    }

    /// The conditions, all of which must hold.
    #[must_use]
    pub fn requirements(&self) -> &[LabelRequirement] {
        &self.requirements
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object with these labels (`metadata.labels`) matches.
    #[must_use]
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(labels))
    }
}

fn syntax(message: &str) -> SelectorError {
    SelectorError::Syntax(format!("unable to parse requirement: {message}"))
}

/// The words and signs of a selector.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn peek(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let first = self.rest.chars().next()?;
        let is_sign = |c: char| "=!(),><".contains(c);
        let end = if ["==", "!="].iter().any(|sign| self.rest.starts_with(sign)) {
            2
        } else if is_sign(first) {
            1
        } else {
            self.rest
                .find(|c: char| is_sign(c) || c.is_ascii_whitespace())
                .unwrap_or(self.rest.len())
        };
        Some(&self.rest[..end])
    }

    fn next(&mut self) -> Option<&'a str> {
        let token = self.peek()?;
        self.rest = &self.rest[token.len()..];
        Some(token)
    }
}

fn is_word(token: &str) -> bool {
    !token.starts_with(|c: char| "=!(),><".contains(c))
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<LabelRequirement, SelectorError> {
    let negated = tokens.peek() == Some("!");
    if negated {
        tokens.next();
    }
    let key = match tokens.next() {
        Some(token) if is_word(token) => token.to_owned(),
        other => {
            return Err(syntax(&format!(
                "found '{}', expected: identifier",
                other.unwrap_or_default()
            )));
        }
    };
    if let Some(fault) = names::qualified_name(&key).first() {
        return Err(syntax(&format!("key: Invalid value: {key:?}: {fault}")));
    }
    let exists = matches!(tokens.peek(), None | Some(","));
    if negated || exists {
        let operator = if negated {
            LabelOperator::DoesNotExist
        } else {
            LabelOperator::Exists
        };
        return Ok(LabelRequirement {
            key,
            operator,
            values: Vec::new(),
        });
    }
    let (operator, values) = match tokens.next().unwrap_or_default() {
        "in" => (LabelOperator::In, value_set(tokens)?),
        "notin" => (LabelOperator::NotIn, value_set(tokens)?),
        "=" | "==" => (LabelOperator::In, vec![exact_value(tokens)]),
        "!=" => (LabelOperator::NotIn, vec![exact_value(tokens)]),
        ">" => (LabelOperator::GreaterThan, vec![integer(tokens)?]),
        "<" => (LabelOperator::LessThan, vec![integer(tokens)?]),
        other => {
            return Err(syntax(&format!(
                "found '{other}', expected: in, notin, =, ==, !=, gt, lt"
            )));
        }
    };
    for value in &values {
        if let Some(fault) = names::label_value(value).first() {
            return Err(syntax(&format!(
                "values[0][{key}]: Invalid value: {value:?}: {fault}"
            )));
        }
    }
    Ok(LabelRequirement {
        key,
        operator,
        values,
    })
}

/// What stands behind an equals sign: a word, or nothing.
fn exact_value(tokens: &mut Tokens<'_>) -> String {
    match tokens.peek() {
        Some(token) if is_word(token) => tokens.next().unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

fn integer(tokens: &mut Tokens<'_>) -> Result<String, SelectorError> {
    let value = exact_value(tokens);
    match value.parse::<i64>() {
        Ok(_) => Ok(value),
        Err(_) => Err(syntax("for 'Gt', 'Lt' operators, the value must be an integer")),
    }
}

/// `(a,b,)`: words joined by commas; between two commas stands the empty value.
fn value_set(tokens: &mut Tokens<'_>) -> Result<Vec<String>, SelectorError> {
    if tokens.next() != Some("(") {
        return Err(syntax("expected: '('"));
    }
    let mut values = vec![exact_value(tokens)];
    loop {
        match tokens.next() {
            Some(")") => break,
            Some(",") => values.push(exact_value(tokens)),
            other => {
                return Err(syntax(&format!(
                    "found '{}', expected: ',' or ')'",
                    other.unwrap_or_default()
                )));
            }
        }
    }
    values.sort();
    values.dedup();
    Ok(values)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(selector: &str, labels: &Value) -> bool {
        LabelSelector::parse(selector)
            .unwrap()
            .matches(labels.as_object())
    }

    #[test]
    fn labels_match_by_equality_and_by_sets() {
        let labels = json!({"app": "web", "tier": "front", "x.io/size": "5", "empty": ""});
        let cases = [
            ("", true),
            ("  ", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app = web , tier != back", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (web, db)", true),
            ("app in (db)", false),
            ("app notin (db)", true),
            ("other notin (db)", true),
            ("app notin (web)", false),
            ("app", true),
            ("!app", false),
            ("! other", true),
            ("other", false),
            ("empty=", true),
            ("empty in (,)", true),
            ("app=", false),
            ("x.io/size>4", true),
            ("x.io/size > 5", false),
            ("x.io/size<6,app", true),
            ("app>1", false),
        ];
        for (selector, expected) in cases {
            assert_eq!(matches(selector, &labels), expected, "{selector}");
        }
        assert!(LabelSelector::parse("!a").unwrap().matches(None));
        assert!(!LabelSelector::parse("a").unwrap().matches(None));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in [
            "=a", "a=b,", ",", "a in b", "a in (b", "a b", "a=b c", "a//b", "a=!", "!a=b", "a>x", "a=-",
            "a in ()x",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_structured_form_means_the_same() {
        let selector = json!({"matchLabels": {"a": "1"}, "matchExpressions": [
            {"key": "b", "operator": "In", "values": ["x", "y"]},
            {"key": "c", "operator": "DoesNotExist"},
        ]});
        let structured = LabelSelector::from_object(&selector);
        assert_eq!(structured, LabelSelector::parse("a=1,b in (x,y),!c").unwrap());
        let unknown =
            LabelSelector::from_object(&json!({"matchExpressions": [{"key": "a", "operator": "Like"}]}));
        assert!(!unknown.matches(json!({"a": "1"}).as_object()));
        assert!(LabelSelector::from_object(&json!({})).is_empty());
    }
}
