//! Formats of texts, as the reference server knows them; those it doesn't know hold for every text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Whether a text has a format.
pub(super) fn holds(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => is_date_time(text),
        "date" => jiff::civil::Date::from_str(text).is_ok() && text.len() == 10,
        "duration" => is_duration(text),
        "ipv4" => Ipv4Addr::from_str(text).is_ok(),
        "ipv6" => Ipv6Addr::from_str(text).is_ok(),
        "ip" => IpAddr::from_str(text).is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uri" => is_uri(text),
        "email" => is_email(text),
        "hostname" => is_hostname(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => is_uuid(text),
        "byte" => BASE64_STANDARD.decode(text).is_ok(),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "hexcolor" => is_hex_color(text),
        "creditcard" => is_digits(text.replace(['-', ' '], "").as_str(), 13..=19),
        "ssn" => is_digits(text.replace(['-', ' '], "").as_str(), 9..=9),
        "isbn" => holds("isbn10", text) || holds("isbn13", text),
        "isbn10" => is_digits(text.replace(['-', ' '], "").trim_end_matches('X'), 9..=10),
        "isbn13" => is_digits(text.replace(['-', ' '], "").as_str(), 13..=13),
        "quantity" => crate::quantity::Quantity::parse(text).is_ok(),
        "k8s-short-name" => crate::names::dns1123_label(text).is_empty(),
        "k8s-long-name" => crate::names::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

fn is_digits(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_date_time(text: &str) -> bool {
    let has_time = text
        .as_bytes()
        .get(10)
        .is_some_and(|byte| matches!(byte, b'T' | b't'));
    has_time && jiff::Timestamp::from_str(text).is_ok()
}

/// Go's durations (`1h30m`), and weeks and days beside them.
fn is_duration(text: &str) -> bool {
    super::go_duration::parse(text).is_some() || is_spoken_duration(text)
}

/// Such as `3 days`.
fn is_spoken_duration(text: &str) -> bool {
    const UNITS: [&str; 9] = ["ns", "us", "ms", "second", "minute", "hour", "day", "week", "d"];
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = text[digits..].trim();
    digits > 0
        && UNITS
            .iter()
            .any(|known| unit == *known || unit.strip_suffix('s') == Some(known))
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let bits = match IpAddr::from_str(address) {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.parse::<u8>().is_ok_and(|length| length <= bits)
}

fn is_mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len(), 6 | 8 | 20)
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_uri(text: &str) -> bool {
    !text.bytes().any(|byte| byte <= b' ' || byte == 0x7f)
        && (text.starts_with('/')
            || text.split_once(':').is_some_and(|(scheme, rest)| {
                let mut bytes = scheme.bytes();
                bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
                    && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
                    && !rest.is_empty()
            }))
}

fn is_email(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !local.contains(char::is_whitespace) && is_hostname(domain)
    })
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
    };
    text.len() <= 255 && text.split('.').all(label)
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    hex && match parts.as_slice() {
        [whole] => whole.len() == 32,
        parts => parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]),
    }
}

fn is_hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_tell_good_from_bad() {
        let cases: [(&str, &[&str], &[&str]); 14] = [
            (
                "date-time",
                &["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123+01:00"],
                &["2026-01-02", "x", "2026-13-02T03:04:05Z"],
            ),
            (
                "date",
                &["2026-01-02"],
                &["2026-1-2", "2026-01-02T03:04:05Z", "2026-02-30"],
            ),
            (
                "duration",
                &["1h30m", "10ms", "3 days", "-1.5h"],
                &["", "1x", "h"],
            ),
            ("ipv4", &["1.2.3.4"], &["1.2.3", "::1"]),
            ("ipv6", &["::1"], &["1.2.3.4", "g::"]),
            ("cidr", &["10.0.0.0/8", "::/0"], &["10.0.0.0", "10.0.0.0/33"]),
            (
                "mac",
                &["00:11:22:aa:bb:cc", "00-11-22-aa-bb-cc"],
                &["00:11:22", "00:11:22:aa:bb:gg"],
            ),
            ("uri", &["https://a.b/c", "/path"], &["a b", "no-scheme"]),
            ("email", &["a@b.c"], &["a", "@b", "a b@c"]),
            ("hostname", &["a.b-c"], &["-a", "a..b"]),
            (
                "uuid",
                &["123e4567-e89b-12d3-a456-426614174000"],
                &["123e4567", "x23e4567-e89b-12d3-a456-426614174000"],
            ),
            ("byte", &["aGVsbG8="], &["a", "*"]),
            ("quantity", &["1Gi", "0.5"], &["1Zi", "x"]),
            ("no-such-format", &["anything"], &[]),
        ];
        for (format, good, bad) in cases {
            for text in good {
                assert!(holds(format, text), "{format} {text:?}");
            }
            for text in bad {
                assert!(!holds(format, text), "{format} {text:?}");
            }
        }
    }
}
