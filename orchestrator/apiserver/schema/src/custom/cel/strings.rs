//! Functions of texts: CEL's own, the strings extension, and Kubernetes' `find` and `findAll`.

use regex::Regex;

use super::eval::{Evaluation, Outcome, fail};
use super::functions::{print, text_of, texts};
use super::lists;
use super::value::Val;
use crate::custom::structural::compile_pattern;

/// What compiling a pattern costs, beside its length.
const PATTERN_COST: u64 = 20;

pub(super) fn member<'a>(
    eval: &mut Evaluation<'a>,
    text: &str,
    function: &str,
    values: &[Val<'a>],
) -> Outcome<'a> {
    eval.pay(text.len() as u64 / 10 + 1)?;
    let first = values.first().and_then(text_of);
    match (function, first, values.len()) {
        ("contains", Some(part), 1) => Ok(Val::Bool(text.contains(part))),
        ("startsWith", Some(part), 1) => Ok(Val::Bool(text.starts_with(part))),
        ("endsWith", Some(part), 1) => Ok(Val::Bool(text.ends_with(part))),
        ("matches", Some(_), 1) => matches(eval, &Val::text(text), &values[0]),
        ("find", Some(pattern), 1) => {
            let pattern = compile(eval, pattern, text)?;
            Ok(Val::text(pattern.find(text).map_or("", |found| found.as_str())))
        }
        ("findAll", Some(pattern), 1 | 2) => {
            let pattern = compile(eval, pattern, text)?;
            let limit = limit(values.get(1))?;
            Ok(texts(
                pattern
                    .find_iter(text)
                    .take(limit)
                    .map(|found| found.as_str().to_owned()),
            ))
        }
        ("lowerAscii", None, 0) => Ok(Val::text(text.to_ascii_lowercase())),
        ("upperAscii", None, 0) => Ok(Val::text(text.to_ascii_uppercase())),
        ("trim", None, 0) => Ok(Val::text(text.trim())),
        ("reverse", None, 0) => Ok(Val::text(text.chars().rev().collect::<String>())),
        ("split", Some(separator), 1 | 2) => {
            let limit = limit(values.get(1))?;
            eval.pay(text.len() as u64 / 4)?;
            Ok(texts(split(text, separator, limit).into_iter()))
        }
        ("replace", Some(from), 2 | 3) => replace(eval, text, from, values),
        ("charAt", ..) | ("substring", ..) => by_place(text, function, values),
        ("indexOf" | "lastIndexOf", Some(part), 1 | 2) => index_of(text, function, part, values.get(1)),
        ("format", None, 1) => match values[0].items() {
            Some(arguments) => {
                eval.pay(values[0].weight())?;
                format(text, &arguments)
            }
            None => fail("no such overload"),
        },
        ("join", ..) => lists::member(eval, &Val::text(text), function, values),
        (
            "contains" | "startsWith" | "endsWith" | "find" | "findAll" | "split" | "replace" | "indexOf",
            ..,
        ) => fail("no such overload"),
        _ => fail(format!("undeclared reference to '{function}'")),
    }
}

pub(super) fn matches<'a>(eval: &mut Evaluation<'a>, text: &Val<'a>, pattern: &Val<'a>) -> Outcome<'a> {
    let (Some(text), Some(pattern)) = (text_of(text), text_of(pattern)) else {
        return fail("no such overload");
    };
    let pattern = compile(eval, pattern, text)?;
    Ok(Val::Bool(pattern.is_match(text)))
}

fn compile(eval: &mut Evaluation<'_>, pattern: &str, text: &str) -> Result<Regex, super::eval::Failure> {
    let size = pattern.len() as u64;
    eval.pay(PATTERN_COST + size + (text.len() as u64 / 10 + 1) * (size / 4 + 1))?;
    compile_pattern(pattern).or_else(|error| fail(format!("error parsing regexp: {error}")))
}

/// A limit where negative means none.
fn limit(value: Option<&Val<'_>>) -> Result<usize, super::eval::Failure> {
    match value {
        None => Ok(usize::MAX),
        Some(Val::Int(limit)) => Ok(usize::try_from(*limit).unwrap_or(usize::MAX)),
        Some(_) => fail("no such overload"),
    }
}

fn split(text: &str, separator: &str, limit: usize) -> Vec<String> {
    if limit == 0 {
        return Vec::new();
    }
    if separator.is_empty() {
        let chars: Vec<char> = text.chars().collect();
        let alone = chars.len().min(limit.saturating_sub(1));
        let mut parts: Vec<String> = chars[..alone].iter().map(char::to_string).collect();
        if alone < chars.len() {
            parts.push(chars[alone..].iter().collect());
        }
        return parts;
    }
    text.splitn(limit, separator).map(str::to_owned).collect()
}

fn replace<'a>(eval: &mut Evaluation<'a>, text: &str, from: &str, values: &[Val<'a>]) -> Outcome<'a> {
    let Some(to) = text_of(&values[1]) else {
        return fail("no such overload");
    };
    let limit = limit(values.get(2))?;
    let count = if from.is_empty() {
        text.len() + 1
    } else {
        text.matches(from).count()
    }
    .min(limit);
    let size = text.len() + count.saturating_mul(to.len());
    eval.pay(size as u64 / 10)?;
    Ok(Val::text(text.replacen(from, to, limit)))
}

fn place(value: &Val<'_>, max: usize) -> Result<usize, super::eval::Failure> {
    let Val::Int(place) = value else {
        return fail("no such overload");
    };
    match usize::try_from(*place) {
        Ok(place) if place <= max => Ok(place),
        _ => fail(format!("index out of range: {place}")),
    }
}

fn by_place<'a>(text: &str, function: &str, values: &[Val<'a>]) -> Outcome<'a> {
    let chars: Vec<char> = text.chars().collect();
    let part = |from: usize, to: usize| Ok(Val::text(chars[from..to].iter().collect::<String>()));
    match (function, values) {
        ("charAt", [at]) => {
            let at = place(at, chars.len())?;
            part(at, (at + 1).min(chars.len()))
        }
        ("substring", [from]) => part(place(from, chars.len())?, chars.len()),
        ("substring", [from, to]) => {
            let (from, to) = (place(from, chars.len())?, place(to, chars.len())?);
            if from > to {
                return fail(format!("invalid substring range. start: {from}, end: {to}"));
            }
            part(from, to)
        }
        _ => fail("no such overload"),
    }
}

fn index_of<'a>(text: &str, function: &str, part: &str, from: Option<&Val<'a>>) -> Outcome<'a> {
    let count = text.chars().count();
    let byte_of = |place: usize| text.char_indices().nth(place).map_or(text.len(), |(at, _)| at);
    let found = match (function, from) {
        ("indexOf", None) => text.find(part),
        ("indexOf", Some(from)) => {
            let start = byte_of(place(from, count)?);
            text[start..].find(part).map(|at| at + start)
        }
        (_, None) => text.rfind(part),
        (_, Some(from)) => {
            let end = byte_of(place(from, count)?)
                .saturating_add(part.len())
                .min(text.len());
            text.get(..end).and_then(|head| head.rfind(part))
        }
    };
    let index = found.map(|at| text[..at].chars().count());
    Ok(Val::Int(
        index.and_then(|index| i64::try_from(index).ok()).unwrap_or(-1),
    ))
}

/// `%s`, `%d`, `%f`, `%e`, `%b`, `%x`, `%X`, `%o` and `%%`.
fn format<'a>(text: &str, arguments: &[Val<'a>]) -> Outcome<'a> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            precision = Some(digits.parse::<usize>().unwrap_or(0).min(64));
        }
        let Some(verb) = chars.next() else {
            return fail("unexpected end of format string");
        };
        let Some(argument) = arguments.next() else {
            return fail("index out of range of format arguments");
        };
        out.push_str(&written(verb, precision, argument)?);
    }
    Ok(Val::text(out))
}

fn written(verb: char, precision: Option<usize>, value: &Val<'_>) -> Result<String, super::eval::Failure> {
    let digits = precision.unwrap_or(6);
    Ok(match (verb, value) {
        ('s', value) => shown(value),
        ('d', Val::Int(number)) => number.to_string(),
        ('d', Val::Uint(number)) => number.to_string(),
        ('f', Val::Double(number)) => format!("{number:.digits$}"),
        #[expect(clippy::cast_precision_loss, reason = "as CEL prints ints")]
        ('f', Val::Int(number)) => format!("{:.digits$}", *number as f64),
        ('e', Val::Double(number)) => format!("{number:.digits$e}"),
        ('b', Val::Int(number)) => format!("{number:b}"),
        ('b', Val::Bool(flag)) => u8::from(*flag).to_string(),
        ('o', Val::Int(number)) => format!("{number:o}"),
        ('x', Val::Int(number)) => format!("{number:x}"),
        ('X', Val::Int(number)) => format!("{number:X}"),
        ('x', Val::Text(text)) => hex::encode(text.as_bytes()),
        ('X', Val::Text(text)) => hex::encode_upper(text.as_bytes()),
        ('x', Val::Bytes(bytes)) => hex::encode(bytes),
        _ => {
            return fail(format!(
                "error during formatting: could not format {} with %{verb}",
                value.type_name()
            ));
        }
    })
}

/// Any value in a text.
fn shown(value: &Val<'_>) -> String {
    if let Some(text) = print(value) {
        return text;
    }
    if let Some(items) = value.items() {
        let items: Vec<String> = items.iter().map(shown).collect();
        return format!("[{}]", items.join(", "));
    }
    if let Some(entries) = value.entries() {
        let entries: Vec<String> = entries
            .iter()
            .map(|(key, value)| format!("{}: {}", shown(key), shown(value)))
            .collect();
        return format!("{{{}}}", entries.join(", "));
    }
    match value {
        Val::Null => "null".to_owned(),
        other => other.type_name().to_owned(),
    }
}
