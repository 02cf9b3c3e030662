//! Amounts such as `1Gi`, `500m` or `1e3`: parsing, comparing, and the canonical form in which they are stored.

use std::cmp::Ordering;
use std::fmt;

const NANO: i128 = 1_000_000_000;
/// The largest amount; larger ones become this one.
const MAX_NANOS: i128 = (i64::MAX as i128) * NANO;

/// Numbers this large take no further digits; one order above the largest amount in nanos.
const DIGITS_MAX: i128 = 10i128.pow(29);

/// Why a text is no amount; the words are upstream's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuantityError {
    /// It doesn't look like a number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// There is no such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// An amount, exact to the nano.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// The sum, in the form of the first amount.
    #[must_use]
    pub fn plus(&self, other: &Quantity) -> Quantity {
        Quantity {
            nanos: self.nanos.saturating_add(other.nanos),
            format: self.format,
        }
    }

    /// The difference, in the form of the first amount.
    #[must_use]
    pub fn minus(&self, other: &Quantity) -> Quantity {
        Quantity {
            nanos: self.nanos.saturating_sub(other.nanos),
            format: self.format,
        }
    }

    /// Parses an amount. What is finer than a nano is rounded away from zero.
    ///
    /// # Errors
    /// [`QuantityError`].
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, digits) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(QuantityError::Format),
        };
        let end = digits
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(digits.len());
        let (number, suffix) = digits.split_at(end);
        if !is_suffix_formed(suffix) {
            return Err(QuantityError::Format);
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        let (scale, format) = scale(suffix)?;
        let nanos = nanos(whole, fraction, scale);
        let signed = if negative { -nanos } else { nanos };
        let below_one = signed > 0 && signed < NANO;
        let format = if format == Format::Binary && below_one {
            Format::Decimal
        } else {
            format
        };
        Ok(Quantity {
            nanos: signed,
            format,
        })
    }

    /// The amount in whole units, rounded away from zero.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.rounded(NANO)
    }

    /// The amount in thousandths, rounded away from zero.
    #[must_use]
    pub fn milli_value(&self) -> i64 {
        self.rounded(NANO / 1000)
    }

    fn rounded(&self, unit: i128) -> i64 {
        let away = self.nanos.signum() * i128::from(self.nanos % unit != 0);
        i64::try_from(self.nanos / unit + away).unwrap_or(if self.nanos < 0 { i64::MIN } else { i64::MAX })
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn signum(&self) -> i32 {
        match self.nanos.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }

    /// Whether it is a multiple of the unit.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that needs no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::Binary && !small && self.nanos % NANO == 0 {
            return fmt_binary(self.nanos / NANO, f);
        }
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while mantissa % 1000 == 0 {
            mantissa /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (_, 0) => write!(f, "{mantissa}"),
            (Format::Exponent, _) => write!(f, "{mantissa}e{exponent}"),
            (_, -9) => write!(f, "{mantissa}n"),
            (_, -6) => write!(f, "{mantissa}u"),
            (_, -3) => write!(f, "{mantissa}m"),
            (_, 3) => write!(f, "{mantissa}k"),
            (_, 6) => write!(f, "{mantissa}M"),
            (_, 9) => write!(f, "{mantissa}G"),
            (_, 12) => write!(f, "{mantissa}T"),
            (_, 15) => write!(f, "{mantissa}P"),
            (_, 18) => write!(f, "{mantissa}E"),
            _ => write!(f, "{mantissa}e{exponent}"),
        }
    }
}

fn fmt_binary(mut value: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter();
    let mut suffix = suffixes.next();
    while value % 1024 == 0 {
        value /= 1024;
        suffix = suffixes.next();
    }
    write!(f, "{value}{}", suffix.unwrap_or(&""))
}

/// Letters, then perhaps a sign, then perhaps digits.
fn is_suffix_formed(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// What a number before the suffix is multiplied with: a power of ten, or of two.
#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

fn scale(suffix: &str) -> Result<(Scale, Format), QuantityError> {
    let decimal = |exponent| Ok((Scale::Ten(exponent), Format::Decimal));
    let binary = |exponent| Ok((Scale::Two(exponent), Format::Binary));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let exponent: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
            Ok((Scale::Ten(exponent), Format::Exponent))
        }
    }
}

/// The number in nanos, not negative. Digits that can't matter are dropped, but one that isn't zero still rounds up.
fn nanos(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let mut digits: i128 = 0;
    let mut places: i32 = 0;
    let mut sticky = false;
    for (in_fraction, digit) in whole
        .bytes()
        .map(|d| (false, d))
        .chain(fraction.bytes().map(|d| (true, d)))
    {
        // More digits than the largest amount has in nanos can only round up.
        if digits >= DIGITS_MAX {
            sticky |= digit != b'0';
            places -= i32::from(!in_fraction);
            continue;
        }
        digits = digits * 10 + i128::from(digit - b'0');
        places += i32::from(in_fraction);
    }
    let (ten, two) = match scale {
        Scale::Ten(exponent) => (exponent.saturating_add(9).saturating_sub(places), 0),
        Scale::Two(exponent) => (9i32.saturating_sub(places), exponent),
    };
    shifted(digits, ten, two, sticky)
}

/// `digits * 10^ten * 2^two`, rounded up, capped.
fn shifted(digits: i128, ten: i32, two: u32, sticky: bool) -> i128 {
    if digits == 0 {
        return 0;
    }
    let mut value = digits;
    let mut rest = sticky;
    // Twos are multiplied before tens are divided away, one at a time, so that nothing is lost or overflows early.
    let mut twos = two;
    let mut tens = ten;
    while twos > 0 || tens != 0 {
        if twos > 0 && value < i128::MAX / 4 {
            value *= 2;
            twos -= 1;
        } else if tens < 0 {
            rest |= value % 10 != 0;
            value /= 10;
            tens += 1;
            if value == 0 {
                break;
            }
        } else if tens > 0 && value < i128::MAX / 16 {
            value *= 10;
            tens -= 1;
        } else {
            return MAX_NANOS;
        }
        if value > MAX_NANOS && tens >= 0 {
            return MAX_NANOS;
        }
    }
    (value + i128::from(rest)).min(MAX_NANOS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_get_upstreams_canonical_form() {
        let cases = [
            ("1024Mi", "1Gi"),
            ("1Gi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1000000", "1M"),
            ("1234567", "1234567"),
            ("0.1Gi", "107374182400m"),
            ("0.5Ki", "512"),
            ("1023Ki", "1023Ki"),
            ("1024", "1024"),
            ("100", "100"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1.2e4", "12e3"),
            ("5E", "5E"),
            ("9999999999999999999999", "9223372036854775807"),
            ("0.0000000001", "1n"),
            ("-1Ki", "-1Ki"),
            ("-0.5", "-500m"),
            ("+3", "3"),
            ("0", "0"),
            ("0Gi", "0"),
            (".5", "500m"),
            ("5.", "5"),
            ("1Ei", "1Ei"),
            ("3k", "3k"),
            ("100m", "100m"),
            ("1u", "1u"),
        ];
        for (text, canonical) in cases {
            assert_eq!(
                Quantity::parse(text).map(|q| q.to_string()).as_deref(),
                Ok(canonical),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_for_the_right_reason() {
        let cases = [
            ("", QuantityError::Format),
            ("x", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            (".", QuantityError::Format),
            ("1Kii", QuantityError::Suffix),
            ("1ki", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("Gi", QuantityError::Format),
        ];
        for (text, error) in cases {
            assert_eq!(Quantity::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn amounts_compare_by_value_and_round_away_from_zero() {
        let parse = |text| Quantity::parse(text).unwrap();
        assert_eq!(parse("1Gi"), parse("1024Mi"));
        assert!(parse("999m") < parse("1"));
        assert!(parse("-1") < parse("0"));
        assert_eq!(parse("1m").value(), 1);
        assert_eq!(parse("1500m").value(), 2);
        assert_eq!(parse("-1500m").value(), -2);
        assert_eq!(parse("2Gi").value(), 2 * 1024 * 1024 * 1024);
        assert_eq!(parse("1500u").milli_value(), 2);
    }

    proptest::proptest! {
        #[test]
        fn canonical_form_means_the_same(text in "[0-9]{1,12}(\\.[0-9]{1,6})?(m|k|M|G|Ki|Mi|Gi|e3|)") {
            let first = Quantity::parse(&text).unwrap();
            let again = Quantity::parse(&first.to_string()).unwrap();
            proptest::prop_assert_eq!(first, again);
            proptest::prop_assert_eq!(first.to_string(), again.to_string());
        }
    }
}
