//! Tables for the two decisions of the controller: same volume or another one, and which size to grow to.

use moorline_driver_sdk::{ErrorKind, request::StringMap};

use super::*;

fn record() -> Record {
    Record {
        capacity_bytes: 1000,
        ..crate::record::tests::record("a")
    }
}

fn wanted() -> Wanted {
    Wanted {
        name: "a".into(),
        content: Content::Ext4,
        capacity: range(1000, 0),
        class: Class::parse(StringMap::new()).unwrap(),
        mutable_parameters: Parameters::default(),
        source: None,
    }
}

fn range(required: u64, limit: u64) -> CapacityRange {
    CapacityRange {
        required_bytes: (required > 0).then_some(required),
        limit_bytes: (limit > 0).then_some(limit),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn a_name_that_is_taken_fits_or_is_a_conflict() {
    let cases = [
        ("the same", wanted(), None),
        (
            "less is fine",
            Wanted {
                capacity: range(500, 0),
                ..wanted()
            },
            None,
        ),
        (
            "any size is fine",
            Wanted {
                capacity: range(0, 0),
                ..wanted()
            },
            None,
        ),
        (
            "more is not",
            Wanted {
                capacity: range(1001, 0),
                ..wanted()
            },
            Some("with 1000 bytes"),
        ),
        (
            "a lower limit is not",
            Wanted {
                capacity: range(0, 999),
                ..wanted()
            },
            Some("with 1000 bytes"),
        ),
        (
            "block instead",
            Wanted {
                content: Content::Block,
                ..wanted()
            },
            Some("as an ext4 filesystem"),
        ),
        (
            "a name of the same id",
            Wanted {
                name: "b".into(),
                ..wanted()
            },
            Some("not with the name b"),
        ),
        (
            "other parameters",
            Wanted {
                class: Class::parse(StringMap::from([("pool".into(), "default".into())])).unwrap(),
                ..wanted()
            },
            Some("with other parameters"),
        ),
        (
            "restored instead of new",
            Wanted {
                source: Some(Source::Snapshot("s".into())),
                ..wanted()
            },
            Some("another source"),
        ),
    ];
    for (name, wanted, expected) in cases {
        match (check_same(&record(), &wanted), expected) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) => {
                assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{name}");
                assert!(error.to_string().contains(expected), "{name}: {error}");
            }
            (got, _) => panic!("{name}: {got:?}"),
        }
    }
}

#[test]
fn volumes_grow_and_never_shrink() {
    let rule = SizeRule {
        min_bytes: 100,
        step_bytes: 100,
    };
    let cases = [
        ("grow", range(1500, 0), Ok(Some(1500))),
        ("rounded", range(1501, 0), Ok(Some(1600))),
        (
            "rounding passes the limit",
            range(1501, 1550),
            Err(ErrorKind::OutOfRange),
        ),
        ("large enough", range(1000, 0), Ok(None)),
        ("asked again later", range(900, 0), Ok(None)),
        ("limit only, above", range(0, 2000), Ok(None)),
        ("limit only, below", range(0, 999), Err(ErrorKind::OutOfRange)),
        ("shrink", range(500, 900), Err(ErrorKind::OutOfRange)),
    ];
    for (name, capacity, expected) in cases {
        let got = grown_size(&record(), capacity, rule).map_err(|error| error.kind());
        assert_eq!(got, expected, "{name}");
    }
}

#[test]
fn a_volume_from_a_source_is_of_its_kind_and_at_least_as_large() {
    let rule = SizeRule {
        min_bytes: 100,
        step_bytes: 100,
    };
    let ext4 = Content::Ext4;
    let cases = [
        ("any size", range(0, 0), ext4, Ok(1000)),
        ("the same", range(1000, 0), ext4, Ok(1000)),
        ("larger, rounded", range(1501, 0), ext4, Ok(1600)),
        ("smaller", range(999, 0), ext4, Err(ErrorKind::OutOfRange)),
        ("at most less", range(0, 999), ext4, Err(ErrorKind::OutOfRange)),
        ("at most more", range(0, 5000), ext4, Ok(1000)),
        (
            "of another kind",
            range(1000, 0),
            Content::Block,
            Err(ErrorKind::InvalidArgument),
        ),
    ];
    for (name, capacity, source, expected) in cases {
        let wanted = Wanted { capacity, ..wanted() };
        let got = wanted.size_from(1000, source, rule).map_err(|error| error.kind());
        assert_eq!(got, expected, "{name}");
    }
}
