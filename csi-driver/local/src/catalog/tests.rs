//! The arrows of the drawing, and that reserved bytes always match what exists.

use proptest::prelude::*;

use moorline_driver_sdk::ErrorKind;

use super::*;
use crate::{record::Provisioning, room::Overcommit};

const POOL: Space = Space {
    total_bytes: 1000,
    available_bytes: 1000,
};
const ALL: Limits = Limits {
    capacity_bytes: None,
    overcommit: Overcommit::NONE,
};
const THIN: Purpose = Purpose::Volume(Provisioning::Thin);

fn record(volume_id: &str, capacity_bytes: u64) -> Arc<Record> {
    Arc::new(Record {
        capacity_bytes,
        ..crate::record::tests::record(volume_id)
    })
}

fn id(volume_id: &str) -> Arc<str> {
    volume_id.into()
}

fn thin(bytes: u64) -> Promise {
    Promise { purpose: THIN, bytes }
}

fn empty() -> Catalog {
    Catalog::new(ALL, FoundInPool::default())
}

fn holding(volumes: FoundEntries<Record>) -> Catalog {
    let found = FoundInPool {
        volumes,
        ..FoundInPool::default()
    };
    Catalog::new(ALL, found)
}

fn with(volume_id: &str, bytes: u64) -> Catalog {
    holding(BTreeMap::from([(
        id(volume_id),
        Entry::Ready(record(volume_id, bytes)),
    )]))
}

fn reserved(catalog: &Catalog) -> u64 {
    catalog.promised().total_bytes()
}

fn kind<T: std::fmt::Debug>(result: Result<T, DriverError>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn a_create_reserves_and_a_failed_one_gives_back() {
    let catalog = empty();
    assert_eq!(
        catalog.begin_create::<Record>(&id("a"), thin(400), POOL).unwrap(),
        Begin::Create
    );
    assert_eq!(catalog.left(POOL, THIN), 600);
    assert_eq!(
        kind(catalog.begin_create::<Record>(&id("a"), thin(400), POOL)),
        ErrorKind::Aborted
    );
    assert_eq!(
        kind(catalog.begin_create::<Record>(&id("b"), thin(601), POOL)),
        ErrorKind::ResourceExhausted
    );
    assert_eq!(kind(catalog.get::<Record>("a")), ErrorKind::NotFound);
    catalog.finish_create::<Record>(&id("a"), None);
    assert_eq!(reserved(&catalog), 0);
    catalog.begin_create::<Record>(&id("a"), thin(400), POOL).unwrap();
    catalog.finish_create(&id("a"), Some(record("a", 400)));
    assert_eq!(
        catalog.begin_create(&id("a"), thin(7), POOL).unwrap(),
        Begin::Exists(record("a", 400))
    );
    assert_eq!(reserved(&catalog), 400);
}

#[test]
fn a_delete_keeps_the_bytes_until_nothing_is_left() {
    let catalog = with("a", 400);
    let taken = catalog.begin_delete::<Record>("a").unwrap().unwrap();
    assert_eq!(kind(catalog.begin_delete::<Record>("a")), ErrorKind::Aborted);
    assert_eq!(
        kind(catalog.begin_create::<Record>(&id("a"), thin(1), POOL)),
        ErrorKind::Aborted
    );
    catalog.finish_delete(&taken, Deleted::Left);
    assert_eq!(reserved(&catalog), 400);
    assert_eq!(kind(catalog.get::<Record>("a")), ErrorKind::NotFound);
    let taken = catalog.begin_delete::<Record>("a").unwrap().expect("once more");
    catalog.finish_delete(&taken, Deleted::Gone);
    assert_eq!(reserved(&catalog), 0);
    assert_eq!(catalog.begin_delete::<Record>("a").unwrap(), None);
}

#[test]
fn a_delete_that_did_not_begin_changes_nothing() {
    let catalog = with("a", 400);
    let taken = catalog.begin_delete::<Record>("a").unwrap().unwrap();
    catalog.finish_delete(&taken, Deleted::Kept);
    assert_eq!(catalog.get("a").unwrap(), record("a", 400));
    assert_eq!(reserved(&catalog), 400);
}

#[test]
fn damaged_volumes_are_neither_served_nor_replaced_nor_removed() {
    let entry = Entry::Damaged {
        reason: "its record is damaged".into(),
    };
    let catalog = holding(BTreeMap::from([(id("a"), entry)]));
    assert_eq!(kind(catalog.get::<Record>("a")), ErrorKind::FailedPrecondition);
    assert_eq!(
        kind(catalog.begin_create::<Record>(&id("a"), thin(1), POOL)),
        ErrorKind::FailedPrecondition
    );
    assert_eq!(
        kind(catalog.begin_delete::<Record>("a")),
        ErrorKind::FailedPrecondition
    );
    assert_eq!(catalog.page::<Record>(None, 10), (vec![], false));
}

#[test]
fn an_expansion_reserves_the_difference() {
    let catalog = with("a", 400);
    assert_eq!(
        kind(catalog.begin_expand(&record("a", 400), 1001, POOL)),
        ErrorKind::ResourceExhausted
    );
    catalog.begin_expand(&record("a", 400), 900, POOL).unwrap();
    assert_eq!(reserved(&catalog), 900);
    catalog.finish_expand(&record("a", 400), 900, None);
    assert_eq!(reserved(&catalog), 400);
    catalog.begin_expand(&record("a", 400), 900, POOL).unwrap();
    catalog.finish_expand(&record("a", 400), 900, Some(record("a", 900)));
    assert_eq!(
        (
            reserved(&catalog),
            catalog.get::<Record>("a").unwrap().capacity_bytes
        ),
        (900, 900)
    );
}

#[test]
fn an_explicit_limit_beats_the_pools_size() {
    let limited = |bytes| Limits {
        capacity_bytes: Some(bytes),
        ..ALL
    };
    let catalog = Catalog::new(limited(10), FoundInPool::default());
    assert_eq!(
        kind(catalog.begin_create::<Record>(&id("a"), thin(11), POOL)),
        ErrorKind::ResourceExhausted
    );
    let catalog = Catalog::new(limited(5000), FoundInPool::default());
    for volume_id in ["a", "b", "c"] {
        catalog
            .begin_create::<Record>(&id(volume_id), thin(900), POOL)
            .expect("a capacity beyond the disk is the operator's choice");
    }
}

#[test]
fn pages_follow_the_order_of_ids() {
    let volumes = ["a", "b", "c"].map(|name| (id(name), Entry::Ready(record(name, 1))));
    let catalog = holding(BTreeMap::from(volumes));
    let ids = |start, count| {
        let (page, has_more) = catalog.page::<Record>(start, count);
        (
            page.iter()
                .map(|record| record.volume_id.to_string())
                .collect::<Vec<_>>()
                .join(""),
            has_more,
        )
    };
    let cases = [
        (None, 2, "ab", true),
        (Some("b"), 2, "c", false),
        (Some("aa"), 1, "b", true),
        (None, 3, "abc", false),
    ];
    for (start, count, expected, more) in cases {
        assert_eq!(
            ids(start, count),
            (expected.to_owned(), more),
            "{start:?} {count}"
        );
    }
}

fn snapshot(snapshot_id: &str, source: &str) -> Arc<SnapshotRecord> {
    Arc::new(SnapshotRecord {
        source_volume_id: source.into(),
        reserved_bytes: 10,
        ..crate::record::snapshot::tests::snapshot(snapshot_id)
    })
}

#[test]
fn snapshots_are_found_by_their_volume_and_count_beside_volumes() {
    let catalog = with("v", 900);
    let promise = |bytes| Promise {
        purpose: Purpose::Snapshot,
        bytes,
    };
    for (snapshot_id, source) in [("s1", "v"), ("s2", "w"), ("s3", "v"), ("s0", "vv"), ("s4", "v")] {
        catalog
            .begin_create::<SnapshotRecord>(&id(snapshot_id), promise(20), POOL)
            .unwrap();
        catalog.finish_create(&id(snapshot_id), Some(snapshot(snapshot_id, source)));
    }
    assert_eq!(reserved(&catalog), 950, "what it came to, not what was set aside");
    let refused = catalog.begin_create::<SnapshotRecord>(&id("s5"), promise(51), POOL);
    assert_eq!(kind(refused), ErrorKind::ResourceExhausted);
    let ids = |source, start, count| {
        let (page, has_more) = catalog.page_of::<SnapshotRecord>(source, start, count);
        let ids: Vec<_> = page.iter().map(|record| record.snapshot_id.to_string()).collect();
        (ids.join(" "), has_more)
    };
    assert_eq!(ids("v", None, 2), ("s1 s3".to_owned(), true));
    assert_eq!(ids("v", Some("s3"), 2), ("s4".to_owned(), false));
    assert_eq!(ids("x", None, 2), (String::new(), false));
    let taken = catalog.begin_delete::<SnapshotRecord>("s3").unwrap().unwrap();
    assert_eq!(
        ids("v", None, 9),
        ("s1 s4".to_owned(), false),
        "not while it goes"
    );
    catalog.finish_delete(&taken, Deleted::Kept);
    assert_eq!(ids("v", None, 9), ("s1 s3 s4".to_owned(), false));
    let taken = catalog.begin_delete::<SnapshotRecord>("s3").unwrap().unwrap();
    catalog.finish_delete(&taken, Deleted::Gone);
    assert_eq!(
        (ids("v", None, 9), reserved(&catalog)),
        (("s1 s4".to_owned(), false), 940)
    );
}

proptest! {
    #[test]
    fn reserved_bytes_are_the_sum_of_what_exists(
        steps in proptest::collection::vec((0u8..4, 0u64..400, 0u8..5, any::<bool>()), 1..60),
    ) {
        let catalog = empty();
        for (volume, bytes, step, ok) in steps {
            let id = id(&format!("v{volume}"));
            match step {
                0 | 1 => if let Ok(Begin::Create) = catalog.begin_create::<Record>(&id, thin(bytes), POOL) {
                    catalog.finish_create(&id, ok.then(|| record(&id, bytes)));
                },
                2 => if let Ok(Some(taken)) = catalog.begin_delete::<Record>(&id) {
                    catalog.finish_delete(&taken, if ok { Deleted::Gone } else { Deleted::Left });
                },
                3 => if let Ok(Some(taken)) = catalog.begin_delete::<Record>(&id) {
                    catalog.finish_delete(&taken, Deleted::Kept);
                },
                _ => if let Ok(old) = catalog.get::<Record>(&id) {
                    let new = old.capacity_bytes + bytes;
                    if catalog.begin_expand(&old, new, POOL).is_ok() {
                        catalog.finish_expand(&old, new, ok.then(|| record(&id, new)));
                    }
                },
            }
            let state = catalog.state.lock();
            let sum: u64 = state.volumes.promises().map(|promise| promise.bytes).sum();
            prop_assert_eq!(state.promised.total_bytes(), sum);
            prop_assert!(sum <= POOL.total_bytes);
        }
    }
}

#[test]
fn what_is_leaving_keeps_its_room_until_it_has_left() {
    let catalog = Catalog::new(ALL, FoundInPool::default());
    let old = record("v", 600);
    let begun = catalog.begin_create::<Record>(&old.volume_id, old.promise(), POOL);
    assert_eq!(begun.unwrap(), Begin::Create);
    catalog.finish_create(&old.volume_id, Some(Arc::clone(&old)));
    catalog.begin_delete::<Record>("v").unwrap().unwrap();
    catalog.finish_delete(&old, Deleted::Leaving);
    assert!(!catalog.has::<Record>("v"));
    assert_eq!(catalog.left(POOL, THIN), 400, "its data is still there");
    let new = record("v", 400);
    let begun = catalog.begin_create::<Record>(&new.volume_id, new.promise(), POOL);
    assert_eq!(begun.unwrap(), Begin::Create, "its name is free");
    catalog.finish_leaving(&*old);
    assert_eq!(catalog.left(POOL, THIN), 600);
}
