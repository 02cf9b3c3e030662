//! Quantities as upstream reads and writes them.

use proptest::prelude::*;

use super::*;

fn amount(text: &str) -> Amount {
    text.parse().unwrap()
}

#[test]
fn canonical_text() {
    let cases = [
        ("0", "0"),
        ("0Gi", "0"),
        ("0m", "0"),
        ("1", "1"),
        ("1024", "1024"),
        ("1000", "1k"),
        ("1024Ki", "1Mi"),
        ("1Gi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Gi", "512Mi"),
        ("1.5", "1500m"),
        ("100m", "100m"),
        ("1000m", "1"),
        ("0.1m", "100u"),
        ("0.0000000001", "1n"),
        ("12Mi", "12Mi"),
        ("10M", "10M"),
        ("10000k", "10M"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("1000e-3", "1"),
        ("12e6", "12e6"),
        ("1e-3", "1e-3"),
        ("+5Ki", "5Ki"),
        ("-5Ki", "-5Ki"),
        ("0.5Ki", "512"),
        ("512Ki", "512Ki"),
        ("1.001Ki", "1025024m"),
        ("0.0001Ki", "102400u"),
        ("1E", "1E"),
        ("1Ei", "1Ei"),
        ("9Ei", "9223372036854775807"),
        ("99999999999999999999", "9223372036854775807"),
        ("1e400", "9223372036854775807"),
        ("-1e400", "-9223372036854775807"),
        ("1e-400", "1e-9"),
        (".5", "500m"),
        ("5.", "5"),
        ("1.50000000000000000000000000000000000000000000", "1500m"),
        ("1.00000000000000000000000000000000000000000001", "1000000001n"),
    ];
    for (text, expected) in cases {
        assert_eq!(amount(text).to_string(), expected, "{text}");
    }
}

#[test]
fn refused_text() {
    for text in [
        "", "-", "+", ".", "1..2", "1.2.3", "Gi", "1gi", "1KI", "1 Gi", " 1", "1e", "1e+", "1ee3", "1e3Gi",
        "0x10", "1B", "ä",
    ] {
        assert!(text.parse::<Amount>().is_err(), "{text:?}");
    }
    assert_eq!(
        "10gb".parse::<Amount>().unwrap_err().to_string(),
        "\"10gb\" is not a quantity: its suffix is unknown"
    );
}

#[test]
fn rounding_is_up() {
    let cases = [
        ("1", 1, 1000),
        ("1.1", 2, 1100),
        ("1n", 1, 1),
        ("-1.5", -1, -1500),
        ("1.5Ki", 1536, 1_536_000),
        ("0", 0, 0),
    ];
    for (text, whole, milli) in cases {
        assert_eq!(
            (amount(text).ceil(), amount(text).milli()),
            (whole, milli),
            "{text}"
        );
    }
    assert_eq!(amount("-5").bytes(), 0);
    assert_eq!(amount("9Ei").ceil(), i64::MAX);
}

#[test]
fn sizes_in_bytes() {
    let cases = [
        (0, "0"),
        (1023, "1023"),
        (1024, "1Ki"),
        (1 << 30, "1Gi"),
        ((1 << 30) + 1, "1073741825"),
        (5_000_000_000, "5000000000"),
        (5_000_000_000_000, "4882812500Ki"),
        (i64::MAX, "9223372036854775807"),
    ];
    for (bytes, text) in cases {
        assert_eq!(Amount::from_bytes(bytes).to_string(), text);
    }
}

#[test]
fn order_ignores_the_spelling() {
    assert_eq!(amount("1Gi"), amount("1024Mi"));
    assert_eq!(amount("1000m"), amount("1"));
    assert!(amount("1G") < amount("1Gi"));
    assert!(amount("-1") < amount("0"));
    assert_eq!(amount("1Gi").plus(amount("1")).to_string(), "1073741825");
}

proptest! {
    #[test]
    fn text_and_amount_agree(bytes in any::<i64>()) {
        let written = Amount::from_bytes(bytes);
        let bytes = bytes.max(-i64::MAX);
        prop_assert_eq!(amount(&written.to_string()).ceil(), bytes);
    }

    #[test]
    fn canonical_text_is_a_fixed_point(text in "[+-]?([0-9]{1,25}|[0-9]{0,12}\\.[0-9]{1,12})([numkMGTPE]|[KMGTPE]i|e-?[0-9]{1,2})?") {
        let once = amount(&text);
        let again = amount(&once.to_string());
        prop_assert_eq!(once, again);
        prop_assert_eq!(once.to_string(), again.to_string());
    }

    #[test]
    fn any_text_is_handled(text in ".{0,50}") {
        // Must neither panic nor loop.
        if let Ok(amount) = text.parse::<Amount>() {
            prop_assert!(amount.to_string().parse::<Amount>().is_ok());
        }
    }
}
