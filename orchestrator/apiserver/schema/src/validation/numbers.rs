//! Numbers that may be a share of another: `25%` or `3`.

use serde_json::Value;

use super::faults::Faults;
use crate::place::Place;

const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%', \
    or '93%', regex used for validation is '[0-9]+%')";

/// The number before the sign of a share.
fn percent(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('%')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(i64::MAX))
}

/// Zero or more, or a share.
pub(super) fn count_or_share(place: &Place<'_>, value: Option<&Value>, faults: &mut Faults) {
    match value {
        Some(Value::String(text)) if percent(text).is_none() => faults.invalid(place, text.as_str(), PERCENT),
        value => faults.non_negative(place, value),
    }
}

/// A share of more than all makes no sense.
pub(super) fn at_most_all(place: &Place<'_>, value: Option<&Value>, faults: &mut Faults) {
    if let Some(Value::String(text)) = value
        && percent(text).is_some_and(|share| share > 100)
    {
        faults.invalid(place, text.as_str(), "must not be greater than 100%");
    }
}

/// Whether it is no number and no share, whatever the whole is.
pub(super) fn is_zero(value: Option<&Value>) -> bool {
    match value {
        Some(Value::String(text)) => percent(text).unwrap_or(0) == 0,
        value => value.and_then(Value::as_i64).unwrap_or(0) == 0,
    }
}
