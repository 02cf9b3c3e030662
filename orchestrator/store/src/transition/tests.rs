//! Tests of `transition`: each branch as a named case.

use super::*;

/// One key with a version, and one lease.
struct Fixture;

const LEASE: LeaseId = LeaseId(1);

fn existing() -> KeyValue {
    KeyValue {
        key: Bytes::from("a"),
        value: Bytes::from("old"),
        create_revision: Revision(2),
        mod_revision: Revision(5),
        version: 3,
        lease: Some(LEASE),
    }
}

impl Current for Fixture {
    fn current(&self, key: &Bytes) -> Result<Option<KeyValue>, StoreError> {
        Ok((key == "a").then(existing))
    }

    fn has_lease(&self, lease: LeaseId) -> Result<bool, StoreError> {
        Ok(lease == LEASE)
    }
}

fn compare(key: &'static str, mod_revision: u64) -> Compare {
    Compare {
        key: Bytes::from(key),
        mod_revision: Revision(mod_revision),
    }
}

fn put(key: &'static str, lease: Option<LeaseId>) -> Op {
    Op::Put {
        key: Bytes::from(key),
        value: Bytes::from("new"),
        lease,
    }
}

fn delete(key: &'static str) -> Op {
    Op::Delete {
        key: Bytes::from(key),
    }
}

fn put_event(key: &'static str, create: u64, version: u64, lease: Option<LeaseId>) -> Event {
    let kv = KeyValue {
        key: Bytes::from(key),
        value: Bytes::from("new"),
        create_revision: Revision(create),
        mod_revision: Revision(9),
        version,
        lease,
    };
    Event {
        kind: EventKind::Put,
        kv,
        previous: (key == "a").then(existing),
    }
}

fn apply(events: Vec<Event>, previous: Vec<Option<KeyValue>>) -> Result<Transition, StoreError> {
    Ok(Transition::Apply { events, previous })
}

fn conflict(current: Vec<Option<KeyValue>>) -> Result<Transition, StoreError> {
    Ok(Transition::Conflict { current })
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table of cases")]
fn decisions() {
    let there = || Some(existing());
    type Case = (
        &'static str,
        Vec<Compare>,
        Vec<Op>,
        Result<Transition, StoreError>,
    );
    let cases: Vec<Case> = vec![
        ("nothing asked", vec![], vec![], apply(vec![], vec![])),
        (
            "make",
            vec![compare("b", 0)],
            vec![put("b", None)],
            apply(vec![put_event("b", 9, 1, None)], vec![None]),
        ),
        (
            "make, but it exists",
            vec![compare("a", 0)],
            vec![put("a", None)],
            conflict(vec![there()]),
        ),
        (
            "change, and leave the lease",
            vec![compare("a", 5)],
            vec![put("a", None)],
            apply(vec![put_event("a", 2, 4, None)], vec![there()]),
        ),
        (
            "change without looking",
            vec![],
            vec![put("a", Some(LEASE))],
            apply(vec![put_event("a", 2, 4, Some(LEASE))], vec![there()]),
        ),
        (
            "change, but it is newer",
            vec![compare("a", 4)],
            vec![put("a", None)],
            conflict(vec![there()]),
        ),
        (
            "change, but it is gone",
            vec![compare("b", 4)],
            vec![put("b", None)],
            conflict(vec![None]),
        ),
        (
            "one condition of two holds",
            vec![compare("a", 5), compare("b", 1)],
            vec![put("a", None)],
            conflict(vec![there(), None]),
        ),
        (
            "delete",
            vec![compare("a", 5)],
            vec![delete("a")],
            apply(vec![deletion(existing(), Revision(9))], vec![there()]),
        ),
        (
            "delete what is not there",
            vec![],
            vec![delete("b")],
            apply(vec![], vec![None]),
        ),
        (
            "condition without change",
            vec![compare("a", 5)],
            vec![],
            apply(vec![], vec![]),
        ),
        (
            "one key twice",
            vec![],
            vec![put("a", None), delete("a")],
            Err(StoreError::DuplicateKey),
        ),
        (
            "unknown lease",
            vec![],
            vec![put("a", Some(LeaseId(7)))],
            Err(StoreError::LeaseNotFound { lease: LeaseId(7) }),
        ),
        (
            "unknown lease, but a condition fails first",
            vec![compare("a", 1)],
            vec![put("a", Some(LeaseId(7)))],
            conflict(vec![there()]),
        ),
    ];
    for (name, compare, ops, expected) in cases {
        assert_eq!(
            decide(&Fixture, &Txn { compare, ops }, Revision(9)),
            expected,
            "{name}"
        );
    }
}

#[test]
fn a_transaction_over_the_limit_is_refused_by_its_size() {
    let put = |value_bytes: usize| {
        let value = Bytes::from(vec![0; value_bytes]);
        Txn {
            compare: vec![],
            ops: vec![Op::Put {
                key: Bytes::from("k"),
                value,
                lease: None,
            }],
        }
    };
    assert!(decide(&Fixture, &put(TXN_BYTES_MAX - 1), Revision(9)).is_ok());
    let refused = StoreError::TooLarge {
        size_bytes: TXN_BYTES_MAX + 1,
        limit_bytes: TXN_BYTES_MAX,
    };
    assert_eq!(decide(&Fixture, &put(TXN_BYTES_MAX), Revision(9)), Err(refused));
}
