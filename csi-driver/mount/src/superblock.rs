//! What the first bytes of a device say about its content. Pure: whatever the bytes are, there is an answer.

use crate::filesystem::FsType;

/// How much of the beginning of a device must be read.
pub const HEAD_BYTES: usize = 128 * 1024;

const EXT_SUPERBLOCK: usize = 1024;
const EXT_MAGIC: (usize, [u8; 2]) = (EXT_SUPERBLOCK + 0x38, [0x53, 0xef]);
const EXT_STATE: usize = EXT_SUPERBLOCK + 0x3a;
const EXT_STATE_VALID: u16 = 1;
const EXT_STATE_ERRORS: u16 = 2;
const EXT_FEATURE_RECOVER: u32 = 4;
const EXT_FEATURE_64_BIT: u32 = 0x80;
const XFS_MAGIC: (usize, [u8; 4]) = (0, *b"XFSB");
const BTRFS_SUPERBLOCK: usize = 64 * 1024;
const BTRFS_MAGIC: (usize, [u8; 8]) = (BTRFS_SUPERBLOCK + 0x40, *b"_BHRfS_M");
const BTRFS_FLAG_ERROR: u64 = 1 << 2;

/// The filesystem whose superblock is there, if it is one of ours.
pub fn filesystem(head: &[u8]) -> Option<FsType> {
    if has(head, XFS_MAGIC.0, &XFS_MAGIC.1) {
        return Some(FsType::Xfs);
    }
    if has(head, EXT_MAGIC.0, &EXT_MAGIC.1) {
        return Some(FsType::Ext4);
    }
    has(head, BTRFS_MAGIC.0, &BTRFS_MAGIC.1).then_some(FsType::Btrfs)
}

/// The UUID that tells it from its copies before both are mounted.
pub fn identity(head: &[u8]) -> Option<[u8; 16]> {
    let offset = match filesystem(head)? {
        FsType::Ext4 => EXT_SUPERBLOCK + 0x68,
        FsType::Xfs => 32,
        FsType::Btrfs => BTRFS_SUPERBLOCK + 0x20,
    };
    bytes(head, offset)
}

/// Has the kernel noted errors in btrfs?
pub fn btrfs_has_errors(head: &[u8]) -> bool {
    bytes(head, BTRFS_SUPERBLOCK + 0x38)
        .is_some_and(|flags| u64::from_le_bytes(flags) & BTRFS_FLAG_ERROR != 0)
}

/// Does btrfs have a log, written by fsync, that the next mount replays?
pub fn btrfs_has_log(head: &[u8]) -> bool {
    bytes(head, BTRFS_SUPERBLOCK + 0x60).is_some_and(|root: [u8; 8]| root != [0; 8])
}

/// Everything that is read out of a head here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// See [`filesystem`].
    pub fs_type: Option<FsType>,
    /// See [`identity`].
    pub identity: Option<[u8; 16]>,
    /// See [`size_bytes`].
    pub size_bytes: Option<u64>,
    /// See [`is_blank`].
    pub is_blank: bool,
    /// See [`ext4_has_errors`] and [`btrfs_has_errors`].
    pub has_errors: bool,
    /// See [`btrfs_has_log`].
    pub has_log: bool,
}

/// All answers about one head at once, for a fuzzer.
pub fn describe(head: &[u8]) -> Description {
    Description {
        fs_type: filesystem(head),
        identity: identity(head),
        size_bytes: size_bytes(head),
        is_blank: is_blank(head),
        has_errors: ext4_has_errors(head) || btrfs_has_errors(head),
        has_log: btrfs_has_log(head),
    }
}

/// Nothing but zeroes: nobody has written here.
pub fn is_blank(head: &[u8]) -> bool {
    head.iter().all(|byte| *byte == 0)
}

/// Was an ext4 filesystem left without being unmounted, so that its journal is to be replayed?
pub fn ext4_is_unclean(head: &[u8]) -> bool {
    let is_valid = head
        .get(EXT_STATE..EXT_STATE + 2)
        .is_some_and(|state| u16::from_le_bytes([state[0], state[1]]) & EXT_STATE_VALID != 0);
    let features = little_endian(head, EXT_SUPERBLOCK + 0x60);
    !is_valid || features.is_some_and(|features| features & EXT_FEATURE_RECOVER != 0)
}

/// Has the kernel noted errors in an ext4 filesystem? Then it wants a check before it is mounted.
pub fn ext4_has_errors(head: &[u8]) -> bool {
    head.get(EXT_STATE..EXT_STATE + 2)
        .is_some_and(|state| u16::from_le_bytes([state[0], state[1]]) & EXT_STATE_ERRORS != 0)
}

/// How many bytes the filesystem spans by its own account; `None` if that account makes no sense.
pub fn size_bytes(head: &[u8]) -> Option<u64> {
    match filesystem(head)? {
        FsType::Ext4 => {
            let low = little_endian(head, EXT_SUPERBLOCK + 0x4)?;
            let high = little_endian(head, EXT_SUPERBLOCK + 0x150)?;
            let is_64_bit = little_endian(head, EXT_SUPERBLOCK + 0x60)? & EXT_FEATURE_64_BIT != 0;
            let blocks = u64::from(low) | if is_64_bit { u64::from(high) << 32 } else { 0 };
            let block_bytes = 1024u64.checked_shl(little_endian(head, EXT_SUPERBLOCK + 0x18)?)?;
            whole(blocks, block_bytes)
        }
        FsType::Xfs => {
            let block_bytes = u32::from_be_bytes(bytes(head, 4)?);
            let blocks = u64::from_be_bytes(bytes(head, 8)?);
            whole(blocks, block_bytes.into())
        }
        FsType::Btrfs => bytes(head, BTRFS_SUPERBLOCK + 0x70)
            .map(u64::from_le_bytes)
            .filter(|bytes| *bytes > 0),
    }
}

/// The size of so many blocks, if there are any and blocks can have that size.
fn whole(blocks: u64, block_bytes: u64) -> Option<u64> {
    let is_block = block_bytes.is_power_of_two() && (512..=64 * 1024).contains(&block_bytes);
    let bytes = blocks.checked_mul(block_bytes)?;
    (is_block && bytes > 0).then_some(bytes)
}

fn bytes<const LENGTH: usize>(head: &[u8], offset: usize) -> Option<[u8; LENGTH]> {
    head.get(offset..offset + LENGTH)?.try_into().ok()
}

fn little_endian(head: &[u8], offset: usize) -> Option<u32> {
    bytes(head, offset).map(u32::from_le_bytes)
}

fn has(head: &[u8], offset: usize, magic: &[u8]) -> bool {
    head.get(offset..offset + magic.len()) == Some(magic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(writes: &[(usize, &[u8])]) -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        for (offset, bytes) in writes {
            head[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    #[test]
    fn content_is_told_by_magic_numbers() {
        let cases: [(&str, Vec<u8>, Option<FsType>, bool); 6] = [
            ("blank", head(&[]), None, true),
            ("too short", vec![0; 100], None, true),
            ("xfs", head(&[(0, b"XFSB")]), Some(FsType::Xfs), false),
            ("ext4", head(&[(1080, &[0x53, 0xef])]), Some(FsType::Ext4), false),
            ("somebody's data", head(&[(5000, b"x")]), None, false),
            (
                "btrfs",
                head(&[(0x10040, b"_BHRfS_M")]),
                Some(FsType::Btrfs),
                false,
            ),
        ];
        for (name, head, fs_type, blank) in cases {
            assert_eq!(filesystem(&head), fs_type, "{name}");
            assert_eq!(is_blank(&head), blank, "{name}");
        }
    }

    #[test]
    fn the_size_is_blocks_times_block_size() {
        let ext4 = |features: u8| {
            let blocks: &[(usize, &[u8])] = &[
                (1080, &[0x53, 0xef]),
                (1028, &[0, 1]),
                (1048, &[2]),
                (1024 + 0x150, &[1]),
                (1024 + 0x60, &[features]),
            ];
            size_bytes(&head(blocks))
        };
        assert_eq!(ext4(0), Some(256 * 4096));
        assert_eq!(ext4(0x80), Some((256 + (1 << 32)) * 4096));
        let xfs = head(&[(0, b"XFSB"), (4, &[0, 0, 16, 0]), (8, &[0, 0, 0, 0, 0, 0, 1, 0])]);
        assert_eq!(size_bytes(&xfs), Some(256 * 4096));
        let btrfs = head(&[(0x10040, b"_BHRfS_M"), (0x10070, &[0, 0, 16])]);
        assert_eq!(size_bytes(&btrfs), Some(1 << 20));
        assert_eq!(size_bytes(&head(&[])), None);
    }

    #[test]
    fn a_senseless_size_is_none() {
        let ext4 = |log: u8, blocks: u8| {
            size_bytes(&head(&[(1080, &[0x53, 0xef]), (1048, &[log]), (1028, &[blocks])]))
        };
        assert_eq!(ext4(6, 1), Some(64 << 10));
        for (name, log, blocks) in [
            ("no blocks", 2, 0),
            ("too large", 7, 1),
            ("shifted to nothing", 60, 1),
        ] {
            assert_eq!(ext4(log, blocks), None, "{name}");
        }
        let xfs = |block_bytes: [u8; 4]| size_bytes(&head(&[(0, b"XFSB"), (4, &block_bytes), (15, &[1])]));
        assert_eq!(xfs([0, 0, 2, 0]), Some(512));
        assert_eq!((xfs([0, 0, 0, 0]), xfs([0, 0, 2, 1])), (None, None));
    }

    #[test]
    fn the_identity_is_where_each_filesystem_keeps_it() {
        let id: [u8; 16] = *b"0123456789abcdef";
        let cases: [(&str, usize, &[u8], usize); 3] = [
            ("ext4", 1080, &[0x53, 0xef], 1024 + 0x68),
            ("xfs", 0, b"XFSB", 32),
            ("btrfs", 0x10040, b"_BHRfS_M", 0x10020),
        ];
        for (name, magic_at, magic, id_at) in cases {
            assert_eq!(
                identity(&head(&[(magic_at, magic), (id_at, &id)])),
                Some(id),
                "{name}"
            );
        }
        assert_eq!(identity(&head(&[])), None);
    }

    #[test]
    fn log_and_errors_of_btrfs_are_seen() {
        assert!(!btrfs_has_log(&head(&[])) && btrfs_has_log(&head(&[(0x10060, &[0, 1])])));
        assert!(!btrfs_has_errors(&head(&[(0x10038, &[3])])) && btrfs_has_errors(&head(&[(0x10038, &[5])])));
        assert!(!btrfs_has_log(&[]) && !btrfs_has_errors(&[]));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(noise: Vec<u8>, cut in 0..=HEAD_BYTES, magic in 0usize..3) {
            let at = [(0, &b"XFSB"[..]), (1080, &[0x53, 0xef]), (0x10040, b"_BHRfS_M")][magic];
            let mut head = head(&[at]);
            for (place, byte) in head.iter_mut().zip(noise.iter().cycle()) {
                *place |= byte;
            }
            head.truncate(cut);
            let said = describe(&head);
            proptest::prop_assert!(said.fs_type.is_some() || (said.identity, said.size_bytes) == (None, None));
            proptest::prop_assert!(!said.is_blank || said.fs_type.is_none());
        }
    }

    #[test]
    fn the_error_flag_of_ext4_is_seen() {
        assert!(!ext4_has_errors(&head(&[(EXT_STATE, &[1, 0])])));
        assert!(ext4_has_errors(&head(&[(EXT_STATE, &[3, 0])])));
        assert!(!ext4_has_errors(&[]));
        let features = EXT_SUPERBLOCK + 0x60;
        assert!(!ext4_is_unclean(&head(&[(EXT_STATE, &[1, 0])])));
        assert!(ext4_is_unclean(&head(&[(EXT_STATE, &[0, 0])])));
        assert!(ext4_is_unclean(&head(&[(EXT_STATE, &[1, 0]), (features, &[4])])));
    }
}
