//! The pool on a real directory: half-made volumes, damaged records, two controllers, failures in the middle.

use std::{collections::BTreeMap, sync::Arc};

use moorline_driver_sdk::ErrorKind;
use moorline_mount::durable::TEMPORARY_SUFFIX;

use super::{
    shelf::{COPY_FILE, RECORD_FILE},
    *,
};
use crate::{catalog::Entry, record::Content};

fn record(volume_id: &str) -> Record {
    Record {
        content: Content::Directory,
        ..crate::record::tests::record(volume_id)
    }
}

fn config(directory: &Path) -> PoolConfig {
    PoolConfig::new("default", directory, BackendKind::Dir)
}

fn open(directory: &Path) -> Pool {
    Pool::open(&config(directory), true).unwrap()
}

fn names(pool: &Pool) -> Vec<String> {
    let entries = fs::read_dir(&pool.volumes.path).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn nothing(_: &Path) -> Result<(), DriverError> {
    Ok(())
}

#[test]
fn a_volume_is_there_after_reopening_and_gone_after_its_deletion() {
    let dir = tempfile::tempdir().unwrap();
    let pool = open(dir.path());
    pool.create(record("a"), |new| {
        fs::write(new.join("data"), "x").unwrap();
        Ok(())
    })
    .unwrap();
    assert_eq!(fs::read_to_string(pool.directory("a").join("data")).unwrap(), "x");
    drop(pool);
    let pool = open(dir.path());
    let found = pool.recover().unwrap().volumes;
    assert_eq!(
        found,
        BTreeMap::from([("a".into(), Entry::Ready(Arc::new(record("a"))))])
    );
    pool.delete("a").unwrap();
    pool.delete("a").expect("twice is fine");
    assert_eq!(names(&pool), [""; 0]);
    assert!(matches!(pool.load("a"), Err(PoolError::NotThere { .. })));
}

#[test]
fn a_create_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let pool = open(dir.path());
    let failed = pool.create(record("a"), |new| {
        fs::write(new.join("data"), "x").unwrap();
        Err(DriverError::exhausted("no room"))
    });
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::ResourceExhausted);
    assert_eq!(names(&pool), [""; 0]);
}

#[test]
fn a_create_that_did_not_know_of_its_success_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let pool = open(dir.path());
    pool.create(record("a"), nothing).unwrap();
    let other = Record {
        capacity_bytes: 7,
        ..record("a")
    };
    let found = pool.create(other, |_| panic!("nothing is made twice")).unwrap();
    assert_eq!(found, record("a"));
}

#[test]
fn what_a_crash_left_half_made_is_removed_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let pool = open(dir.path());
    for half in [".new-a", ".del-b"] {
        fs::create_dir(pool.volumes.path.join(half)).unwrap();
        fs::write(pool.volumes.path.join(half).join("data"), "x").unwrap();
    }
    pool.create(record("c"), nothing).unwrap();
    let temporary = pool.directory("c").join(format!(".record-1-2{TEMPORARY_SUFFIX}"));
    fs::write(&temporary, "half").unwrap();
    assert_eq!(pool.recover().unwrap().volumes.len(), 1);
    assert_eq!(names(&pool), ["c"]);
    assert!(!temporary.exists());
}

#[test]
fn a_leftover_of_the_same_name_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let pool = open(dir.path());
    for half in [".new-a", ".del-a"] {
        fs::create_dir(pool.volumes.path.join(half)).unwrap();
        fs::write(pool.volumes.path.join(half).join("data"), "x").unwrap();
    }
    pool.create(record("a"), nothing).unwrap();
    pool.delete("a").unwrap();
    assert_eq!(names(&pool), [""; 0]);
}

#[test]
fn damaged_records_are_reported_and_left_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let pool = open(dir.path());
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 4] = [
        ("cut", |path| fs::write(path, "moorline").unwrap()),
        ("missing", |path| fs::remove_file(path).unwrap()),
        ("foreign", |path| {
            fs::write(path, record("other").to_bytes()).unwrap()
        }),
        ("future", |path| {
            let text = String::from_utf8(record("future").to_bytes()).unwrap();
            fs::write(path, text.replacen(" 2 ", " 9 ", 1)).unwrap();
        }),
    ];
    for (name, damage) in damages {
        pool.create(record(name), nothing).unwrap();
        for file in [RECORD_FILE, COPY_FILE] {
            damage(&pool.directory(name).join(file));
        }
    }
    let found = pool.recover().unwrap().volumes;
    for (name, _) in damages {
        assert!(
            matches!(found[name], Entry::Damaged { .. }),
            "{name}: {:?}",
            found[name]
        );
        assert!(pool.directory(name).exists(), "{name}");
    }
}

#[test]
fn one_good_copy_saves_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let pool = open(dir.path());
    pool.create(record("a"), nothing).unwrap();
    let good = fs::read(pool.directory("a").join(RECORD_FILE)).unwrap();
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 3] = [
        ("cut", |path| fs::write(path, "moorline").unwrap()),
        ("missing", |path| fs::remove_file(path).unwrap()),
        ("of another volume", |path| {
            fs::write(path, record("b").to_bytes()).unwrap()
        }),
    ];
    for file in [RECORD_FILE, COPY_FILE] {
        for (name, damage) in damages {
            damage(&pool.directory("a").join(file));
            assert_eq!(pool.load("a").unwrap(), record("a"), "{file} {name}: read");
            let found = pool.recover().unwrap().volumes;
            assert_eq!(found["a"], Entry::Ready(Arc::new(record("a"))), "{file} {name}");
            for file in [RECORD_FILE, COPY_FILE] {
                assert_eq!(
                    fs::read(pool.directory("a").join(file)).unwrap(),
                    good,
                    "{file} {name}: rebuilt"
                );
            }
        }
    }
}

#[test]
fn an_update_is_in_both_copies() {
    let dir = tempfile::tempdir().unwrap();
    let pool = open(dir.path());
    pool.create(record("a"), nothing).unwrap();
    let grown = Record {
        capacity_bytes: 7,
        ..record("a")
    };
    pool.update(&grown).unwrap();
    for file in [RECORD_FILE, COPY_FILE] {
        assert_eq!(
            fs::read(pool.directory("a").join(file)).unwrap(),
            grown.to_bytes(),
            "{file}"
        );
    }
}

#[test]
fn a_pool_keeps_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let id = open(dir.path()).id();
    assert_eq!(open(dir.path()).id(), id);
    fs::write(dir.path().join(ID_FILE), "nonsense").unwrap();
    let again = open(dir.path()).id();
    assert_ne!(again, id);
    assert_eq!(open(dir.path()).id(), again);
}

#[test]
fn only_one_controller_has_the_pool_and_nodes_may_join() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    assert!(matches!(
        Pool::open(&config(dir.path()), true),
        Err(PoolError::Locked(_))
    ));
    Pool::open(&config(dir.path()), false).expect("a node");
    drop(first);
    Pool::open(&config(dir.path()), true).expect("free again");
}

#[test]
fn a_pool_of_another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FORMAT_FILE), "moorline-pool 7\n").unwrap();
    assert!(matches!(
        Pool::open(&config(dir.path()), true),
        Err(PoolError::Format { .. })
    ));
}

#[test]
fn ids_that_are_none_are_never_looked_up() {
    let dir = tempfile::tempdir().unwrap();
    let pool = open(dir.path());
    for id in ["..", "a/b", ".new-a", ""] {
        assert!(matches!(pool.load(id), Err(PoolError::NotThere { .. })), "{id:?}");
    }
}

#[test]
fn many_volumes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pool = open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                for i in 0..25 {
                    pool.create(record(&format!("v{thread}-{i}")), nothing).unwrap();
                }
            });
        }
    });
    assert_eq!(pool.recover().unwrap().volumes.len(), 200);
}

mod with_a_journal {
    //! What a power cut may do to a pool whose promises stand in its journal.

    use std::os::unix::fs::PermissionsExt as _;

    use moorline_driver_sdk::request::StringMap;

    use super::*;
    use crate::{pool::journal::RECORD_BYTES_MAX, record::Source};

    fn open_journaled(directory: &Path) -> Pool {
        open(directory).of_one_process()
    }

    fn with_data(directory: &Path) -> Result<(), DriverError> {
        fs::create_dir_all(directory.join("data")).unwrap();
        Ok(())
    }

    fn sized(capacity_bytes: u64) -> Record {
        Record {
            capacity_bytes,
            source: None,
            ..record("a")
        }
    }

    /// A copy of the volume's directory, to be brought back later.
    fn keep_aside(pool: &Pool) {
        let from = pool.directory("a");
        let aside = pool.root.join("aside");
        fs::create_dir_all(aside.join("data")).unwrap();
        for file in [RECORD_FILE, COPY_FILE, "data/file"] {
            if from.join(file).exists() {
                fs::copy(from.join(file), aside.join(file)).unwrap();
            }
        }
    }

    fn bring_back(root: &Path) {
        let place = root.join("volumes/a");
        if place.exists() {
            fs::remove_dir_all(&place).unwrap();
        }
        fs::rename(root.join("aside"), place).unwrap();
    }

    struct Case {
        name: &'static str,
        /// What was asked for and answered.
        acts: fn(&Pool),
        /// What the power cut did to the filesystem, given the pool's root.
        cut: fn(&Path),
        /// The volume that must be there, and what its data must hold.
        expected: Option<(u64, &'static [&'static str])>,
    }

    fn make(pool: &Pool, capacity_bytes: u64) {
        pool.create(sized(capacity_bytes), with_data).unwrap();
    }

    const CASES: &[Case] = &[
        Case {
            name: "nothing happens",
            acts: |pool| make(pool, 1),
            cut: |_| (),
            expected: Some((1, &[])),
        },
        Case {
            name: "a new volume is lost",
            acts: |pool| make(pool, 1),
            cut: |root| fs::remove_dir_all(root.join("volumes/a")).unwrap(),
            expected: Some((1, &[])),
        },
        Case {
            name: "its record is empty",
            acts: |pool| make(pool, 1),
            cut: |root| {
                for file in [RECORD_FILE, COPY_FILE] {
                    fs::write(root.join("volumes/a").join(file), "").unwrap();
                }
            },
            expected: Some((1, &[])),
        },
        Case {
            name: "its record is empty, and the journal was the only copy",
            acts: |pool| make(pool, 1),
            cut: |root| fs::write(root.join("volumes/a").join(RECORD_FILE), "").unwrap(),
            expected: Some((1, &[])),
        },
        Case {
            name: "its data is lost",
            acts: |pool| make(pool, 1),
            cut: |root| fs::remove_dir(root.join("volumes/a/data")).unwrap(),
            expected: Some((1, &[])),
        },
        Case {
            name: "it is not in its place yet",
            acts: |pool| make(pool, 1),
            cut: |root| fs::rename(root.join("volumes/a"), root.join("volumes/.new-a")).unwrap(),
            expected: Some((1, &[])),
        },
        Case {
            name: "a deletion is lost",
            acts: |pool| {
                make(pool, 1);
                keep_aside(pool);
                pool.delete("a").unwrap();
            },
            cut: bring_back,
            expected: None,
        },
        Case {
            name: "the deletion of an old volume is lost",
            acts: |pool| {
                make(pool, 1);
                pool.settle("a").unwrap();
                fs::write(pool.directory("a").join("data/file"), "secret").unwrap();
                keep_aside(pool);
                pool.delete("a").unwrap();
            },
            cut: bring_back,
            expected: None,
        },
        Case {
            name: "a deletion and a new creation are lost",
            acts: |pool| {
                make(pool, 1);
                pool.settle("a").unwrap();
                fs::write(pool.directory("a").join("data/file"), "secret").unwrap();
                keep_aside(pool);
                pool.delete("a").unwrap();
                make(pool, 2);
            },
            cut: bring_back,
            expected: Some((2, &[])),
        },
        Case {
            name: "a used volume is not touched",
            acts: |pool| {
                make(pool, 1);
                pool.settle("a").unwrap();
                fs::write(pool.directory("a").join("data/file"), "x").unwrap();
            },
            cut: |_| (),
            expected: Some((1, &["file"])),
        },
        Case {
            name: "a growth stays, also of a volume that follows another",
            acts: |pool| {
                make(pool, 1);
                pool.delete("a").unwrap();
                make(pool, 1);
                pool.update(&sized(5)).unwrap();
                fs::write(pool.directory("a").join("data/file"), "x").unwrap();
            },
            cut: |_| (),
            expected: Some((5, &["file"])),
        },
        Case {
            name: "what was made without the journal is not taken for what was deleted",
            acts: |pool| {
                make(pool, 1);
                pool.delete("a").unwrap();
                let clone = Record {
                    source: Some(Box::new(Source::Volume("b".into()))),
                    ..sized(3)
                };
                pool.create(clone, with_data).unwrap();
                fs::write(pool.directory("a").join("data/file"), "x").unwrap();
            },
            cut: |_| (),
            expected: Some((3, &["file"])),
        },
        Case {
            name: "the journal is torn: what stands in its place counts",
            acts: |pool| make(pool, 1),
            cut: |root| fs::write(root.join("journal"), [7; 5000]).unwrap(),
            expected: Some((1, &[])),
        },
    ];

    #[test]
    fn a_power_cut_changes_nothing_that_was_answered() {
        for case in CASES {
            let name = case.name;
            let dir = tempfile::tempdir().unwrap();
            let pool = open_journaled(dir.path());
            (case.acts)(&pool);
            drop(pool);
            (case.cut)(dir.path());
            // Twice: also a start may be killed before the journal is empty.
            let journal = fs::read(dir.path().join("journal")).unwrap();
            for _ in 0..2 {
                fs::write(dir.path().join("journal"), &journal).unwrap();
                let pool = open_journaled(dir.path());
                pool.replay().unwrap();
                let found = pool.recover().unwrap().volumes;
                let Some((capacity_bytes, files)) = case.expected else {
                    assert!(found.is_empty(), "{name}: {found:?}");
                    assert_eq!(names(&pool), [""; 0], "{name}");
                    continue;
                };
                let Some(Entry::Ready(record)) = found.get("a") else {
                    panic!("{name}: {found:?}");
                };
                assert_eq!(record.capacity_bytes, capacity_bytes, "{name}");
                let data = pool.directory("a").join("data");
                let held: Vec<_> = fs::read_dir(&data)
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect();
                assert_eq!(held, files, "{name}");
                if files.is_empty() && name != "nothing happens" && !name.contains("torn") {
                    assert_eq!(
                        fs::metadata(&data).unwrap().permissions().mode() & 0o777,
                        0o777,
                        "{name}"
                    );
                }
                assert_eq!(names(&pool), ["a"], "{name}");
                assert_eq!(
                    fs::metadata(dir.path().join("journal")).unwrap().len(),
                    0,
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn a_record_too_large_for_the_journal_goes_without() {
        let dir = tempfile::tempdir().unwrap();
        let pool = open_journaled(dir.path());
        let large = StringMap::from([("k".to_owned(), "x".repeat(RECORD_BYTES_MAX))]);
        let record = Record {
            mutable_parameters: large.into(),
            ..sized(1)
        };
        pool.create(record.clone(), with_data).unwrap();
        assert!(!pool.journal.as_ref().unwrap().says_something("a"));
        drop(pool);
        let pool = open_journaled(dir.path());
        pool.replay().unwrap();
        assert_eq!(
            pool.recover().unwrap().volumes["a"],
            Entry::Ready(Arc::new(record))
        );
    }

    #[test]
    fn a_pool_at_rest_may_be_changed_by_others() {
        let dir = tempfile::tempdir().unwrap();
        let pool = open_journaled(dir.path());
        make(&pool, 1);
        pool.rest().unwrap();
        assert_eq!(fs::metadata(dir.path().join("journal")).unwrap().len(), 0);
        // It goes on where it was.
        pool.delete("a").unwrap();
        make(&pool, 2);
        pool.rest().unwrap();
        drop(pool);
        fs::remove_dir_all(dir.path().join("volumes/a")).unwrap();
        let pool = open_journaled(dir.path());
        pool.replay().unwrap();
        assert!(pool.recover().unwrap().volumes.is_empty());
    }

    #[test]
    fn a_new_volume_gets_what_an_unused_one_left() {
        let dir = tempfile::tempdir().unwrap();
        let pool = open_journaled(dir.path());
        let inode = |pool: &Pool| {
            use std::os::unix::fs::MetadataExt as _;
            fs::metadata(pool.directory("a").join("data")).unwrap().ino()
        };
        make(&pool, u64::MAX);
        let first = inode(&pool);
        pool.delete("a").unwrap();
        make(&pool, 1);
        assert_eq!(inode(&pool), first);
        assert_eq!(
            pool.load("a").unwrap().capacity_bytes,
            1,
            "nothing is left of the longer record"
        );
        assert_eq!(names(&pool), ["a"]);
        // Used now: it goes for good.
        pool.settle("a").unwrap();
        pool.delete("a").unwrap();
        assert_eq!(names(&pool), [""; 0]);
        // What waits is removed by whoever ends or starts.
        make(&pool, 1);
        pool.delete("a").unwrap();
        assert_eq!(names(&pool), [".new-spare.2"]);
        drop(pool);
        let pool = open_journaled(dir.path());
        pool.replay().unwrap();
        assert!(pool.recover().unwrap().volumes.is_empty());
        assert_eq!(names(&pool), [""; 0]);
        make(&pool, 1);
        pool.delete("a").unwrap();
        pool.rest().unwrap();
        assert_eq!(names(&pool), [""; 0]);
    }

    #[test]
    fn what_was_unused_is_told_from_another_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let pool = open_journaled(dir.path());
        make(&pool, 1);
        pool.take_away("a").unwrap();
        // Used, and deleted before the first one's data has gone.
        make(&pool, 1);
        pool.settle("a").unwrap();
        fs::remove_file(pool.directory("a").join(COPY_FILE)).unwrap();
        pool.take_away("a").unwrap();
        pool.remove_gone("a").unwrap();
        assert_eq!(names(&pool), [""; 0]);
    }

    /// Has the record of `a` a second copy that is as the first?
    fn has_copy(pool: &Pool) -> bool {
        let read = |file| fs::read(pool.directory("a").join(file)).ok();
        read(COPY_FILE).is_some_and(|copy| Some(copy) == read(RECORD_FILE))
    }

    #[test]
    fn a_record_has_a_second_copy_once_the_journal_is_none() {
        type Act = fn(&Pool);
        let cases: [(&str, Act, bool); 6] = [
            ("new", |_| (), false),
            ("used", |pool| pool.settle("a").unwrap(), true),
            ("grown", |pool| pool.update(&sized(2)).unwrap(), true),
            ("asked for again", |pool| make(pool, 1), true),
            ("at rest", |pool| pool.rest().unwrap(), true),
            ("forgotten", |pool| write_epochs(pool, 3), true),
        ];
        for (name, act, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            let pool = open_journaled(dir.path());
            make(&pool, 1);
            act(&pool);
            assert_eq!(has_copy(&pool), expected, "{name}");
            // A kill: the start brings it in order, and takes nothing for lost.
            drop(pool);
            let pool = open_journaled(dir.path());
            pool.replay().unwrap();
            assert!(matches!(pool.recover().unwrap().volumes["a"], Entry::Ready(_)));
            assert!(has_copy(&pool), "{name}");
        }
    }

    /// Writes so much that the journal begins anew so often.
    fn write_epochs(pool: &Pool, epochs: u64) {
        let large = StringMap::from([("k".to_owned(), "x".repeat(RECORD_BYTES_MAX - 1000))]);
        let last = pool.journal.as_ref().unwrap().epoch() + epochs;
        let mut number = 0;
        while pool.journal.as_ref().unwrap().epoch() < last {
            let record = Record {
                mutable_parameters: large.clone().into(),
                source: None,
                ..record(&format!("other-{number}"))
            };
            number += 1;
            pool.create(record, with_data).unwrap();
        }
    }

    #[test]
    fn ids_that_are_paths_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let pool = open_journaled(dir.path());
        fs::create_dir(dir.path().join("outside")).unwrap();
        for id in ["../outside", "..", "", "/"] {
            pool.take_away(id).unwrap();
        }
        assert!(dir.path().join("outside").exists());
    }
}
