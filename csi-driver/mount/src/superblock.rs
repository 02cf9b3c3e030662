//! What the first bytes of a device say about its content. Pure.

use crate::filesystem::FsType;

/// How much of the beginning of a device must be read.
pub(crate) const HEAD_BYTES: usize = 128 * 1024;

const EXT_SUPERBLOCK: usize = 1024;
const EXT_MAGIC: (usize, [u8; 2]) = (EXT_SUPERBLOCK + 0x38, [0x53, 0xef]);
const EXT_STATE: usize = EXT_SUPERBLOCK + 0x3a;
const EXT_STATE_ERRORS: u16 = 2;
const EXT_FEATURE_64_BIT: u32 = 0x80;
const XFS_MAGIC: (usize, [u8; 4]) = (0, *b"XFSB");

/// The filesystem whose superblock is there, if it is one of ours.
pub(crate) fn filesystem(head: &[u8]) -> Option<FsType> {
    if has(head, XFS_MAGIC.0, &XFS_MAGIC.1) {
        return Some(FsType::Xfs);
    }
    has(head, EXT_MAGIC.0, &EXT_MAGIC.1).then_some(FsType::Ext4)
}

/// Nothing but zeroes: nobody has written here.
pub(crate) fn is_blank(head: &[u8]) -> bool {
    head.iter().all(|byte| *byte == 0)
}

/// Has the kernel noted errors in an ext4 filesystem? Then it wants a check before it is mounted.
pub(crate) fn ext4_has_errors(head: &[u8]) -> bool {
    head.get(EXT_STATE..EXT_STATE + 2)
        .is_some_and(|state| u16::from_le_bytes([state[0], state[1]]) & EXT_STATE_ERRORS != 0)
}

/// How many bytes the filesystem spans by its own account.
pub(crate) fn size_bytes(head: &[u8]) -> Option<u64> {
    match filesystem(head)? {
        FsType::Ext4 => {
            let low = little_endian(head, EXT_SUPERBLOCK + 0x4)?;
            let high = little_endian(head, EXT_SUPERBLOCK + 0x150)?;
            let is_64_bit = little_endian(head, EXT_SUPERBLOCK + 0x60)? & EXT_FEATURE_64_BIT != 0;
            let blocks = u64::from(low) | if is_64_bit { u64::from(high) << 32 } else { 0 };
            let block_bytes = 1024u64.checked_shl(little_endian(head, EXT_SUPERBLOCK + 0x18)?)?;
            blocks.checked_mul(block_bytes)
        }
        FsType::Xfs => {
            let block_bytes = u32::from_be_bytes(head.get(4..8)?.try_into().ok()?);
            let blocks = u64::from_be_bytes(head.get(8..16)?.try_into().ok()?);
            blocks.checked_mul(block_bytes.into())
        }
    }
}

fn little_endian(head: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(head.get(offset..offset + 4)?.try_into().ok()?))
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
                "btrfs, which is not ours",
                head(&[(0x10040, b"_BHRfS_M")]),
                None,
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
        assert_eq!(size_bytes(&head(&[])), None);
    }

    #[test]
    fn the_error_flag_of_ext4_is_seen() {
        assert!(!ext4_has_errors(&head(&[(EXT_STATE, &[1, 0])])));
        assert!(ext4_has_errors(&head(&[(EXT_STATE, &[3, 0])])));
        assert!(!ext4_has_errors(&[]));
    }
}
