//! Lengths of time as Go writes them: `1h30m`, `-1.5s`, `100ms`.

const NANOS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// Nanoseconds of a length of time; nothing if the text is none, or too long for Go.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut whole: i64 = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number = &rest[..digits];
        if number == "." || number.is_empty() {
            return None;
        }
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let factor = NANOS
            .iter()
            .find(|(unit, _)| *unit == &rest[..end])
            .map(|(_, factor)| *factor)?;
        rest = &rest[end..];
        let nanos = number.parse::<f64>().ok()? * factor;
        if nanos.abs() >= 9.2e18 {
            return None;
        }
        // Checked above.
        whole = whole.checked_add(format!("{:.0}", nanos.trunc()).parse().ok()?)?;
    }
    Some(if sign < 0.0 { -whole } else { whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let cases = [
            ("1h30m", 5_400_000_000_000),
            ("-1.5s", -1_500_000_000),
            ("100ms", 100_000_000),
            ("1h1ns", 3_600_000_000_001),
            ("0", 0),
            ("1500us", 1_500_000),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse(text), Some(nanos), "{text}");
        }
        for bad in ["", "1", "h", "1x", ".s", "1h 2m", "9999999999h"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
