//! The bytes of the journal. An entry that is not whole ends its area. Pure.
//!
//! ```text
//! entry: checksum (8) length of what follows (4) epoch (8) kind (1) length of id (2) id record
//! ```

use sha2::{Digest as _, Sha256};

const CHECKSUM_BYTES: usize = 8;
const HEAD_BYTES: usize = CHECKSUM_BYTES + 4;
const EPOCH_BYTES: usize = 8;

/// Something that was promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// An epoch begins.
    Begin,
    /// A volume is made; with its record.
    Made { volume_id: String, record: Vec<u8> },
    /// A volume is gone.
    Gone { volume_id: String },
    /// What was said of a volume does not count any more.
    Settled { volume_id: String },
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut short = [0; CHECKSUM_BYTES];
    short.copy_from_slice(&Sha256::digest(bytes)[..CHECKSUM_BYTES]);
    short
}

fn seal(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("entries are smaller than an area");
    let mut rest = length.to_le_bytes().to_vec();
    rest.extend_from_slice(content);
    let mut bytes = checksum(&rest).to_vec();
    bytes.extend(rest);
    bytes
}

impl Entry {
    pub(crate) fn to_bytes(&self, epoch: u64) -> Vec<u8> {
        let (kind, volume_id, record): (u8, &str, &[u8]) = match self {
            Entry::Begin => (0, "", &[]),
            Entry::Made { volume_id, record } => (1, volume_id, record),
            Entry::Gone { volume_id } => (2, volume_id, &[]),
            Entry::Settled { volume_id } => (3, volume_id, &[]),
        };
        let length = u16::try_from(volume_id.len()).expect("ids are short");
        let mut content = epoch.to_le_bytes().to_vec();
        content.push(kind);
        content.extend(length.to_le_bytes());
        content.extend(volume_id.as_bytes());
        content.extend(record);
        seal(&content)
    }

    fn read(content: &[u8]) -> Option<(u64, Self)> {
        let (epoch, rest) = content.split_first_chunk::<EPOCH_BYTES>()?;
        let (kind, rest) = rest.split_first()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (id, record) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let volume_id = String::from_utf8(id.to_vec()).ok()?;
        let entry = match kind {
            0 => Entry::Begin,
            1 => Entry::Made {
                volume_id,
                record: record.to_vec(),
            },
            2 => Entry::Gone { volume_id },
            3 => Entry::Settled { volume_id },
            _ => return None,
        };
        Some((u64::from_le_bytes(*epoch), entry))
    }
}

/// The content of the first entry, if it is whole, and the rest.
fn next(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let (sum, length) = head.split_at(CHECKSUM_BYTES);
    let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
    let (content, rest) = rest.split_at_checked(length)?;
    let checked = bytes.get(CHECKSUM_BYTES..HEAD_BYTES + length)?;
    (checksum(checked) == sum).then_some((content, rest))
}

/// The same entries, of another epoch.
pub(super) fn for_epoch(mut bytes: &[u8], epoch: u64) -> Vec<u8> {
    let mut moved = Vec::with_capacity(bytes.len());
    while let Some((content, rest)) = next(bytes) {
        let mut content = content.to_vec();
        if let Some(place) = content.first_chunk_mut::<EPOCH_BYTES>() {
            *place = epoch.to_le_bytes();
        }
        moved.extend(seal(&content));
        bytes = rest;
    }
    moved
}

fn read_area(mut bytes: &[u8]) -> Option<(u64, Vec<Entry>)> {
    let mut entries = Vec::new();
    let mut of_area = None;
    while let Some((content, rest)) = next(bytes) {
        let Some((epoch, entry)) = Entry::read(content) else {
            break;
        };
        match (of_area, &entry) {
            (None, Entry::Begin) => of_area = Some(epoch),
            (Some(begun), Entry::Made { .. } | Entry::Gone { .. } | Entry::Settled { .. })
                if begun == epoch =>
            {
                entries.push(entry);
            }
            // Left from an earlier epoch.
            _ => break,
        }
        bytes = rest;
    }
    of_area.map(|epoch| (epoch, entries))
}

/// The entries of the last epoch and of the one before, if that is there as well, in the order of their writing.
pub(super) fn read_areas(bytes: &[u8], area_bytes: usize) -> Vec<Entry> {
    let mut areas: Vec<_> = bytes.chunks(area_bytes).take(2).filter_map(read_area).collect();
    areas.sort_by_key(|(epoch, _)| *epoch);
    let last = areas.last().map(|(epoch, _)| *epoch);
    // Anything older was in its place before the last one began.
    areas.retain(|(epoch, _)| last.is_some_and(|last| epoch + 1 >= last));
    areas.into_iter().flat_map(|(_, entries)| entries).collect()
}
