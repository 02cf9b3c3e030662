//! Operators and functions: those of CEL itself here, the others in the files of their libraries.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::ast::{Expr, Node, Operator};
use super::eval::{Evaluation, Failure, Outcome, fail, lookup};
use super::value::{Key, Val, to_int};
use super::{kubernetes, lists, strings, times};
use crate::custom::go_duration;

const NO_OVERLOAD: &str = "no such overload";

/// Prefixes of functions that are no values.
const NAMESPACES: [&str; 9] = [
    "cel",
    "optional",
    "sets",
    "math",
    "base64",
    "strings",
    "ip",
    "format",
    "jsonpatch",
];

/// The namespace that an expression names, if it does: `sets` in `sets.contains(a, b)`.
pub(super) fn namespace(target: &Expr) -> Option<&str> {
    match &target.node {
        Node::Name(name) if NAMESPACES.contains(&name.as_str()) => Some(name),
        _ => None,
    }
}

/// Names of types, which are values too.
pub(super) fn type_named(name: &str) -> Option<&'static str> {
    const TYPES: [&str; 11] = [
        "bool",
        "int",
        "uint",
        "double",
        "string",
        "bytes",
        "list",
        "map",
        "null_type",
        "type",
        "optional_type",
    ];
    TYPES.into_iter().find(|known| *known == name)
}

/// Constants with dots in their names.
pub(super) fn constant<'a>(expr: &Expr) -> Option<Val<'a>> {
    let mut names = Vec::new();
    let mut at = expr;
    loop {
        match &at.node {
            Node::Select {
                operand,
                field,
                optional: false,
            } => {
                names.push(field.as_str());
                at = operand;
            }
            Node::Name(name) => {
                names.push(name);
                break;
            }
            _ => return None,
        }
    }
    names.reverse();
    match names.as_slice() {
        ["google", "protobuf", "Timestamp"] => Some(Val::Type("google.protobuf.Timestamp")),
        ["google", "protobuf", "Duration"] => Some(Val::Type("google.protobuf.Duration")),
        _ => None,
    }
}

/// The result of an operator on two values.
pub(super) fn binary<'a>(
    eval: &mut Evaluation<'a>,
    operator: Operator,
    left: &Val<'a>,
    right: &Val<'a>,
) -> Outcome<'a> {
    match operator {
        Operator::Equal | Operator::NotEqual => {
            eval.pay(left.weight().min(right.weight()))?;
            Ok(Val::Bool(left.equals(right) == (operator == Operator::Equal)))
        }
        Operator::Less | Operator::LessEqual | Operator::Greater | Operator::GreaterEqual => {
            eval.pay(left.weight().min(right.weight()))?;
            let Some(order) = left.compare(right) else {
                return fail(NO_OVERLOAD);
            };
            Ok(Val::Bool(match operator {
                Operator::Less => order == Ordering::Less,
                Operator::LessEqual => order != Ordering::Greater,
                Operator::Greater => order == Ordering::Greater,
                _ => order != Ordering::Less,
            }))
        }
        Operator::In => contains(eval, left, right),
        Operator::Add => add(eval, left, right),
        _ => arithmetic(operator, left, right),
    }
}

fn contains<'a>(eval: &mut Evaluation<'a>, item: &Val<'a>, list: &Val<'a>) -> Outcome<'a> {
    if let Some(items) = list.items() {
        eval.pay(list.weight())?;
        return Ok(Val::Bool(items.iter().any(|one| one.equals(item))));
    }
    match (list.entries(), Key::of(item)) {
        (Some(_), Some(key)) => Ok(Val::Bool(lookup(list, &key).is_some())),
        (Some(_), None) => Ok(Val::Bool(false)),
        _ => fail(NO_OVERLOAD),
    }
}

fn add<'a>(eval: &mut Evaluation<'a>, left: &Val<'a>, right: &Val<'a>) -> Outcome<'a> {
    match (left, right) {
        (Val::Text(a), Val::Text(b)) => {
            eval.pay((a.len() + b.len()) as u64 / 10)?;
            Ok(Val::text(format!("{a}{b}")))
        }
        (Val::Bytes(a), Val::Bytes(b)) => {
            eval.pay((a.len() + b.len()) as u64 / 10)?;
            Ok(Val::Bytes([&a[..], &b[..]].concat().into()))
        }
        _ => match (left.items(), right.items()) {
            (Some(mut a), Some(b)) => {
                eval.pay((a.len() + b.len()) as u64)?;
                a.extend(b);
                Ok(Val::list(a))
            }
            _ => arithmetic(Operator::Add, left, right),
        },
    }
}

fn arithmetic<'a>(operator: Operator, left: &Val<'a>, right: &Val<'a>) -> Outcome<'a> {
    let overflow = |what: &'static str| move || Failure::Error(format!("{what} overflow"));
    match (left, right) {
        (Val::Int(a), Val::Int(b)) => {
            if *b == 0 && matches!(operator, Operator::Divide | Operator::Remainder) {
                return fail(if operator == Operator::Divide {
                    "division by zero"
                } else {
                    "modulus by zero"
                });
            }
            let found = match operator {
                Operator::Add => a.checked_add(*b),
                Operator::Subtract => a.checked_sub(*b),
                Operator::Multiply => a.checked_mul(*b),
                Operator::Divide => a.checked_div(*b),
                _ => a.checked_rem(*b),
            };
            found.map(Val::Int).ok_or_else(overflow("integer"))
        }
        (Val::Uint(a), Val::Uint(b)) => {
            if *b == 0 && matches!(operator, Operator::Divide | Operator::Remainder) {
                return fail(if operator == Operator::Divide {
                    "division by zero"
                } else {
                    "modulus by zero"
                });
            }
            let found = match operator {
                Operator::Add => a.checked_add(*b),
                Operator::Subtract => a.checked_sub(*b),
                Operator::Multiply => a.checked_mul(*b),
                Operator::Divide => a.checked_div(*b),
                _ => a.checked_rem(*b),
            };
            found.map(Val::Uint).ok_or_else(overflow("unsigned integer"))
        }
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(match operator {
            Operator::Add => a + b,
            Operator::Subtract => a - b,
            Operator::Multiply => a * b,
            Operator::Divide => a / b,
            _ => return fail(NO_OVERLOAD),
        })),
        _ => times::arithmetic(operator, left, right),
    }
}

/// A function without a target.
pub(super) fn global<'a>(eval: &mut Evaluation<'a>, function: &str, values: &[Val<'a>]) -> Outcome<'a> {
    match (function, values) {
        ("size", [value]) => size(value),
        ("dyn", [value]) => Ok(value.clone()),
        ("type", [value]) => Ok(Val::Type(value.type_name())),
        ("bool" | "int" | "uint" | "double" | "string" | "bytes" | "timestamp" | "duration", [value]) => {
            eval.pay(value.weight())?;
            convert(function, value)
        }
        ("matches", [target, pattern]) => strings::matches(eval, target, pattern),
        _ => kubernetes::global(eval, function, values),
    }
}

/// A function of a namespace.
pub(super) fn of_namespace<'a>(
    eval: &mut Evaluation<'a>,
    space: &str,
    function: &str,
    values: &[Val<'a>],
) -> Outcome<'a> {
    match (space, function, values) {
        ("optional", "none", []) => Ok(Val::Optional(None)),
        ("optional", "of", [value]) => Ok(Val::some(value.clone())),
        ("optional", "ofNonZeroValue", [value]) => Ok(if is_zero(value) {
            Val::Optional(None)
        } else {
            Val::some(value.clone())
        }),
        ("sets", _, [a, b]) => lists::sets(eval, function, a, b),
        ("jsonpatch", "escapeKey", [Val::Text(text)]) => {
            Ok(Val::text(text.replace('~', "~0").replace('/', "~1")))
        }
        ("math", ..) => math(function, values),
        ("strings", "quote", [Val::Text(text)]) => Ok(Val::text(format!("{text:?}"))),
        ("base64", "encode", [Val::Bytes(bytes)]) => {
            use base64::Engine;
            Ok(Val::text(base64::prelude::BASE64_STANDARD.encode(bytes)))
        }
        ("base64", "decode", [Val::Text(text)]) => {
            use base64::Engine;
            let decoded = base64::prelude::BASE64_STANDARD.decode(text.as_bytes());
            decoded.map_or_else(
                |error| fail(error.to_string()),
                |bytes| Ok(Val::Bytes(bytes.into())),
            )
        }
        _ => kubernetes::of_namespace(space, function, values),
    }
}

/// A function of a value.
pub(super) fn member<'a>(
    eval: &mut Evaluation<'a>,
    target: &Val<'a>,
    function: &str,
    values: &[Val<'a>],
) -> Outcome<'a> {
    match (target, function, values) {
        (Val::Access(access), ..) => access.member(eval, function, values),
        (Val::Decision(decision), _, []) => decision.member(function),
        (_, "size", []) => size(target),
        (Val::Optional(inner), "hasValue", []) => Ok(Val::Bool(inner.is_some())),
        (Val::Optional(inner), "value", []) => match inner {
            Some(inner) => Ok((**inner).clone()),
            None => fail("optional.none() dereference"),
        },
        (Val::Optional(inner), "orValue", [other]) => Ok(inner
            .as_ref()
            .map_or_else(|| other.clone(), |inner| (**inner).clone())),
        (Val::Optional(inner), "or", [other @ Val::Optional(_)]) => Ok(if inner.is_some() {
            target.clone()
        } else {
            other.clone()
        }),
        (Val::Text(text), ..) => strings::member(eval, text, function, values),
        (Val::Time(_) | Val::Duration(_), ..) => times::member(target, function, values),
        _ if target.items().is_some() => lists::member(eval, target, function, values),
        _ => kubernetes::member(target, function, values),
    }
}

fn size<'a>(value: &Val<'a>) -> Outcome<'a> {
    let size = value.size().and_then(|size| i64::try_from(size).ok());
    size.map_or_else(|| fail(NO_OVERLOAD), |size| Ok(Val::Int(size)))
}

fn is_zero(value: &Val<'_>) -> bool {
    match value {
        Val::Null | Val::Bool(false) | Val::Int(0) | Val::Uint(0) | Val::Duration(0) => true,
        Val::Double(number) => *number == 0.0,
        other => other.size() == Some(0),
    }
}

fn math<'a>(function: &str, values: &[Val<'a>]) -> Outcome<'a> {
    let all = match values {
        [one] => one.items().unwrap_or_else(|| vec![one.clone()]),
        many => many.to_vec(),
    };
    match function {
        "greatest" => lists::extreme(&all, Ordering::Greater),
        "least" => lists::extreme(&all, Ordering::Less),
        "abs" => match values {
            [Val::Int(number)] => number
                .checked_abs()
                .map_or_else(|| fail("integer overflow"), |number| Ok(Val::Int(number))),
            [Val::Double(number)] => Ok(Val::Double(number.abs())),
            _ => fail(NO_OVERLOAD),
        },
        "ceil" | "floor" | "round" | "trunc" => match values {
            [Val::Double(number)] => Ok(Val::Double(match function {
                "ceil" => number.ceil(),
                "floor" => number.floor(),
                "round" => number.round(),
                _ => number.trunc(),
            })),
            _ => fail(NO_OVERLOAD),
        },
        _ => fail(format!("undeclared reference to 'math.{function}'")),
    }
}

fn convert<'a>(to: &str, value: &Val<'a>) -> Outcome<'a> {
    let range = || fail("range error");
    match (to, value) {
        ("bool", Val::Bool(_))
        | ("int", Val::Int(_))
        | ("uint", Val::Uint(_))
        | ("double", Val::Double(_)) => Ok(value.clone()),
        ("string", Val::Text(_))
        | ("bytes", Val::Bytes(_))
        | ("timestamp", Val::Time(_))
        | ("duration", Val::Duration(_)) => Ok(value.clone()),
        ("bool", Val::Text(text)) => match text.as_ref() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Val::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Val::Bool(false)),
            _ => fail("type conversion error from 'string' to 'bool'"),
        },
        ("int", Val::Uint(number)) => {
            i64::try_from(*number).map_or_else(|_| range(), |number| Ok(Val::Int(number)))
        }
        ("int", Val::Double(number)) => to_int(*number).map_or_else(range, |number| Ok(Val::Int(number))),
        ("int", Val::Text(text)) => text.parse().map_or_else(
            |_| fail("type conversion error from 'string' to 'int'"),
            |number| Ok(Val::Int(number)),
        ),
        ("int", Val::Time(time)) => Ok(Val::Int(time.as_second())),
        ("uint", Val::Int(number)) => {
            u64::try_from(*number).map_or_else(|_| range(), |number| Ok(Val::Uint(number)))
        }
        ("uint", Val::Double(number)) => {
            match to_int(*number).and_then(|number| u64::try_from(number).ok()) {
                Some(number) => Ok(Val::Uint(number)),
                None => range(),
            }
        }
        ("uint", Val::Text(text)) => text.parse().map_or_else(
            |_| fail("type conversion error from 'string' to 'uint'"),
            |number| Ok(Val::Uint(number)),
        ),
        #[expect(clippy::cast_precision_loss, reason = "as CEL converts")]
        ("double", Val::Int(number)) => Ok(Val::Double(*number as f64)),
        #[expect(clippy::cast_precision_loss, reason = "as CEL converts")]
        ("double", Val::Uint(number)) => Ok(Val::Double(*number as f64)),
        ("double", Val::Text(text)) => text.parse().map_or_else(
            |_| fail("type conversion error from 'string' to 'double'"),
            |number| Ok(Val::Double(number)),
        ),
        ("string", value) => print(value).map_or_else(|| fail(NO_OVERLOAD), |text| Ok(Val::text(text))),
        ("bytes", Val::Text(text)) => Ok(Val::Bytes(text.as_bytes().into())),
        ("timestamp", Val::Text(text)) => text.parse::<Timestamp>().map_or_else(
            |_| fail("type conversion error from 'string' to 'timestamp'"),
            |time| Ok(Val::Time(time)),
        ),
        ("timestamp", Val::Int(seconds)) => {
            Timestamp::from_second(*seconds).map_or_else(|_| range(), |time| Ok(Val::Time(time)))
        }
        ("duration", Val::Text(text)) => go_duration::parse(text).map_or_else(
            || fail("type conversion error from 'string' to 'duration'"),
            |nanos| Ok(Val::Duration(nanos)),
        ),
        _ => fail(NO_OVERLOAD),
    }
}

/// How a value is written as text; nothing for lists and maps.
pub(super) fn print(value: &Val<'_>) -> Option<String> {
    Some(match value {
        Val::Bool(flag) => flag.to_string(),
        Val::Int(number) => number.to_string(),
        Val::Uint(number) => number.to_string(),
        Val::Double(number) => number.to_string(),
        Val::Text(text) => text.to_string(),
        Val::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        Val::Duration(nanos) => {
            let duration = SignedDuration::from_nanos(*nanos);
            format!("{}s", duration.as_secs_f64())
        }
        Val::Time(time) => time.to_string(),
        Val::Quantity(quantity) => quantity.to_string(),
        Val::Url(url) => url.text.clone(),
        Val::Ip(address) => address.to_string(),
        Val::Cidr(address, bits) => format!("{address}/{bits}"),
        Val::Semver(numbers, pre) => kubernetes::print_semver(numbers, pre),
        Val::Type(name) => (*name).to_owned(),
        _ => return None,
    })
}

/// A text of the checked object or one that was made.
pub(super) fn text_of<'v>(value: &'v Val<'_>) -> Option<&'v str> {
    match value {
        Val::Text(text) => Some(text.as_ref()),
        Val::Json(Value::String(text), _) => Some(text),
        _ => None,
    }
}

/// A list of texts as a value.
pub(super) fn texts<'a>(items: impl Iterator<Item = String>) -> Val<'a> {
    Val::List(Arc::new(items.map(|item| Val::Text(Cow::Owned(item))).collect()))
}
