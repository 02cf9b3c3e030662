//! How much more a pool can promise, and whether a request fits. Pure.
//!
//! A thin volume is a promise: up to `capacity x overcommit` may be promised in all, and no single promise may be larger
//! than what is free times that ratio. A thick volume has its blocks from the start: it needs them free, and all thick
//! volumes together never exceed the capacity itself. A snapshot is promised what its source had allocated when it was
//! cut: so much can it come to hold alone.

use std::{fmt, str::FromStr};

use moorline_driver_sdk::DriverError;

use crate::record::Provisioning;

/// How many times its capacity a pool may promise, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overcommit(u32);

const NONE_PERMILLE: u32 = 1000;
/// A ratio beyond this is a slip of the keyboard.
const MAX_PERMILLE: u32 = 100_000;

impl Overcommit {
    /// Nothing is promised twice.
    pub const NONE: Overcommit = Overcommit(NONE_PERMILLE);

    fn of(self, bytes: u64) -> u64 {
        let scaled = u128::from(bytes) * u128::from(self.0) / u128::from(NONE_PERMILLE);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}

impl FromStr for Overcommit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse =
            || format!("{text:?} is not a ratio from 1 to 100 with up to three decimals, such as 1.5");
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(decimals) || decimals.len() > 3 {
            return Err(refuse());
        }
        let permille = whole.parse::<u32>().ok().and_then(|whole| {
            let thousandths: u32 = format!("{decimals:0<3}").parse().ok()?;
            whole.checked_mul(NONE_PERMILLE)?.checked_add(thousandths)
        });
        permille
            .filter(|permille| (NONE_PERMILLE..=MAX_PERMILLE).contains(permille))
            .map(Overcommit)
            .ok_or_else(refuse)
    }
}

impl fmt::Display for Overcommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / NONE_PERMILLE, self.0 % NONE_PERMILLE)
    }
}

/// What an administrator allows a pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// `None`: as much as the pool's filesystem has.
    pub(crate) capacity_bytes: Option<u64>,
    pub(crate) overcommit: Overcommit,
}

/// The pool's filesystem now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    pub(crate) total_bytes: u64,
    pub(crate) available_bytes: u64,
}

/// What is promised already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promised {
    pub(crate) thin_bytes: u64,
    pub(crate) thick_bytes: u64,
    pub(crate) snapshot_bytes: u64,
}

/// What bytes are promised for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Volume(Provisioning),
    Snapshot,
}

impl Promised {
    pub(crate) fn total_bytes(self) -> u64 {
        self.thin_bytes
            .saturating_add(self.thick_bytes)
            .saturating_add(self.snapshot_bytes)
    }

    fn of(&mut self, purpose: Purpose) -> &mut u64 {
        match purpose {
            Purpose::Volume(Provisioning::Thin) => &mut self.thin_bytes,
            Purpose::Volume(Provisioning::Thick) => &mut self.thick_bytes,
            Purpose::Snapshot => &mut self.snapshot_bytes,
        }
    }

    pub(crate) fn add(&mut self, purpose: Purpose, bytes: u64) {
        let promised = self.of(purpose);
        *promised = promised.saturating_add(bytes);
    }

    pub(crate) fn give_back(&mut self, purpose: Purpose, bytes: u64) {
        let promised = self.of(purpose);
        *promised = promised.saturating_sub(bytes);
    }
}

/// Bytes that can still be promised for this purpose.
pub(crate) fn left(limits: Limits, space: Space, promised: Promised, purpose: Purpose) -> u64 {
    let capacity = limits.capacity_bytes.unwrap_or(space.total_bytes);
    let promises = limits
        .overcommit
        .of(capacity)
        .saturating_sub(promised.total_bytes());
    match purpose {
        Purpose::Volume(Provisioning::Thin) => promises.min(limits.overcommit.of(space.available_bytes)),
        Purpose::Volume(Provisioning::Thick) => promises
            .min(capacity.saturating_sub(promised.thick_bytes))
            .min(space.available_bytes),
        // A reflink takes nothing yet; a copy that finds no room fails by itself.
        Purpose::Snapshot => promises,
    }
}

/// Refuses what does not fit.
pub(crate) fn check(
    limits: Limits,
    space: Space,
    promised: Promised,
    purpose: Purpose,
    bytes: u64,
) -> Result<(), DriverError> {
    let left = left(limits, space, promised, purpose);
    if bytes <= left {
        return Ok(());
    }
    let what = match purpose {
        Purpose::Volume(provisioning) => format!("{provisioning} volumes"),
        Purpose::Snapshot => "snapshots".to_owned(),
    };
    Err(DriverError::exhausted(format!(
        "the pool has {left} bytes left for {what}, not {bytes}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THIN: Purpose = Purpose::Volume(Provisioning::Thin);
    const THICK: Purpose = Purpose::Volume(Provisioning::Thick);

    #[test]
    fn ratios_are_read_exactly_or_not_at_all() {
        let cases = [
            ("1", Some(1000)),
            ("1.0", Some(1000)),
            ("1.5", Some(1500)),
            ("2.125", Some(2125)),
            ("100", Some(100_000)),
            ("100.001", None),
            ("0.9", None),
            ("", None),
            (".5", None),
            ("1.", None),
            ("1.0000", None),
            ("-1", None),
            ("+1", None),
            ("99999999999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse().ok(), expected.map(Overcommit), "{text:?}");
        }
        assert_eq!(Overcommit(1500).to_string(), "1.500");
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn what_is_left_depends_on_limit_ratio_and_what_is_free() {
        let promised = |thin_bytes, thick_bytes, snapshot_bytes| Promised {
            thin_bytes,
            thick_bytes,
            snapshot_bytes,
        };
        type Case = (&'static str, Option<u64>, u32, u64, Promised, Purpose, u64);
        // name, capacity, ratio, available of 1000 bytes, promised, for, left
        let cases: [Case; 13] = [
            ("empty", None, 1000, 1000, promised(0, 0, 0), THIN, 1000),
            (
                "capacity below the disk",
                Some(400),
                1000,
                1000,
                promised(0, 0, 0),
                THIN,
                400,
            ),
            (
                "disk fuller than promised",
                None,
                1000,
                300,
                promised(100, 0, 0),
                THIN,
                300,
            ),
            (
                "all kinds count",
                None,
                1000,
                1000,
                promised(100, 200, 300),
                THIN,
                400,
            ),
            (
                "promised to the last",
                None,
                1000,
                1000,
                promised(600, 200, 200),
                THIN,
                0,
            ),
            ("more than all", None, 1000, 1000, promised(2000, 0, 0), THIN, 0),
            (
                "twice the capacity",
                None,
                2000,
                1000,
                promised(500, 0, 0),
                THIN,
                1500,
            ),
            (
                "one promise no larger than free times ratio",
                None,
                2000,
                100,
                promised(0, 0, 0),
                THIN,
                200,
            ),
            (
                "thick needs blocks",
                None,
                2000,
                300,
                promised(0, 0, 0),
                THICK,
                300,
            ),
            (
                "thick never over the capacity",
                Some(500),
                2000,
                1000,
                promised(0, 400, 0),
                THICK,
                100,
            ),
            (
                "thick beside thin promises",
                None,
                1500,
                1000,
                promised(1000, 0, 0),
                THICK,
                500,
            ),
            (
                "a snapshot on a full disk",
                None,
                2000,
                0,
                promised(1000, 0, 0),
                Purpose::Snapshot,
                1000,
            ),
            (
                "a snapshot beyond all promises",
                None,
                1000,
                500,
                promised(900, 100, 0),
                Purpose::Snapshot,
                0,
            ),
        ];
        for (name, capacity_bytes, ratio, available_bytes, promised, purpose, expected) in cases {
            let limits = Limits {
                capacity_bytes,
                overcommit: Overcommit(ratio),
            };
            let space = Space {
                total_bytes: 1000,
                available_bytes,
            };
            assert_eq!(left(limits, space, promised, purpose), expected, "{name}");
            check(limits, space, promised, purpose, expected).expect(name);
            check(limits, space, promised, purpose, expected + 1).expect_err(name);
        }
    }

    #[test]
    fn huge_numbers_do_not_wrap() {
        let limits = Limits {
            capacity_bytes: Some(u64::MAX),
            overcommit: Overcommit(MAX_PERMILLE),
        };
        let space = Space {
            total_bytes: u64::MAX,
            available_bytes: u64::MAX,
        };
        let mut promised = Promised::default();
        promised.add(THIN, u64::MAX);
        promised.add(THIN, u64::MAX);
        assert_eq!(left(limits, space, promised, THIN), 0);
        promised.give_back(THIN, u64::MAX);
        promised.give_back(THIN, u64::MAX);
        assert_eq!(promised, Promised::default());
    }
}
