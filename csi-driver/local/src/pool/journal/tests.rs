//! What is written is read again, cut where it was cut, and means what it should.

use std::thread;

use proptest::prelude::*;

use super::*;

fn made(volume_id: &str, record: &str) -> Entry {
    Entry::Made {
        volume_id: volume_id.to_owned(),
        record: record.as_bytes().to_vec(),
    }
}

fn gone(volume_id: &str) -> Entry {
    Entry::Gone {
        volume_id: volume_id.to_owned(),
    }
}

fn settled(volume_id: &str) -> Entry {
    Entry::Settled {
        volume_id: volume_id.to_owned(),
    }
}

fn area(epoch: u64, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Entry::Begin.to_bytes(epoch);
    bytes.extend(entries.iter().flat_map(|entry| entry.to_bytes(epoch)));
    bytes.resize(AREA_BYTES, 0);
    bytes
}

#[test]
fn the_last_two_epochs_count_in_their_order() {
    let (a, b) = ([made("a", "1")], [gone("a")]);
    let nothing = vec![0; AREA_BYTES];
    let mut torn = area(3, &b);
    torn[20] ^= 1;
    let cases = [
        ("empty", [nothing.clone(), nothing.clone()].concat(), vec![]),
        ("one", [area(1, &a), nothing].concat(), a.to_vec()),
        (
            "two",
            [area(1, &a), area(2, &b)].concat(),
            [a.clone(), b.clone()].concat(),
        ),
        (
            "two, the other way round",
            [area(3, &b), area(2, &a)].concat(),
            [a.clone(), b.clone()].concat(),
        ),
        ("a gap", [area(5, &b), area(2, &a)].concat(), b.to_vec()),
        (
            "a beginning that is torn",
            [torn, area(2, &a)].concat(),
            a.to_vec(),
        ),
        ("cut short", area(1, &a)[..100].to_vec(), a.to_vec()),
        ("no file to speak of", vec![], vec![]),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(read_areas(&bytes, AREA_BYTES), expected, "{name}");
    }
}

#[test]
fn what_an_area_still_has_of_an_earlier_epoch_does_not_count() {
    let mut bytes = area(1, &[made("a", "1"), made("b", "1"), made("c", "1")]);
    let newer: Vec<u8> = [Entry::Begin.to_bytes(3), made("x", "1").to_bytes(3)].concat();
    bytes[..newer.len()].copy_from_slice(&newer);
    assert_eq!(read_areas(&bytes, AREA_BYTES), [made("x", "1")]);
}

#[test]
fn the_last_word_on_a_volume_counts() {
    let fate = |record: &str, follows_another| Fate::Made {
        record: record.as_bytes().to_vec(),
        follows_another,
    };
    let cases = [
        ("made", vec![made("a", "1")], Some(fate("1", false))),
        (
            "said twice",
            vec![made("a", "1"), made("a", "1")],
            Some(fate("1", false)),
        ),
        ("made and gone", vec![made("a", "1"), gone("a")], Some(Fate::Gone)),
        (
            "gone and made",
            vec![gone("a"), made("a", "2")],
            Some(fate("2", true)),
        ),
        (
            "made, gone, made, said twice",
            vec![made("a", "1"), gone("a"), made("a", "2"), made("a", "2")],
            Some(fate("2", true)),
        ),
        ("made and settled", vec![made("a", "1"), settled("a")], None),
        (
            "settled and gone",
            vec![made("a", "1"), settled("a"), gone("a")],
            Some(Fate::Gone),
        ),
        ("gone and settled anew", vec![gone("a"), settled("a")], None),
        ("of another", vec![gone("b")], None),
    ];
    for (name, entries, expected) in cases {
        assert_eq!(plan(entries).remove("a"), expected, "{name}");
    }
}

#[test]
fn what_is_found_decides_what_is_done() {
    let made = |follows_another| Fate::Made {
        record: vec![1],
        follows_another,
    };
    let cases = [
        (Fate::Gone, Seen::Nothing, Step::Leave),
        (Fate::Gone, Seen::Same, Step::TakeAway),
        (Fate::Gone, Seen::Other, Step::TakeAway),
        (Fate::Gone, Seen::NoRecord, Step::TakeAway),
        (made(false), Seen::Nothing, Step::Make),
        (made(false), Seen::Same, Step::Complete),
        (made(false), Seen::Other, Step::Leave),
        (made(false), Seen::NoRecord, Step::Complete),
        (made(true), Seen::Nothing, Step::Make),
        (made(true), Seen::Same, Step::Complete),
        (made(true), Seen::Other, Step::Replace),
        (made(true), Seen::NoRecord, Step::Replace),
    ];
    for (fate, seen, expected) in cases {
        assert_eq!(step(&fate, seen), expected, "{fate:?}, {seen:?}");
    }
}

#[test]
fn many_writers_over_many_epochs_are_all_read() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::new(dir.path());
    let record = vec![7; 2700];
    thread::scope(|scope| {
        for writer in 0..8 {
            let (journal, record) = (&journal, &record);
            scope.spawn(move || {
                for round in 0..60 {
                    let id: Arc<str> = format!("v-{writer}-{round}").into();
                    journal.made(&id, record).unwrap();
                    journal.in_place(&id);
                    if round % 2 == 0 {
                        journal.gone(&id).unwrap();
                    }
                }
            });
        }
    });
    // One that stays open is taken along from epoch to epoch.
    let open: Arc<str> = "open".into();
    journal.made(&open, &record).unwrap();
    for round in 0..300 {
        let id: Arc<str> = format!("w-{round}").into();
        journal.made(&id, &record).unwrap();
        journal.in_place(&id);
    }
    assert!(journal.state.lock().epoch > 3);
    let fates = Journal::read(dir.path()).unwrap();
    assert!(matches!(
        fates["open"],
        Fate::Made {
            follows_another: false,
            ..
        }
    ));
    assert!(matches!(fates["w-299"], Fate::Made { .. }));
    assert!(journal.says_made("w-299") && journal.says_made("open") && !journal.says_something("v-0-0"));
    for id in fates.keys() {
        assert!(journal.says_something(id), "{id} is written and not known");
    }
    journal.settled("open").unwrap();
    assert!(!Journal::read(dir.path()).unwrap().contains_key("open"));
    Journal::clear(dir.path()).unwrap();
    assert_eq!(Journal::read(dir.path()).unwrap(), BTreeMap::new());
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..600, flip in any::<u8>()) {
        drop(plan(read_areas(&bytes, 256)));
        let whole = [made("a", "x"), gone("b"), settled("c")];
        bytes = area(1, &whole);
        bytes[at] ^= flip;
        let read = read_areas(&bytes, AREA_BYTES);
        prop_assert!(whole.starts_with(&read), "{read:?}");
    }
}
