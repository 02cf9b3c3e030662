//! Tables and a round-trip property for the mountinfo parser.

use proptest::prelude::*;

use super::*;

fn entry() -> MountEntry {
    MountEntry {
        mount_id: 36,
        parent_id: 35,
        device: (98, 0),
        root: "/mnt1".into(),
        mount_point: "/mnt2".into(),
        options: "rw,noatime".into(),
        optional_fields: vec!["master:1".into()],
        fs_type: "ext3".into(),
        source: "/dev/root".into(),
        super_options: "rw,errors=continue".into(),
    }
}

#[test]
fn lines_are_read_as_proc_5_describes_them() {
    let cases: [(&str, &str, MountEntry); 5] = [
        (
            "one optional field",
            "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue",
            entry(),
        ),
        (
            "no optional field",
            "36 35 98:0 /mnt1 /mnt2 rw,noatime - ext3 /dev/root rw,errors=continue",
            MountEntry {
                optional_fields: vec![],
                ..entry()
            },
        ),
        (
            "several optional fields",
            "36 35 98:0 /mnt1 /mnt2 rw,noatime shared:4 master:1 - ext3 /dev/root rw,errors=continue",
            MountEntry {
                optional_fields: vec!["shared:4".into(), "master:1".into()],
                ..entry()
            },
        ),
        (
            "escapes",
            r"36 35 98:0 /mnt1 /a\040b\011c\134d\043 rw,noatime master:1 - ext3 /dev/root rw,errors=continue",
            MountEntry {
                mount_point: "/a b\tc\\d#".into(),
                ..entry()
            },
        ),
        (
            "a backslash that escapes nothing",
            r"36 35 98:0 /mnt1 /a\9\04 rw,noatime master:1 - ext3 /dev/root rw,errors=continue",
            MountEntry {
                mount_point: r"/a\9\04".into(),
                ..entry()
            },
        ),
    ];
    for (name, line, expected) in cases {
        assert_eq!(parse(line).expect(name), vec![expected], "{name}");
    }
}

#[test]
fn a_line_that_lacks_a_field_is_named() {
    let cases = [
        ("x 35 98:0 / / rw - ext3 a rw", "the mount id"),
        ("36 35 98 / / rw - ext3 a rw", "the device"),
        ("36 35 98:0 / / rw ext3 a rw", "the separator"),
        ("36 35 98:0 / / rw - ext3", "the source"),
        ("36 35 98:0 / / rw - ext3 a", "the super options"),
    ];
    for (line, expected) in cases {
        match parse(line) {
            Err(MountError::BadMountinfo { missing, .. }) => assert_eq!(missing, expected, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn read_only_is_seen_on_the_mount_and_on_the_filesystem() {
    assert!(!entry().is_read_only());
    assert!(
        MountEntry {
            options: "noatime,ro".into(),
            ..entry()
        }
        .is_read_only()
    );
    assert!(
        MountEntry {
            super_options: "ro".into(),
            ..entry()
        }
        .is_read_only()
    );
    assert!(
        !MountEntry {
            super_options: "errors=remount-ro,rom".into(),
            ..entry()
        }
        .is_read_only()
    );
}

#[test]
fn unmount_order_is_deepest_and_topmost_first() {
    let at = |mount_id, path: &str| MountEntry {
        mount_id,
        mount_point: path.into(),
        ..entry()
    };
    let table = [
        at(1, "/a"),
        at(2, "/a/b"),
        at(3, "/ab"),
        at(4, "/a"),
        at(5, "/a/b/c"),
    ];
    let order: Vec<_> = at_or_below(&table, Path::new("/a"))
        .iter()
        .map(|entry| entry.mount_id)
        .collect();
    assert_eq!(order, [5, 2, 4, 1]);
}

#[test]
fn the_table_of_this_process_is_readable() {
    let table = read().expect("mountinfo");
    assert!(table.iter().any(|entry| entry.mount_point == Path::new("/")));
}

fn escape(plain: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in plain {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => escaped.extend(format!("\\{byte:03o}").into_bytes()),
            _ => escaped.push(*byte),
        }
    }
    escaped
}

proptest! {
    #[test]
    fn any_path_survives_the_kernels_escaping(
        path in proptest::collection::vec(1u8..=255, 1..40),
        source in proptest::collection::vec(1u8..=255, 1..20),
        optional in proptest::collection::vec("[a-z]{1,8}:[0-9]{1,4}", 0..4),
        ids in (0u32..9999, 0u32..9999, 0u32..4095, 0u32..99999),
    ) {
        let expected = MountEntry {
            mount_id: ids.0, parent_id: ids.1, device: (ids.2, ids.3),
            mount_point: PathBuf::from(OsString::from_vec(path.clone())),
            source: OsString::from_vec(source.clone()),
            optional_fields: optional.clone(),
            ..entry()
        };
        let mut line = format!("{} {} {}:{} /mnt1 ", ids.0, ids.1, ids.2, ids.3).into_bytes();
        line.extend(escape(&path));
        line.extend(b" rw,noatime ");
        for field in &optional { line.extend(format!("{field} ").into_bytes()); }
        line.extend(b"- ext3 ");
        line.extend(escape(&source));
        line.extend(b" rw,errors=continue\n");
        prop_assert_eq!(parse(&line).expect("parses"), vec![expected]);
    }

    #[test]
    fn no_input_makes_the_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        parse(&text).ok(); // only that it returns
    }
}
