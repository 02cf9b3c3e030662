//! What is found in a file: our own data again, or something that must not be touched.

use super::*;

#[tokio::test]
async fn everything_is_there_again_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    let lease = store.lease_grant(Duration::from_secs(3_600)).await.unwrap();
    for number in 0..40 {
        store
            .txn(put(&format!("{}", number % 7), &[number]))
            .await
            .unwrap();
    }
    store.compact(Revision(20)).await.unwrap();
    let before = store.range(Range::default()).await.unwrap();
    let old = Range {
        at: Some(Revision(25)),
        ..Range::default()
    };
    let old_before = store.range(old.clone()).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = open(&path);
    assert_eq!(
        (store.current_revision(), store.compacted_revision()),
        (Revision(40), Revision(20))
    );
    assert_eq!(store.range(Range::default()).await.unwrap(), before);
    assert_eq!(store.range(old).await.unwrap(), old_before);
    store.lease_keep_alive(lease).await.unwrap();
    assert!(store.lease_grant(Duration::from_secs(1)).await.unwrap() > lease);
}

#[tokio::test]
async fn a_lease_that_ended_while_the_store_was_closed_ends_at_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    let lease = store.lease_grant(Duration::from_millis(600)).await.unwrap();
    let key = Bytes::from("a");
    let op = Op::Put {
        key: key.clone(),
        value: Bytes::new(),
        lease: Some(lease),
    };
    store
        .txn(Txn {
            compare: vec![],
            ops: vec![op],
        })
        .await
        .unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = open(&path);
    until("the key is deleted", async || {
        store.get(key.clone(), None).await.unwrap().1.is_none()
    })
    .await;
    assert_eq!(store.current_revision(), Revision(2));
}

#[tokio::test]
async fn a_second_open_is_refused_and_the_first_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    let refused = EmbeddedStore::open(&path, EmbeddedOptions::default()).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused:?}");
    assert!(refused.to_string().contains("in use"), "{refused}");
    store.txn(put("a", b"1")).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(
        open(&path).current_revision(),
        Revision(1),
        "closed lets the file go"
    );
}

/// Opens a file with this content; it has to be refused and left as it is.
fn refused(name: &str, content: &[u8]) -> OpenError {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    fs::write(&path, content).unwrap();
    let error = match EmbeddedStore::open(&path, EmbeddedOptions::default()) {
        Err(error) => error,
        Ok(store) => panic!("{name}: opened as {store:?}"),
    };
    assert_eq!(fs::read(&path).unwrap(), content, "{name}: the file was changed");
    error
}

#[test]
fn foreign_and_empty_files_are_refused_and_kept() {
    let garbage: Vec<u8> = (0..40_000_u32).map(|number| (number * 7 % 251) as u8).collect();
    let cases: [(&str, &[u8]); 4] = [
        ("empty", b""),
        ("short text", b"hello"),
        ("garbage", &garbage),
        ("zeros", &[0; 20_000]),
    ];
    for (name, content) in cases {
        let error = refused(name, content);
        assert!(matches!(error, OpenError::NotAStore { .. }), "{name}: {error:?}");
        assert!(
            error.to_string().contains("move it away"),
            "{name}: says what to do: {error}"
        );
    }
}

#[test]
fn other_databases_and_formats_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let other = Database::create(&path).unwrap();
    let write = other.begin_write().unwrap();
    write
        .open_table(redb::TableDefinition::<u64, u64>::new("something"))
        .unwrap()
        .insert(1, 1)
        .unwrap();
    write.commit().unwrap();
    drop(other);
    let error = EmbeddedStore::open(&path, EmbeddedOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error:?}");

    let newer = Database::create(&path).unwrap();
    let write = newer.begin_write().unwrap();
    write
        .open_table(tables::META)
        .unwrap()
        .insert(tables::META_FORMAT, 99)
        .unwrap();
    write.commit().unwrap();
    drop(newer);
    let error = EmbeddedStore::open(&path, EmbeddedOptions::default()).unwrap_err();
    assert!(
        matches!(error, OpenError::OtherFormat { found: 99, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn torn_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    for number in 0..200_u8 {
        store.txn(put(&number.to_string(), &[number; 900])).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    for length in [
        1,
        100,
        4_096,
        whole.len() / 4,
        whole.len() / 2,
        whole.len() - 4_096,
    ] {
        let error = refused("cut off", &whole[..length]);
        assert!(
            matches!(error, OpenError::NotAStore { .. }),
            "cut to {length} bytes: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_half_made_store_of_a_killed_process_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let stale = directory
        .path()
        .join(format!("store.redb.new-{}", std::process::id()));
    fs::write(&stale, b"half").unwrap();
    let store = open(&path);
    store.txn(put("a", b"1")).await.unwrap();
    assert!(!stale.exists());
}

#[test]
fn a_missing_directory_is_named() {
    let error = EmbeddedStore::open(
        Path::new("/nowhere/at/all/store.redb"),
        EmbeddedOptions::default(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all/"), "{error}");
}
