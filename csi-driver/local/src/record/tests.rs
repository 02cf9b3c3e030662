//! The format on disk, what is refused, and that version 1 is still read.

use proptest::prelude::*;

use super::*;

pub(crate) fn record(volume_id: &str) -> Record {
    Record {
        volume_id: volume_id.into(),
        name: volume_id.into(),
        pool: Uuid::nil(),
        capacity_bytes: 1 << 30,
        content: Content::Ext4,
        provisioning: Provisioning::Thin,
        parameters: Parameters::default(),
        mutable_parameters: Parameters::default(),
        source: None,
        created_at: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn the_format_on_disk_does_not_change_unnoticed() {
    let written = Record {
        source: Some(Box::new(Source::Snapshot("s".into()))),
        ..record("pvc-1")
    };
    let text = String::from_utf8(written.to_bytes()).unwrap();
    assert!(text.starts_with("moorline-volume 2 "), "{text}");
    let body = text.split_once('\n').unwrap().1;
    assert_eq!(
        body,
        "{\n  \"volume_id\": \"pvc-1\",\n  \"name\": \"pvc-1\",\n  \
         \"pool\": \"00000000-0000-0000-0000-000000000000\",\n  \"capacity_bytes\": 1073741824,\n  \
         \"content\": \"ext4\",\n  \"provisioning\": \"thin\",\n  \"parameters\": {},\n  \
         \"mutable_parameters\": {},\n  \"source\": {\n    \"snapshot\": \"s\"\n  },\n  \
         \"created_at\": \"1970-01-01T00:00:00Z\"\n}\n"
    );
}

#[test]
fn version_1_is_still_read() {
    let body = "{\n  \"volume_id\": \"pvc-1\",\n  \"name\": \"pvc-1\",\n  \"capacity_bytes\": 1073741824,\n  \
                \"content\": \"ext4\",\n  \"parameters\": {},\n  \"created_at\": \"1970-01-01T00:00:00Z\"\n}";
    let checksum = "a9778195a701ccfedc9ebba506b81a9f1eb8c30d6407bd7307168dc5ca1d6483";
    let text = format!("moorline-volume 1 {checksum}\n{body}\n");
    assert_eq!(Record::from_bytes(text.as_bytes()).unwrap(), record("pvc-1"));
}

#[test]
fn the_name_shares_memory_with_an_equal_id() {
    let read = Record::from_bytes(&record("pvc-1").to_bytes()).unwrap();
    assert!(Arc::ptr_eq(&read.name, &read.volume_id));
}

#[test]
fn damage_is_refused() {
    let good = String::from_utf8(record("pvc-1").to_bytes()).unwrap();
    let cases: [(&str, String, &str); 7] = [
        ("empty", String::new(), "not a volume record"),
        ("another file", "hello\nworld\n".into(), "not a volume record"),
        ("a later version", good.replacen(" 2 ", " 3 ", 1), "has version 3"),
        ("no version", good.replacen(" 2 ", " 0 ", 1), "has version 0"),
        (
            "a changed number",
            good.replace("1073741824", "1073741825"),
            "checksum",
        ),
        ("cut off", good[..good.len() - 1].into(), "checksum"),
        ("longer", good.clone() + "\n", "checksum"),
    ];
    for (name, text, expected) in cases {
        let error = Record::from_bytes(text.as_bytes()).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let other = Record::read_of("pvc-2", good.as_bytes()).expect_err("of another volume");
    assert!(other.to_string().contains("of pvc-1, not of pvc-2"), "{other}");
}

proptest! {
    #[test]
    fn every_record_survives_the_disk(
        name in "\\PC{1,60}", capacity_bytes in any::<u64>(), key in "\\PC{0,20}", value in "\\PC{0,20}",
    ) {
        let parameters = StringMap::from([(key, value)]).into();
        let written = Record { name: name.into(), capacity_bytes, parameters, ..record("pvc-1") };
        prop_assert_eq!(Record::from_bytes(&written.to_bytes()).expect("readable"), written);
    }

    #[test]
    fn a_flipped_byte_is_always_seen(position in 0usize..600, bit in 0u8..8) {
        let mut bytes = record("pvc-1").to_bytes();
        let position = position % bytes.len();
        bytes[position] ^= 1 << bit;
        prop_assert!(Record::from_bytes(&bytes).is_err());
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        Record::from_bytes(&bytes).ok(); // only that it returns
    }
}
