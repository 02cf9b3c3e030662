//! Times and lengths of time.

use jiff::civil::Weekday;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};

use super::ast::Operator;
use super::eval::{Outcome, fail};
use super::value::Val;

pub(super) fn arithmetic<'a>(operator: Operator, left: &Val<'a>, right: &Val<'a>) -> Outcome<'a> {
    let moved = |time: &Timestamp, nanos: Option<i64>| {
        let moved = nanos.and_then(|nanos| time.checked_add(SignedDuration::from_nanos(nanos)).ok());
        moved.map_or_else(|| fail("timestamp overflow"), |time| Ok(Val::Time(time)))
    };
    let length = |nanos: Option<i64>| {
        nanos.map_or_else(|| fail("duration overflow"), |nanos| Ok(Val::Duration(nanos)))
    };
    match (operator, left, right) {
        (Operator::Add, Val::Time(time), Val::Duration(nanos))
        | (Operator::Add, Val::Duration(nanos), Val::Time(time)) => moved(time, Some(*nanos)),
        (Operator::Subtract, Val::Time(time), Val::Duration(nanos)) => moved(time, nanos.checked_neg()),
        (Operator::Subtract, Val::Time(a), Val::Time(b)) => {
            length(i64::try_from(a.duration_since(*b).as_nanos()).ok())
        }
        (Operator::Add, Val::Duration(a), Val::Duration(b)) => length(a.checked_add(*b)),
        (Operator::Subtract, Val::Duration(a), Val::Duration(b)) => length(a.checked_sub(*b)),
        _ => fail("no such overload"),
    }
}

pub(super) fn member<'a>(target: &Val<'a>, function: &str, values: &[Val<'a>]) -> Outcome<'a> {
    match (target, values) {
        (Val::Duration(nanos), []) => Ok(Val::Int(match function {
            "getHours" => nanos / 3_600_000_000_000,
            "getMinutes" => nanos / 60_000_000_000,
            "getSeconds" => nanos / 1_000_000_000,
            "getMilliseconds" => nanos / 1_000_000,
            _ => return fail(format!("undeclared reference to '{function}'")),
        })),
        (Val::Time(time), []) => part(&time.to_zoned(TimeZone::UTC), function),
        (Val::Time(time), [Val::Text(zone)]) => match zone_of(zone) {
            Some(zone) => part(&time.to_zoned(zone), function),
            None => fail(format!("unknown time zone {zone}")),
        },
        _ => fail("no such overload"),
    }
}

/// A zone by its name or its distance from UTC, such as `+02:00`.
fn zone_of(text: &str) -> Option<TimeZone> {
    let Some((hours, minutes)) = text.trim_start_matches(['+', '-']).split_once(':') else {
        return TimeZone::get(text).ok();
    };
    let seconds =
        hours.parse::<i32>().ok()?.checked_mul(3600)? + minutes.parse::<i32>().ok()?.checked_mul(60)?;
    let seconds = if text.starts_with('-') { -seconds } else { seconds };
    Offset::from_seconds(seconds).ok().map(TimeZone::fixed)
}

fn part<'a>(time: &Zoned, function: &str) -> Outcome<'a> {
    Ok(Val::Int(match function {
        "getFullYear" => i64::from(time.year()),
        "getMonth" => i64::from(time.month()) - 1,
        "getDate" => i64::from(time.day()),
        "getDayOfMonth" => i64::from(time.day()) - 1,
        "getDayOfYear" => i64::from(time.day_of_year()) - 1,
        "getDayOfWeek" => i64::from(time.weekday().since(Weekday::Sunday)),
        "getHours" => i64::from(time.hour()),
        "getMinutes" => i64::from(time.minute()),
        "getSeconds" => i64::from(time.second()),
        "getMilliseconds" => i64::from(time.millisecond()),
        _ => return fail(format!("undeclared reference to '{function}'")),
    }))
}
