//! Who gets a lease beside whom, what is impossible, and when a node is fenced off.

use AccessMode::{
    MultiNodeMultiWriter as ManyWriters, MultiNodeReaderOnly as Readers, MultiNodeSingleWriter as OneWriter,
    SingleNodeReaderOnly as Reader, SingleNodeSingleWriter as Alone, SingleNodeWriter as Writer,
};
use moorline_driver_sdk::ErrorKind;

use super::*;

const FREE: NodeLoad = NodeLoad { held: 0, max: None };
const NOW: u64 = 100;

fn holder(node_id: &str, generation: u64, access_mode: AccessMode, is_read_only: bool) -> Holder {
    Holder {
        node_id: node_id.into(),
        generation,
        is_read_only,
        access_mode,
    }
}

fn lease(generation: u64, holders: &[Holder]) -> Lease {
    Lease {
        volume_id: "v".into(),
        generation,
        holders: holders.to_vec(),
    }
}

fn wish(node_id: &str, access_mode: AccessMode, is_read_only: bool) -> Wish<'_> {
    Wish {
        node_id,
        is_read_only,
        access_mode,
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn a_node_gets_a_lease_beside_those_it_goes_with() {
    let write = |generation, holders: &[Holder]| Next::Write(lease(generation, holders));
    let elsewhere = || Next::Refuse(Refusal::Elsewhere("a".into()));
    let full = NodeLoad {
        held: 2,
        max: Some(2),
    };
    let room = NodeLoad {
        held: 1,
        max: Some(2),
    };
    let by_a = |mode, read_only| holder("a", 7, mode, read_only);
    type Case = (&'static str, Option<Lease>, Wish<'static>, NodeLoad, Next);
    let cases: Vec<Case> = vec![
        (
            "the first",
            None,
            wish("a", Writer, false),
            FREE,
            write(100, &[holder("a", 100, Writer, false)]),
        ),
        (
            "after one that ended",
            Some(lease(7, &[])),
            wish("a", Writer, false),
            FREE,
            write(100, &[holder("a", 100, Writer, false)]),
        ),
        (
            "with a clock that went back",
            Some(lease(500, &[])),
            wish("a", Writer, false),
            FREE,
            write(501, &[holder("a", 501, Writer, false)]),
        ),
        (
            "again",
            Some(lease(9, &[by_a(Writer, false)])),
            wish("a", Writer, false),
            FREE,
            Next::Keep(7),
        ),
        (
            "again, though full",
            Some(lease(7, &[by_a(Writer, false)])),
            wish("a", Writer, false),
            full,
            Next::Keep(7),
        ),
        (
            "read-only now",
            Some(lease(7, &[by_a(Writer, false)])),
            wish("a", Writer, true),
            FREE,
            Next::Refuse(Refusal::OtherWay),
        ),
        (
            "in another mode now",
            Some(lease(7, &[by_a(Writer, false)])),
            wish("a", Alone, false),
            FREE,
            Next::Refuse(Refusal::OtherWay),
        ),
        (
            "elsewhere",
            Some(lease(7, &[by_a(Writer, false)])),
            wish("b", Writer, false),
            FREE,
            elsewhere(),
        ),
        (
            "elsewhere, to read",
            Some(lease(7, &[by_a(Reader, true)])),
            wish("b", Reader, true),
            FREE,
            elsewhere(),
        ),
        (
            "many beside one",
            Some(lease(7, &[by_a(Writer, false)])),
            wish("b", Readers, true),
            FREE,
            elsewhere(),
        ),
        (
            "one beside many",
            Some(lease(7, &[by_a(Readers, true)])),
            wish("b", Writer, false),
            FREE,
            elsewhere(),
        ),
        (
            "readers",
            Some(lease(7, &[by_a(Readers, true)])),
            wish("b", Readers, true),
            FREE,
            write(100, &[by_a(Readers, true), holder("b", 100, Readers, true)]),
        ),
        (
            "writers",
            Some(lease(7, &[by_a(ManyWriters, false)])),
            wish("b", ManyWriters, false),
            room,
            write(
                100,
                &[by_a(ManyWriters, false), holder("b", 100, ManyWriters, false)],
            ),
        ),
        (
            "two single writers",
            Some(lease(7, &[by_a(OneWriter, false)])),
            wish("b", OneWriter, false),
            FREE,
            elsewhere(),
        ),
        (
            "a single writer and a reader",
            Some(lease(7, &[by_a(OneWriter, false)])),
            wish("b", OneWriter, true),
            FREE,
            write(100, &[by_a(OneWriter, false), holder("b", 100, OneWriter, true)]),
        ),
        (
            "two ways of many",
            Some(lease(7, &[by_a(Readers, true)])),
            wish("b", ManyWriters, false),
            FREE,
            elsewhere(),
        ),
        (
            "a full node",
            None,
            wish("a", Writer, false),
            full,
            Next::Refuse(Refusal::NodeFull { max: 2 }),
        ),
        (
            "taken and full",
            Some(lease(7, &[by_a(Writer, false)])),
            wish("b", Writer, false),
            full,
            elsewhere(),
        ),
        (
            "impossible: twice on one node",
            Some(lease(7, &[by_a(Readers, true), by_a(Readers, true)])),
            wish("b", Readers, true),
            FREE,
            Next::Refuse(Refusal::Impossible("one node holds it twice")),
        ),
        (
            "impossible: two that exclude each other",
            Some(lease(7, &[by_a(Writer, false), holder("b", 6, Readers, true)])),
            wish("a", Writer, false),
            FREE,
            Next::Refuse(Refusal::Impossible(
                "several nodes hold it, one of them for itself",
            )),
        ),
        (
            "impossible: from the future",
            Some(lease(6, &[by_a(Writer, false)])),
            wish("a", Writer, false),
            FREE,
            Next::Refuse(Refusal::Impossible("a holder is ahead of its generation")),
        ),
    ];
    for (name, lease, wish, load, expected) in cases {
        assert_eq!(publish("v", lease.as_ref(), wish, load, NOW), expected, "{name}");
    }
}

#[test]
fn an_end_takes_a_new_generation() {
    let (a, b) = (holder("a", 6, Readers, true), holder("b", 7, Readers, true));
    type Case = (&'static str, Option<Lease>, Option<&'static str>, Option<Lease>);
    let both = || Some(lease(7, &[a.clone(), b.clone()]));
    let cases: [Case; 6] = [
        ("never held", None, Some("a"), None),
        ("not held any more", Some(lease(7, &[])), Some("a"), None),
        (
            "another's",
            Some(lease(7, std::slice::from_ref(&b))),
            Some("a"),
            None,
        ),
        (
            "one of two",
            both(),
            Some("a"),
            Some(lease(NOW, std::slice::from_ref(&b))),
        ),
        ("all", both(), None, Some(lease(NOW, &[]))),
        (
            "with a clock that went back",
            Some(lease(500, std::slice::from_ref(&a))),
            Some("a"),
            Some(lease(501, &[])),
        ),
    ];
    for (name, lease, node_id, expected) in cases {
        assert_eq!(unpublish(lease.as_ref(), node_id, NOW), expected, "{name}");
    }
}

#[test]
fn a_node_stages_only_with_the_lease_on_record() {
    let held = || Some(lease(9, &[holder("a", 7, Writer, true)]));
    type Case = (
        &'static str,
        Option<Lease>,
        &'static str,
        Option<&'static str>,
        Result<(), &'static str>,
    );
    let cases: [Case; 8] = [
        ("its own", held(), "a", Some("7"), Ok(())),
        (
            "without context",
            held(),
            "a",
            None,
            Err("publish_context has no"),
        ),
        ("never leased", None, "a", Some("7"), Err("no node has a lease")),
        ("ended", Some(lease(9, &[])), "a", Some("7"), Err("has ended")),
        (
            "taken by another",
            held(),
            "b",
            Some("7"),
            Err("leased to node a"),
        ),
        ("an earlier one", held(), "a", Some("6"), Err("replaced by 7")),
        ("a later one", held(), "a", Some("8"), Err("replaced by 7")),
        ("no number", held(), "a", Some("seven"), Err("replaced by 7")),
    ];
    for (name, lease, node_id, told, expected) in cases {
        match (check_held(lease.as_ref(), node_id, told), expected) {
            (Ok(holder), Ok(())) => assert!(holder.is_read_only, "{name}"),
            (Err(error), Err(expected)) => {
                assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{name}");
                assert!(error.to_string().contains(expected), "{name}: {error}");
            }
            (got, _) => panic!("{name}: {got:?}"),
        }
    }
}

#[test]
fn the_format_on_disk_does_not_change_unnoticed() {
    let written = lease(7, &[holder("a", 7, Writer, false)]);
    let text = String::from_utf8(written.to_bytes()).unwrap();
    assert!(text.starts_with("moorline-lease 1 "), "{text}");
    assert_eq!(
        text.split_once('\n').unwrap().1,
        "{\n  \"volume_id\": \"v\",\n  \"generation\": 7,\n  \"holders\": [\n    {\n      \"node_id\": \"a\",\n      \
         \"generation\": 7,\n      \"is_read_only\": false,\n      \"access_mode\": \"SINGLE_NODE_WRITER\"\n    }\n  ]\n}\n"
    );
    assert_eq!(Lease::read_of("v", text.as_bytes()).unwrap(), written);
    assert!(
        Lease::read_of("w", text.as_bytes())
            .unwrap_err()
            .to_string()
            .contains("not of w")
    );
    for damaged in ["", "moorline-lease 1 x\n{}\n", &text.replace("WRITER", "READER")] {
        Lease::read_of("v", damaged.as_bytes()).expect_err(damaged);
    }
}
