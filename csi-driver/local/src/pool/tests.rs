//! The pool on a real directory: half-made volumes, damaged records, two controllers, failures in the middle.

use super::*;
use crate::record::Content;

fn record(volume_id: &str) -> Record {
    Record {
        volume_id: volume_id.to_owned(),
        name: volume_id.to_owned(),
        capacity_bytes: 1,
        content: Content::Directory,
        parameters: Default::default(),
        created_at: String::new(),
    }
}

fn names(pool: &Pool) -> Vec<String> {
    let entries = fs::read_dir(&pool.volumes).unwrap();
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
    let pool = Pool::open(dir.path(), true).unwrap();
    pool.create(&record("a"), |new| {
        fs::write(new.join("data"), "x").unwrap();
        Ok(())
    })
    .unwrap();
    assert_eq!(fs::read_to_string(pool.directory("a").join("data")).unwrap(), "x");
    drop(pool);
    let pool = Pool::open(dir.path(), true).unwrap();
    let found = pool.recover().unwrap();
    assert_eq!(
        found,
        BTreeMap::from([("a".to_owned(), Entry::Ready(Arc::new(record("a"))))])
    );
    pool.delete("a").unwrap();
    pool.delete("a").expect("twice is fine");
    assert_eq!(names(&pool), [""; 0]);
    assert!(matches!(pool.load("a"), Err(PoolError::NoSuchVolume(_))));
}

#[test]
fn a_create_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::open(dir.path(), true).unwrap();
    let failed = pool.create(&record("a"), |new| {
        fs::write(new.join("data"), "x").unwrap();
        Err(DriverError::exhausted("no room"))
    });
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::ResourceExhausted);
    assert_eq!(names(&pool), [""; 0]);
}

#[test]
fn a_create_that_did_not_know_of_its_success_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::open(dir.path(), true).unwrap();
    pool.create(&record("a"), nothing).unwrap();
    let other = Record {
        capacity_bytes: 7,
        ..record("a")
    };
    let found = pool.create(&other, |_| panic!("nothing is made twice")).unwrap();
    assert_eq!(found, record("a"));
}

#[test]
fn what_a_crash_left_half_made_is_removed_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::open(dir.path(), true).unwrap();
    for half in [".new-a", ".del-b"] {
        fs::create_dir(pool.volumes.join(half)).unwrap();
        fs::write(pool.volumes.join(half).join("data"), "x").unwrap();
    }
    pool.create(&record("c"), nothing).unwrap();
    let temporary = pool.directory("c").join(format!(".record-1-2{TEMPORARY_SUFFIX}"));
    fs::write(&temporary, "half").unwrap();
    assert_eq!(pool.recover().unwrap().len(), 1);
    assert_eq!(names(&pool), ["c"]);
    assert!(!temporary.exists());
}

#[test]
fn a_leftover_of_the_same_name_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::open(dir.path(), true).unwrap();
    for half in [".new-a", ".del-a"] {
        fs::create_dir(pool.volumes.join(half)).unwrap();
        fs::write(pool.volumes.join(half).join("data"), "x").unwrap();
    }
    pool.create(&record("a"), nothing).unwrap();
    pool.delete("a").unwrap();
    assert_eq!(names(&pool), [""; 0]);
}

#[test]
fn damaged_records_are_reported_and_left_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::open(dir.path(), true).unwrap();
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 4] = [
        ("cut", |path| fs::write(path, "moorline").unwrap()),
        ("missing", |path| fs::remove_file(path).unwrap()),
        ("foreign", |path| {
            fs::write(path, record("other").to_bytes()).unwrap()
        }),
        ("future", |path| {
            let text = String::from_utf8(record("future").to_bytes()).unwrap();
            fs::write(path, text.replacen(" 1 ", " 9 ", 1)).unwrap();
        }),
    ];
    for (name, damage) in damages {
        pool.create(&record(name), nothing).unwrap();
        damage(&pool.directory(name).join(RECORD_FILE));
    }
    let found = pool.recover().unwrap();
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
fn only_one_controller_has_the_pool_and_nodes_may_join() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pool::open(dir.path(), true).unwrap();
    assert!(matches!(Pool::open(dir.path(), true), Err(PoolError::Locked(_))));
    Pool::open(dir.path(), false).expect("a node");
    drop(first);
    Pool::open(dir.path(), true).expect("free again");
}

#[test]
fn a_pool_of_another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FORMAT_FILE), "moorline-pool 7\n").unwrap();
    assert!(matches!(
        Pool::open(dir.path(), true),
        Err(PoolError::Format { .. })
    ));
}

#[test]
fn ids_that_are_none_are_never_looked_up() {
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::open(dir.path(), true).unwrap();
    for id in ["..", "a/b", ".new-a", ""] {
        assert!(matches!(pool.load(id), Err(PoolError::NoSuchVolume(_))), "{id:?}");
    }
}

#[test]
fn many_volumes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pool = Pool::open(dir.path(), true).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                for i in 0..25 {
                    pool.create(&record(&format!("v{thread}-{i}")), nothing).unwrap();
                }
            });
        }
    });
    assert_eq!(pool.recover().unwrap().len(), 200);
}
