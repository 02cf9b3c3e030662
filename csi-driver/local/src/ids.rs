//! From the name of a volume, snapshot or group to its id. Pure, and the same every time: a create that is asked again after a crash finds what
//! the first one made, without an index.

use sha2::{Digest as _, Sha256};

const VOLUME_PREFIX: &str = "vol-";
const SNAPSHOT_PREFIX: &str = "snap-";
const GROUP_PREFIX: &str = "group-";
const MEMBER_PREFIX: &str = "gsnap-";
const HASH_BYTES: usize = 16;
const PLAIN_BYTES_MAX: usize = 63;

/// The id of the volume with this name. Names that make good directory names (`pvc-<uid>`) are their own ids, so that
/// an administrator finds them; all others are hashed.
pub(crate) fn volume_id_of(name: &str) -> String {
    id_of(VOLUME_PREFIX, name)
}

/// The id of the snapshot with this name, likewise.
pub(crate) fn snapshot_id_of(name: &str) -> String {
    id_of(SNAPSHOT_PREFIX, name)
}

/// The id of the group snapshot with this name, likewise.
pub(crate) fn group_id_of(name: &str) -> String {
    id_of(GROUP_PREFIX, name)
}

/// The id of a group's snapshot of one volume. No name that a caller gives a snapshot leads to it.
pub(crate) fn member_id_of(group_id: &str, volume_id: &str) -> String {
    hashed(MEMBER_PREFIX, &format!("{group_id}/{volume_id}"))
}

fn id_of(hashed_prefix: &str, name: &str) -> String {
    if is_id(name) && !name.starts_with(hashed_prefix) && !name.starts_with(MEMBER_PREFIX) {
        return name.to_owned();
    }
    hashed(hashed_prefix, name)
}

fn hashed(prefix: &str, text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let hex = digest[..HASH_BYTES].iter().map(|byte| format!("{byte:02x}"));
    prefix.to_owned() + &hex.collect::<String>()
}

/// Could this be an id of ours? Nothing else is ever looked up on disk.
pub(crate) fn is_id(id: &str) -> bool {
    id.len() <= PLAIN_BYTES_MAX
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_names_are_ids_and_others_are_hashed() {
        let uid = "pvc-0b51f6a4-36b1-4f4b-9a55-1f8f8c2a7a10";
        assert_eq!(volume_id_of(uid), uid);
        let hashed = [
            "a/b",
            "..",
            "-x",
            "Upper",
            "größe",
            "vol-0123",
            &"n".repeat(64),
            "a b",
            ".new-x",
        ];
        for name in hashed {
            let id = volume_id_of(name);
            assert!(id.starts_with(VOLUME_PREFIX) && id != name, "{name} -> {id}");
        }
    }

    #[test]
    fn no_name_leads_to_the_snapshot_of_a_group() {
        let member = member_id_of("g", "v");
        assert!(is_id(&member) && member.starts_with(MEMBER_PREFIX), "{member}");
        for name in ["g/v", member.as_str()] {
            assert_ne!(snapshot_id_of(name), member, "{name}");
        }
        assert_ne!(member_id_of("g", "w"), member);
        assert_eq!(
            (snapshot_id_of("s-1"), group_id_of("g-1")),
            ("s-1".to_owned(), "g-1".to_owned())
        );
    }

    #[test]
    fn what_could_leave_the_pool_is_no_id() {
        for id in ["", ".", "..", "a/b", "/a", "a\0", ".new-a", "A"] {
            assert!(!is_id(id), "{id:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_has_a_valid_id_and_the_same_each_time(name in "\\PC{1,40}") {
            prop_assert!(is_id(&volume_id_of(&name)));
            prop_assert_eq!(volume_id_of(&name), volume_id_of(&name));
        }

        #[test]
        fn different_names_have_different_ids(one in "[a-zA-Z0-9./ -]{1,20}", two in "[a-zA-Z0-9./ -]{1,20}") {
            prop_assert_eq!(one == two, volume_id_of(&one) == volume_id_of(&two));
        }
    }
}
