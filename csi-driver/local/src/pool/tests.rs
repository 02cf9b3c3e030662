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
