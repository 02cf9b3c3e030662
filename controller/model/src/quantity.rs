//! Kubernetes quantities (`1.5Gi`, `500m`, `2e3`) as exact numbers: parsed, compared, rounded and written as upstream
//! writes them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use thiserror::Error;

/// Which family of suffixes a quantity was written with, and is written with again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `Ki`, `Mi`, ...
    BinarySi,
    /// `m`, `k`, `M`, ...
    DecimalSi,
    /// `e3`, `E6`, ...
    DecimalExponent,
}

/// An exact amount with the precision of upstream, a billionth. Equality and order look at the amount only.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    nanos: i128,
    format: Format,
}

/// The text is no quantity.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{text:?} is not a quantity: {reason}")]
pub struct ParseAmountError {
    text: String,
    reason: &'static str,
}

const NANOS: i128 = 1_000_000_000;
/// Upstream caps what it parses here: 2^63 - 1 whole units.
const MAX_NANOS: i128 = (i64::MAX as i128) * NANOS;
const BINARY_SUFFIXES: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// Suffix by power of 1000, from 10^-9 on.
const DECIMAL_SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount {
        nanos: 0,
        format: Format::BinarySi,
    };

    /// That many bytes, to be written with binary suffixes, as sizes of volumes are.
    pub fn from_bytes(bytes: i64) -> Self {
        Self {
            nanos: (i128::from(bytes) * NANOS).max(-MAX_NANOS),
            format: Format::BinarySi,
        }
    }

    /// The whole number of units, rounded up (towards positive infinity). A part of a byte needs a byte.
    pub fn ceil(self) -> i64 {
        let whole = self.nanos.div_euclid(NANOS) + i128::from(self.nanos.rem_euclid(NANOS) != 0);
        // Within ±2^63 by construction: every constructor caps.
        i64::try_from(whole).unwrap_or(i64::MAX)
    }

    /// [`Amount::ceil`] as an unsigned number; negative amounts count as none.
    pub fn bytes(self) -> u64 {
        u64::try_from(self.ceil()).unwrap_or(0)
    }

    /// The amount in thousandths, rounded up: the unit of CPU requests.
    pub fn milli(self) -> i64 {
        let per_milli = NANOS / 1000;
        let whole = self.nanos.div_euclid(per_milli) + i128::from(self.nanos.rem_euclid(per_milli) != 0);
        i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// The sum, capped like everything else, in this amount's format.
    #[must_use]
    pub fn plus(self, other: Amount) -> Self {
        Self {
            nanos: (self.nanos + other.nanos).clamp(-MAX_NANOS, MAX_NANOS),
            format: self.format,
        }
    }

    /// The canonical text in a [`Quantity`].
    pub fn to_quantity(self) -> Quantity {
        Quantity(self.to_string())
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl TryFrom<&Quantity> for Amount {
    type Error = ParseAmountError;

    fn try_from(quantity: &Quantity) -> Result<Self, Self::Error> {
        quantity.0.parse()
    }
}

impl FromStr for Amount {
    type Err = ParseAmountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |reason| ParseAmountError {
            text: text.to_string(),
            reason,
        };
        let (is_negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(refuse("it is empty")),
        };
        let number_end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(refuse("it has no digits"));
        }
        if fraction.contains('.') {
            return Err(refuse("it has two decimal points"));
        }
        let scale = Scale::parse(suffix).ok_or_else(|| refuse("its suffix is unknown"))?;
        let magnitude = scale.nanos_of(whole, fraction);
        let is_part = magnitude > 0 && magnitude < NANOS;
        let format = match scale {
            // Such a small amount has no binary suffix to be written with.
            Scale::Binary(_) if is_part => Format::DecimalSi,
            Scale::Binary(_) => Format::BinarySi,
            Scale::Decimal(_) => Format::DecimalSi,
            Scale::Exponent(_) => Format::DecimalExponent,
        };
        let nanos = if is_negative { -magnitude } else { magnitude };
        Ok(Self { nanos, format })
    }
}

enum Scale {
    /// Power of two.
    Binary(u32),
    /// Power of ten, by suffix.
    Decimal(i32),
    /// Power of ten, spelled out.
    Exponent(i32),
}

impl Scale {
    fn parse(suffix: &str) -> Option<Self> {
        if let Some(index) = DECIMAL_SUFFIXES.iter().position(|known| *known == suffix) {
            let thousands = i32::try_from(index).ok()?;
            return Some(Scale::Decimal(thousands * 3 - 9));
        }
        if let Some(index) = BINARY_SUFFIXES.iter().position(|known| *known == suffix) {
            return Some(Scale::Binary(u32::try_from(index + 1).ok()? * 10));
        }
        let exponent = suffix.strip_prefix(['e', 'E'])?;
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        is_number
            .then(|| exponent.parse().ok())
            .flatten()
            .map(Scale::Exponent)
    }

    /// The number in billionths, rounded away from zero, capped.
    fn nanos_of(&self, whole: &str, fraction: &str) -> i128 {
        // Trailing zeros of the fraction carry nothing and would only make the number longer.
        let fraction = fraction.trim_end_matches('0');
        let mut digits: String = [whole, fraction].concat();
        let fraction_len = i32::try_from(fraction.len()).unwrap_or(i32::MAX);
        let (power_of_two, power_of_ten) = match self {
            Scale::Binary(power) => (*power, 0),
            Scale::Decimal(power) | Scale::Exponent(power) => (0, *power),
        };
        let mut power_of_ten = power_of_ten.saturating_add(9).saturating_sub(fraction_len);
        let significant = digits.trim_start_matches('0').len();
        if significant == 0 {
            return 0;
        }
        digits.drain(..digits.len() - significant);
        // Digits far below a billionth can't change the result except by rounding it up.
        let mut is_inexact = false;
        while digits.len() > 37 && power_of_ten < 0 {
            is_inexact |= digits.pop() != Some('0');
            power_of_ten += 1;
        }
        let Ok(mut nanos) = digits.parse::<i128>() else {
            return MAX_NANOS;
        };
        while power_of_ten > 0 && nanos <= MAX_NANOS {
            nanos *= 10;
            power_of_ten -= 1;
        }
        // Multiply before dividing, as far as that is exact; both are bounded by the cap.
        let mut doublings = power_of_two;
        while doublings > 0 && nanos.leading_zeros() > 1 {
            nanos *= 2;
            doublings -= 1;
        }
        while power_of_ten < 0 && nanos > 0 {
            is_inexact |= nanos % 10 != 0;
            nanos /= 10;
            power_of_ten += 1;
        }
        if doublings > 0 && nanos > MAX_NANOS >> doublings.min(126) {
            return MAX_NANOS;
        }
        nanos <<= doublings;
        (nanos + i128::from(is_inexact)).min(MAX_NANOS)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_whole = self.nanos % NANOS == 0;
        let is_small = self.nanos.abs() < 1024 * NANOS;
        match self.format {
            Format::BinarySi if is_whole && !is_small => {
                let (mantissa, steps) = reduce(self.nanos / NANOS, 1024, BINARY_SUFFIXES.len());
                let suffix = steps.checked_sub(1).map_or("", |index| BINARY_SUFFIXES[index]);
                write!(f, "{mantissa}{suffix}")
            }
            Format::BinarySi | Format::DecimalSi => {
                let (mantissa, steps) = self.thousands();
                write!(f, "{mantissa}{}", DECIMAL_SUFFIXES[steps])
            }
            Format::DecimalExponent => {
                let (mantissa, steps) = self.thousands();
                match steps {
                    3 => write!(f, "{mantissa}"),
                    0..=2 => write!(f, "{mantissa}e-{}", 9 - steps * 3),
                    _ => write!(f, "{mantissa}e{}", steps * 3 - 9),
                }
            }
        }
    }
}

impl Amount {
    fn thousands(self) -> (i128, usize) {
        if self.nanos == 0 {
            return (0, 3);
        }
        reduce(self.nanos, 1000, DECIMAL_SUFFIXES.len() - 1)
    }
}

/// Divides by `base` as long as that is exact, at most `max_steps` times.
fn reduce(mut mantissa: i128, base: i128, max_steps: usize) -> (i128, usize) {
    let mut steps = 0;
    while steps < max_steps && mantissa != 0 && mantissa % base == 0 {
        mantissa /= base;
        steps += 1;
    }
    (mantissa, steps)
}

#[cfg(test)]
mod tests;
