//! From a volume's name to its id. Pure, and the same every time: a create that is asked again after a crash finds what
//! the first one made, without an index.

use sha2::{Digest as _, Sha256};

const HASHED_PREFIX: &str = "vol-";
const HASH_BYTES: usize = 16;
const PLAIN_BYTES_MAX: usize = 63;

/// The id of the volume with this name. Names that make good directory names (`pvc-<uid>`) are their own ids, so that
/// an administrator finds them; all others are hashed.
pub(crate) fn volume_id_of(name: &str) -> String {
    if is_plain(name) {
        return name.to_owned();
    }
    let digest = Sha256::digest(name.as_bytes());
    let hex = digest[..HASH_BYTES].iter().map(|byte| format!("{byte:02x}"));
    HASHED_PREFIX.to_owned() + &hex.collect::<String>()
}

/// Could this be an id of ours? Nothing else is ever looked up on disk.
pub(crate) fn is_volume_id(id: &str) -> bool {
    id.len() <= PLAIN_BYTES_MAX
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn is_plain(name: &str) -> bool {
    is_volume_id(name) && !name.starts_with(HASHED_PREFIX)
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
            assert!(id.starts_with(HASHED_PREFIX) && id != name, "{name} -> {id}");
        }
    }

    #[test]
    fn what_could_leave_the_pool_is_no_id() {
        for id in ["", ".", "..", "a/b", "/a", "a\0", ".new-a", "A"] {
            assert!(!is_volume_id(id), "{id:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_has_a_valid_id_and_the_same_each_time(name in "\\PC{1,40}") {
            prop_assert!(is_volume_id(&volume_id_of(&name)));
            prop_assert_eq!(volume_id_of(&name), volume_id_of(&name));
        }

        #[test]
        fn different_names_have_different_ids(one in "[a-zA-Z0-9./ -]{1,20}", two in "[a-zA-Z0-9./ -]{1,20}") {
            prop_assert_eq!(one == two, volume_id_of(&one) == volume_id_of(&two));
        }
    }
}
