//! Kubernetes' own libraries: quantities, URLs, addresses, semantic versions, named formats.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use super::eval::{Evaluation, Outcome, fail};
use super::functions::{text_of, texts};
use super::value::{Url, Val};
use crate::names;
use crate::quantity::Quantity;

const NO_OVERLOAD: &str = "no such overload";

pub(super) fn global<'a>(eval: &mut Evaluation<'a>, function: &str, values: &[Val<'a>]) -> Outcome<'a> {
    let text = values.first().and_then(text_of);
    let Some(text) = text else {
        return match (function, values) {
            ("ip" | "cidr" | "quantity" | "url" | "semver", _) => fail(NO_OVERLOAD),
            _ => fail(format!("undeclared reference to '{function}'")),
        };
    };
    eval.pay(text.len() as u64 / 10 + 1)?;
    let made = |value: Option<Val<'a>>, what: &str| {
        value.map_or_else(
            || {
                fail(format!(
                    "{what} {text:?} parse error during conversion from string"
                ))
            },
            Ok,
        )
    };
    match function {
        "quantity" => made(quantity(text), "quantity"),
        "isQuantity" => Ok(Val::Bool(quantity(text).is_some())),
        "url" => made(url(text).map(|url| Val::Url(Arc::new(url))), "URL"),
        "isURL" => Ok(Val::Bool(url(text).is_some())),
        "ip" => made(ip(text).map(Val::Ip), "IP Address"),
        "isIP" => Ok(Val::Bool(ip(text).is_some())),
        "cidr" => made(cidr(text), "CIDR"),
        "isCIDR" => Ok(Val::Bool(cidr(text).is_some())),
        "semver" => made(semver(text), "semver"),
        "isSemver" => Ok(Val::Bool(semver(text).is_some())),
        _ => fail(format!("undeclared reference to '{function}'")),
    }
}

pub(super) fn of_namespace<'a>(space: &str, function: &str, values: &[Val<'a>]) -> Outcome<'a> {
    match (space, function, values) {
        ("ip", "isCanonical", [value]) => {
            let parsed = text_of(value).and_then(|text| Some((text, ip(text)?)));
            parsed.map_or_else(
                || fail("IP Address parse error"),
                |(text, address)| Ok(Val::Bool(address.to_string() == text)),
            )
        }
        ("format", "named", [value]) => {
            let known = text_of(value).and_then(format_named);
            Ok(known.map_or(Val::Optional(None), Val::some))
        }
        ("format", name, []) => {
            format_named(name).map_or_else(|| fail(format!("undeclared reference to 'format.{name}'")), Ok)
        }
        _ => fail(format!("undeclared reference to '{space}.{function}'")),
    }
}

/// Names of formats as expressions write them.
fn format_named<'a>(name: &str) -> Option<Val<'a>> {
    const KNOWN: [&str; 13] = [
        "dns1123Label",
        "dns1123Subdomain",
        "dns1035Label",
        "qualifiedName",
        "dns1123LabelPrefix",
        "dns1123SubdomainPrefix",
        "dns1035LabelPrefix",
        "labelValue",
        "uri",
        "uuid",
        "byte",
        "date",
        "datetime",
    ];
    KNOWN.contains(&name).then(|| Val::Format(name.into()))
}

/// What is wrong with a text by a named format.
fn format_faults(name: &str, text: &str) -> Vec<String> {
    let prefixed = format!("{text}a");
    let known = |format: &str, what: &str| {
        if crate::custom::formats::holds(format, text) {
            Vec::new()
        } else {
            vec![format!("invalid {what}")]
        }
    };
    match name {
        "dns1123Label" => names::dns1123_label(text),
        "dns1123Subdomain" => names::dns1123_subdomain(text),
        "dns1035Label" => names::dns1035_label(text),
        "qualifiedName" => names::qualified_name(text),
        "dns1123LabelPrefix" => names::dns1123_label(&prefixed),
        "dns1123SubdomainPrefix" => names::dns1123_subdomain(&prefixed),
        "dns1035LabelPrefix" => names::dns1035_label(&prefixed),
        "labelValue" => names::label_value(text),
        "uri" => known("uri", "URI"),
        "uuid" => known("uuid", "UUID"),
        "byte" => known("byte", "base64"),
        "date" => known("date", "date"),
        _ => known("date-time", "datetime"),
    }
}

pub(super) fn member<'a>(target: &Val<'a>, function: &str, values: &[Val<'a>]) -> Outcome<'a> {
    match target {
        Val::Quantity(quantity) => of_quantity(quantity, function, values),
        Val::Url(url) => of_url(url, function, values),
        Val::Ip(address) => of_ip(address, function, values),
        Val::Cidr(address, bits) => of_cidr(*address, *bits, function, values),
        Val::Semver(numbers, pre) => of_semver(numbers, pre, function, values),
        Val::Format(name) => match (function, values) {
            ("validate", [value]) => {
                let Some(text) = text_of(value) else {
                    return fail(NO_OVERLOAD);
                };
                let faults = format_faults(name, text);
                Ok(if faults.is_empty() {
                    Val::Optional(None)
                } else {
                    Val::some(texts(faults.into_iter()))
                })
            }
            _ => fail(format!("undeclared reference to '{function}'")),
        },
        _ => fail(format!("undeclared reference to '{function}'")),
    }
}

fn quantity<'a>(text: &str) -> Option<Val<'a>> {
    Quantity::parse(text)
        .ok()
        .map(|quantity| Val::Quantity(Arc::new(quantity)))
}

fn of_quantity<'a>(quantity: &Arc<Quantity>, function: &str, values: &[Val<'a>]) -> Outcome<'a> {
    let other = match values {
        [Val::Quantity(other)] => Some(**other),
        [Val::Int(number)] => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    };
    match (function, other, values.len()) {
        ("sign", None, 0) => Ok(Val::Int(i64::from(quantity.signum()))),
        ("isInteger", None, 0) => Ok(Val::Bool(quantity.is_whole())),
        ("asInteger", None, 0) if quantity.is_whole() => Ok(Val::Int(quantity.value())),
        ("asInteger", None, 0) => fail("cannot convert value to integer"),
        ("asApproximateFloat", None, 0) => {
            let milli = quantity.milli_value();
            #[expect(clippy::cast_precision_loss, reason = "approximate by its name")]
            Ok(Val::Double(milli as f64 / 1000.0))
        }
        ("isGreaterThan", Some(other), 1) => Ok(Val::Bool(**quantity > other)),
        ("isLessThan", Some(other), 1) => Ok(Val::Bool(**quantity < other)),
        ("compareTo", Some(other), 1) => Ok(Val::Int(match (**quantity).cmp(&other) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        })),
        ("add", Some(other), 1) => Ok(Val::Quantity(Arc::new(quantity.plus(&other)))),
        ("sub", Some(other), 1) => Ok(Val::Quantity(Arc::new(quantity.minus(&other)))),
        _ => fail(format!("undeclared reference to '{function}'")),
    }
}

/// Takes a URL apart: one with a scheme, or an absolute path.
fn url(text: &str) -> Option<Url> {
    if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return None;
    }
    let (scheme, rest) = match text.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
        _ if text.starts_with('/') => ("", text),
        _ => return None,
    };
    let (rest, _) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.find('/').map_or((rest, ""), |at| rest.split_at(at)),
        None => ("", rest),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(Url {
        text: text.to_owned(),
        scheme: scheme.to_lowercase(),
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
    })
}

fn is_scheme(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

fn of_url<'a>(url: &Url, function: &str, values: &[Val<'a>]) -> Outcome<'a> {
    if !values.is_empty() {
        return fail(NO_OVERLOAD);
    }
    let (name, port) = match url.host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port),
        _ => (url.host.as_str(), ""),
    };
    Ok(match function {
        "getScheme" => Val::text(url.scheme.clone()),
        "getHost" => Val::text(url.host.clone()),
        "getHostname" => Val::text(name.trim_matches(['[', ']'])),
        "getPort" => Val::text(port),
        "getEscapedPath" => Val::text(url.path.clone()),
        "getQuery" => {
            let mut map: std::collections::BTreeMap<_, Vec<Val<'a>>> = std::collections::BTreeMap::new();
            for pair in url.query.split('&').filter(|pair| !pair.is_empty()) {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                let key = super::value::Key::Text(unescaped(name));
                map.entry(key).or_default().push(Val::text(unescaped(value)));
            }
            Val::Map(Arc::new(
                map.into_iter()
                    .map(|(key, list)| (key, Val::list(list)))
                    .collect(),
            ))
        }
        _ => return fail(format!("undeclared reference to '{function}'")),
    })
}

/// Undoes the escapes of a query.
fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = text
            .get(at + 1..at + 3)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => {
                out.push(code);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (other, _) => out.push(other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn ip(text: &str) -> Option<IpAddr> {
    // Neither zones nor addresses of the fourth version in the form of the sixth.
    let address: IpAddr = text.parse().ok()?;
    let is_mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    (!is_mapped && !text.contains('%')).then_some(address)
}

fn of_ip<'a>(address: &IpAddr, function: &str, values: &[Val<'a>]) -> Outcome<'a> {
    if !values.is_empty() {
        return fail(NO_OVERLOAD);
    }
    let flag = match (function, address) {
        ("family", IpAddr::V4(_)) => return Ok(Val::Int(4)),
        ("family", IpAddr::V6(_)) => return Ok(Val::Int(6)),
        ("isUnspecified", address) => address.is_unspecified(),
        ("isLoopback", address) => address.is_loopback(),
        ("isLinkLocalMulticast", IpAddr::V4(address)) => address.octets()[..3] == [224, 0, 0],
        ("isLinkLocalMulticast", IpAddr::V6(address)) => address.segments()[0] & 0xff0f == 0xff02,
        ("isLinkLocalUnicast", IpAddr::V4(address)) => address.is_link_local(),
        ("isLinkLocalUnicast", IpAddr::V6(address)) => address.segments()[0] & 0xffc0 == 0xfe80,
        ("isGlobalUnicast", IpAddr::V4(address)) => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.is_broadcast()
                || address.is_link_local())
        }
        ("isGlobalUnicast", IpAddr::V6(address)) => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.segments()[0] & 0xffc0 == 0xfe80)
        }
        _ => return fail(format!("undeclared reference to '{function}'")),
    };
    Ok(Val::Bool(flag))
}

fn cidr<'a>(text: &str) -> Option<Val<'a>> {
    let (address, bits) = text.split_once('/')?;
    let address = ip(address)?;
    let is_plain = bits.len() <= 3
        && bits.bytes().all(|byte| byte.is_ascii_digit())
        && (bits == "0" || !bits.starts_with('0'));
    let bits = bits
        .parse::<u8>()
        .ok()
        .filter(|bits| is_plain && *bits <= width(address))?;
    Some(Val::Cidr(address, bits))
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first bits of an address, the others zero.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

fn of_cidr<'a>(address: IpAddr, bits: u8, function: &str, values: &[Val<'a>]) -> Outcome<'a> {
    let holds =
        |other: IpAddr| other.is_ipv4() == address.is_ipv4() && masked(other, bits) == masked(address, bits);
    match (function, values) {
        ("containsIP", [value]) => {
            let other = match value {
                Val::Ip(other) => Some(*other),
                other => text_of(other).and_then(ip),
            };
            other.map_or_else(
                || fail("IP Address parse error"),
                |other| Ok(Val::Bool(holds(other))),
            )
        }
        ("containsCIDR", [value]) => {
            let other = match value {
                Val::Cidr(..) => Some(value.clone()),
                other => text_of(other).and_then(cidr),
            };
            match other {
                Some(Val::Cidr(other, others)) => Ok(Val::Bool(others >= bits && holds(other))),
                _ => fail("CIDR parse error"),
            }
        }
        ("ip", []) => Ok(Val::Ip(address)),
        ("masked", []) => Ok(Val::Cidr(masked(address, bits), bits)),
        ("prefixLength", []) => Ok(Val::Int(i64::from(bits))),
        _ => fail(format!("undeclared reference to '{function}'")),
    }
}

fn semver<'a>(text: &str) -> Option<Val<'a>> {
    let (core, _) = text.split_once('+').unwrap_or((text, ""));
    let (core, pre) = core.split_once('-').unwrap_or((core, ""));
    let mut numbers = core.split('.').map(|part| {
        let is_plain = part == "0" || !part.starts_with('0');
        part.parse::<u64>()
            .ok()
            .filter(|_| is_plain && part.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let found = [numbers.next()??, numbers.next()??, numbers.next()??];
    let has_pre = text.contains('-');
    let is_well = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    (numbers.next().is_none() && (!has_pre || pre.split('.').all(is_well)))
        .then(|| Val::Semver(Arc::new(found), pre.into()))
}

pub(super) fn print_semver(numbers: &[u64; 3], pre: &str) -> String {
    let [major, minor, patch] = numbers;
    let dash = if pre.is_empty() { "" } else { "-" };
    format!("{major}.{minor}.{patch}{dash}{pre}")
}

pub(super) fn compare_semver((a, pre): (&[u64; 3], &str), (b, others): (&[u64; 3], &str)) -> Ordering {
    let by_part = || {
        let mut parts = others.split('.');
        for part in pre.split('.') {
            let Some(other) = parts.next() else {
                return Ordering::Greater;
            };
            let order = match (part.parse::<u64>(), other.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => part.cmp(other),
            };
            if order != Ordering::Equal {
                return order;
            }
        }
        if parts.next().is_some() {
            Ordering::Less
        } else {
            Ordering::Equal
        }
    };
    a.cmp(b).then_with(|| match (pre.is_empty(), others.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => by_part(),
    })
}

fn of_semver<'a>(numbers: &[u64; 3], pre: &str, function: &str, values: &[Val<'a>]) -> Outcome<'a> {
    let part = |place: usize| {
        i64::try_from(numbers[place]).map_or_else(|_| fail("integer overflow"), |number| Ok(Val::Int(number)))
    };
    match (function, values) {
        ("major", []) => part(0),
        ("minor", []) => part(1),
        ("patch", []) => part(2),
        ("isLessThan" | "isGreaterThan" | "compareTo", [Val::Semver(other, others)]) => {
            let order = compare_semver((numbers, pre), (other, others));
            Ok(match function {
                "isLessThan" => Val::Bool(order == Ordering::Less),
                "isGreaterThan" => Val::Bool(order == Ordering::Greater),
                _ => Val::Int(order as i64),
            })
        }
        _ => fail(format!("undeclared reference to '{function}'")),
    }
}
