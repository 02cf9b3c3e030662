//! Schedules of CronJobs: five fields, or a word such as `@daily`. The faults are told as upstream's parser tells them.

use crate::time;

/// A field's smallest and largest number, and the names that stand for some of them.
struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Bounds; 5] = [
    Bounds::new(0, 59, &[]),
    Bounds::new(0, 23, &[]),
    Bounds::new(1, 31, &[]),
    Bounds::new(1, 12, MONTHS),
    Bounds::new(0, 6, DAYS),
];
const WORDS: [&str; 7] = [
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
];

impl Bounds {
    const fn new(low: u32, high: u32, names: &'static [&'static str]) -> Bounds {
        Bounds { low, high, names }
    }
}

/// Why a text is no schedule.
pub(super) fn fault(schedule: &str) -> Option<String> {
    check(schedule).err()
}

fn check(schedule: &str) -> Result<(), String> {
    if schedule.starts_with('@') {
        return word(schedule);
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly {} fields, found {}: [{}]",
            FIELDS.len(),
            fields.len(),
            fields.join(" ")
        ));
    }
    for (field, bounds) in fields.iter().zip(&FIELDS) {
        for expression in field.split(',').filter(|expression| !expression.is_empty()) {
            range(expression, bounds)?;
        }
    }
    Ok(())
}

fn word(schedule: &str) -> Result<(), String> {
    if WORDS.contains(&schedule) {
        return Ok(());
    }
    match schedule.strip_prefix("@every ") {
        Some(interval) if time::parse_duration(interval).is_some() => Ok(()),
        Some(_) => Err(format!("failed to parse duration {schedule}")),
        None => Err(format!("unrecognized descriptor: {schedule}")),
    }
}

/// `*`, `3`, `1-5`, `*/2`, `1-9/2` or `3/4`.
fn range(expression: &str, bounds: &Bounds) -> Result<(), String> {
    let mut parts = expression.split('/');
    let span = parts.next().unwrap_or_default();
    let step = parts.next();
    if parts.next().is_some() {
        return Err(format!("too many slashes: {expression}"));
    }
    let ends: Vec<&str> = span.split('-').collect();
    let (start, mut end) = match ends.as_slice() {
        ["*" | "?"] => (bounds.low, bounds.high),
        [one] => (number(one, bounds)?, number(one, bounds)?),
        [from, to] => (number(from, bounds)?, number(to, bounds)?),
        _ => return Err(format!("too many hyphens: {expression}")),
    };
    let step = match step {
        None => 1,
        Some(step) => {
            // One number with a step goes on to the end.
            if ends.len() == 1 {
                end = bounds.high;
            }
            integer(step)?
        }
    };
    let is_below = start < bounds.low;
    if is_below {
        let low = bounds.low;
        return Err(format!(
            "beginning of range ({start}) below minimum ({low}): {expression}"
        ));
    }
    if end > bounds.high {
        let high = bounds.high;
        return Err(format!(
            "end of range ({end}) above maximum ({high}): {expression}"
        ));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {expression}"
        ));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {expression}"));
    }
    Ok(())
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let lower = text.to_lowercase();
    let named = bounds.names.iter().position(|name| *name == lower);
    match named.and_then(|at| u32::try_from(at).ok()) {
        Some(at) => Ok(at + bounds.low),
        None => integer(text),
    }
}

fn integer(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        let cases = [
            ("* * * * *", None),
            ("*/5 0-12/2 1,15 JAN-mar sun", None),
            ("3/4 ? * * 6", None),
            ("@daily", None),
            ("@every 1h30m", None),
            ("@every soon", Some("failed to parse duration @every soon")),
            ("@fortnightly", Some("unrecognized descriptor: @fortnightly")),
            ("* * *", Some("expected exactly 5 fields, found 3: [* * *]")),
            ("60 * * * *", Some("end of range (60) above maximum (59): 60")),
            ("* * 0 * *", Some("beginning of range (0) below minimum (1): 0")),
            (
                "9-3 * * * *",
                Some("beginning of range (9) beyond end of range (3): 9-3"),
            ),
            (
                "*/0 * * * *",
                Some("step of range should be a positive number: */0"),
            ),
            ("1-2-3 * * * *", Some("too many hyphens: 1-2-3")),
            ("1/2/3 * * * *", Some("too many slashes: 1/2/3")),
            (
                "x * * * *",
                Some("failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ),
        ];
        for (schedule, expected) in cases {
            assert_eq!(fault(schedule).as_deref(), expected, "{schedule}");
        }
    }
}
