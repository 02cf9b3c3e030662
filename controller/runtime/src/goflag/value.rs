//! Values of flags as Go reads them. Pure.

use std::time::Duration;

use super::Kind;

/// What is wrong with a value of that kind.
pub(super) fn check(kind: Kind, value: &str) -> Result<(), String> {
    let is_good = match kind {
        Kind::Text => true,
        Kind::Bool => parse_bool(value).is_some(),
        Kind::Int => value.parse::<i64>().is_ok(),
        Kind::Uint => value.parse::<usize>().is_ok(),
        Kind::Float => value.parse::<f64>().is_ok_and(f64::is_finite),
        Kind::Duration => parse_duration(value).is_some(),
        Kind::Gates => {
            pairs(value, '=').all(|(_, value)| value.is_some_and(|text| parse_bool(text).is_some()))
        }
        Kind::Labels => pairs(value, ':').all(|(key, value)| !key.is_empty() && value.is_some()),
    };
    if is_good {
        return Ok(());
    }
    Err(match kind {
        Kind::Text => "wrong",
        Kind::Bool => "neither true nor false",
        Kind::Int => "no whole number",
        Kind::Uint => "no whole number from 0 on",
        Kind::Float => "no number",
        Kind::Duration => "no duration from 0 on, such as 15s, 1m30s or 250ms",
        Kind::Gates => "not of the form Gate=true,OtherGate=false",
        Kind::Labels => "not of the form key:value,other-key:value",
    }
    .to_owned())
}

fn pairs(value: &str, sign: char) -> impl Iterator<Item = (&str, Option<&str>)> {
    let items = value.split(',').filter(|item| !item.trim().is_empty());
    items.map(move |item| match item.split_once(sign) {
        Some((key, value)) => (key.trim(), Some(value.trim())),
        None => (item.trim(), None),
    })
}

/// A boolean in one of the spellings that Go knows.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A duration as Go writes it: numbers with units, added up, as `1h15m30.5s`; `0` needs no unit. Negative ones are refused:
/// no flag has a use for them.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number * unit;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(nanos / 1e9).ok()
}

/// How many letters have to be put in, taken out or changed to make one word of the other.
pub(super) fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("0", Some(0)),
            ("15s", Some(15_000)),
            ("1m30s", Some(90_000)),
            ("1h0m0s", Some(3_600_000)),
            ("250ms", Some(250)),
            ("1.5s", Some(1_500)),
            (".5s", Some(500)),
            ("1500us", Some(1)),
            ("+2s", Some(2_000)),
            ("", None),
            ("5", None),
            ("-5s", None),
            ("5 s", None),
            ("s", None),
            ("5d", None),
            ("99999999999999999999h", None),
        ];
        for (text, millis) in cases {
            let found = parse_duration(text).map(|duration| duration.as_millis());
            assert_eq!(found, millis, "{text:?}");
        }
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "ab", 2),
            ("timeout", "timout", 1),
            ("abc", "acb", 2),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
