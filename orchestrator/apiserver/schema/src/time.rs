//! Points in time and lengths of time in the forms of the API.

use jiff::Timestamp;

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Parses RFC 3339, with any offset and any fraction of a second.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    // RFC 3339 demands the `T` and the offset; the parser below would take more than that.
    let shaped = bytes.len() >= 20 && bytes[4] == b'-' && bytes[10] == b'T' && bytes[13] == b':';
    let zoned = text.ends_with('Z') || (bytes.len() >= 25 && bytes[bytes.len() - 3] == b':');
    if shaped && zoned && text.is_ascii() {
        text.parse().ok()
    } else {
        None
    }
}

/// The form of a `Time`: whole seconds, UTC.
#[must_use]
pub fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The form of a `MicroTime`: six digits, UTC.
#[must_use]
pub fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Parses a length such as `1m30s`, `1.5h` or `-5ms` into nanoseconds.
#[must_use]
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        total = total.checked_add(units(number, unit)?)?;
        rest = next;
    }
    let parsed = !matches!(text, "" | "-" | "+");
    parsed.then_some(if negative { -total } else { total })
}

fn units(number: &str, unit: &str) -> Option<i64> {
    let scale = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(scale)?;
    let mut part = scale;
    for digit in fraction.bytes() {
        part /= 10;
        nanos = nanos.checked_add(part.checked_mul(i64::from(digit.checked_sub(b'0')?))?)?;
    }
    Some(nanos)
}

/// The form of a `Duration`: hours, minutes, seconds; below a second the largest fitting unit.
#[must_use]
pub fn duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let (second, minute, hour) = (SECOND.unsigned_abs(), MINUTE.unsigned_abs(), HOUR.unsigned_abs());
    if nanos < second {
        let (scale, unit) = match nanos {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{sign}{}{unit}", with_fraction(nanos, scale));
    }
    let seconds = with_fraction(nanos % minute, second);
    let (hours, minutes) = (nanos / hour, nanos % hour / minute);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

fn with_fraction(nanos: u64, scale: u64) -> String {
    let (whole, mut rest) = (nanos / scale, nanos % scale);
    let mut text = whole.to_string();
    let mut part = scale / 10;
    if rest > 0 {
        text.push('.');
    }
    while rest > 0 {
        text.push_str(&(rest / part).to_string());
        rest %= part;
        part /= 10;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_utc_of_the_right_precision() {
        let cases = [
            (
                "2024-01-02T03:04:05Z",
                "2024-01-02T03:04:05Z",
                "2024-01-02T03:04:05.000000Z",
            ),
            (
                "2024-01-02T03:04:05.1234567Z",
                "2024-01-02T03:04:05Z",
                "2024-01-02T03:04:05.123456Z",
            ),
            (
                "2024-01-02T03:04:05+02:00",
                "2024-01-02T01:04:05Z",
                "2024-01-02T01:04:05.000000Z",
            ),
        ];
        for (text, whole, fine) in cases {
            let time = parse(text).unwrap();
            assert_eq!(
                (seconds(time).as_str(), micros(time).as_str()),
                (whole, fine),
                "{text}"
            );
        }
        for text in [
            "",
            "yesterday",
            "2024-01-02",
            "2024-01-02 03:04:05Z",
            "2024-01-02T03:04:05",
            "2024-13-02T03:04:05Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn lengths_read_and_print_as_upstream_does() {
        let cases = [
            ("1m30s", "1m30s"),
            ("90s", "1m30s"),
            ("1.5h", "1h30m0s"),
            ("0", "0s"),
            ("250ms", "250ms"),
            ("1500us", "1.5ms"),
            ("-5s", "-5s"),
            ("10ns", "10ns"),
        ];
        for (text, canonical) in cases {
            assert_eq!(
                parse_duration(text).map(duration).as_deref(),
                Some(canonical),
                "{text}"
            );
        }
        for text in ["", "-", "5", "s", "1x", "1.s.", "1h-5m"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
