//! What `fuzz/` and the tests feed with arbitrary bytes. Each function says whether the bytes were accepted, and panics
//! when something does not hold that must hold whatever they are.

use std::{fmt::Write as _, os::unix::ffi::OsStrExt as _};

use rustix::mount::MountAttrFlags;

use crate::{
    filesystem::FsType,
    mount_options::MountOptions,
    mountinfo::{self, MountEntry},
    superblock::{self, HEAD_BYTES},
};

/// A mount table. Accepted is one with an entry for each line, and each entry, written as the kernel writes it, is read
/// as the same entry again.
pub fn mountinfo(input: &[u8]) -> bool {
    let Ok(entries) = mountinfo::parse(input) else {
        return false;
    };
    let lines = input.split(|byte| *byte == b'\n');
    assert_eq!(entries.len(), lines.filter(|line| !line.is_empty()).count());
    for entry in &entries {
        let again = mountinfo::parse(as_the_kernel_writes(entry)).expect("an entry that was read before");
        assert_eq!(again, std::slice::from_ref(entry));
    }
    if let Some(top) = entries.first() {
        let below = mountinfo::at_or_below(&entries, &top.mount_point);
        let depth = |entry: &MountEntry| entry.mount_point.components().count();
        assert!(
            below
                .iter()
                .all(|entry| entry.mount_point.starts_with(&top.mount_point))
        );
        assert!(below.windows(2).all(|pair| depth(pair[0]) >= depth(pair[1])));
        assert!(below.contains(&top));
    }
    true
}

fn as_the_kernel_writes(entry: &MountEntry) -> String {
    let (major, minor) = entry.device;
    let mut fields = vec![
        format!("{} {} {major}:{minor}", entry.mount_id, entry.parent_id),
        escaped(entry.root.as_os_str().as_bytes()),
        escaped(entry.mount_point.as_os_str().as_bytes()),
        escaped(entry.options.as_bytes()),
    ];
    fields.extend(entry.optional_fields.iter().map(|field| match field.as_str() {
        // Not the separator, but a field that reads like it.
        "-" => "\\055".to_owned(),
        field => escaped(field.as_bytes()),
    }));
    fields.push("-".to_owned());
    fields.push(escaped(entry.fs_type.as_bytes()));
    fields.push(escaped(entry.source.as_bytes()));
    fields.push(escaped(entry.super_options.as_bytes()));
    fields.join(" ")
}

fn escaped(field: &[u8]) -> String {
    let mut text = String::new();
    for byte in field {
        match byte {
            b'!'..=b'~' if *byte != b'\\' => text.push(char::from(*byte)),
            _ => write!(text, "\\{byte:03o}").expect("writing to a string can't fail"),
        }
    }
    text
}

/// The first bytes of a device, as [`head`] makes them of the input. Accepted is one with a filesystem.
pub fn superblock(input: &[u8]) -> bool {
    let head = head(input);
    let said = superblock::describe(&head);
    let Some(fs_type) = said.fs_type else {
        assert_eq!((said.identity, said.size_bytes), (None, None));
        return false;
    };
    assert!(!said.is_blank, "a magic number is not nothing");
    let block_bytes_min = match fs_type {
        FsType::Ext4 => 1024,
        FsType::Xfs => 512,
        FsType::Btrfs => 1,
    };
    if let Some(bytes) = said.size_bytes {
        assert!(bytes > 0, "{fs_type:?} of no size");
        assert_eq!(bytes % block_bytes_min, 0, "{fs_type:?} is whole blocks");
    }
    if head.len() == HEAD_BYTES {
        let longer = [&head[..], &[0; 512]].concat();
        assert_eq!(superblock::describe(&longer), said, "what is read is enough");
        assert!(said.identity.is_some());
    }
    for cut in [0, 4, 1082, 0x10048] {
        let shorter = superblock::filesystem(&head[..cut.min(head.len())]);
        assert!(
            shorter.is_none_or(|shorter| shorter == fs_type),
            "cut off at {cut}"
        );
    }
    true
}

/// Byte 0 chooses a superblock to write into (xfs, ext4, btrfs) or none, bytes 1 to 3 the head's length, then two bytes
/// of offset and one of value each. Without a superblock the rest is the head as it is.
fn head(input: &[u8]) -> Vec<u8> {
    let Some((&[kind, low, middle, high], rest)) = input.split_first_chunk() else {
        return input.to_vec();
    };
    let (start, magic_at, magic): (usize, usize, &[u8]) = match kind % 4 {
        0 => return rest.to_vec(),
        1 => (0, 0, b"XFSB"),
        2 => (1024, 1080, &[0x53, 0xef]),
        _ => (0x10000, 0x10040, b"_BHRfS_M"),
    };
    let mut head = vec![0; HEAD_BYTES];
    head[magic_at..magic_at + magic.len()].copy_from_slice(magic);
    for (&[low, high, value], _) in rest.as_chunks().0.iter().zip(0..512) {
        head[start + usize::from(u16::from_le_bytes([low, high])) % 512] = value;
    }
    let length = u32::from_le_bytes([low, middle, high, 0]);
    head.truncate(usize::try_from(length).unwrap_or(HEAD_BYTES));
    head
}

/// Mount options, divided by bytes 255. What is accepted says the same when it is written for mount(2) and read again.
pub fn mount_options(input: &[u8]) -> bool {
    let options: Result<Vec<_>, _> = input
        .split(|byte| *byte == 0xff)
        .map(std::str::from_utf8)
        .collect();
    let Ok(options) = options else {
        return false;
    };
    let Ok(parsed) = MountOptions::parse(&options) else {
        return false;
    };
    let (set, clear) = (parsed.attributes.set, parsed.attributes.clear);
    let access_time = MountAttrFlags::MOUNT_ATTR__ATIME;
    assert!(((set & clear) - access_time).is_empty(), "both set and cleared");
    assert!(clear.contains(access_time) || (set & access_time).is_empty());
    assert!(parsed.attributes.read_only().is_read_only());
    for (key, value) in &parsed.parameters {
        let is_clean = |text: &str| !text.contains(|c: char| c.is_control() || c == '"');
        assert!(!key.is_empty() && is_clean(key), "parameter {key:?}");
        assert!(value.as_deref().is_none_or(is_clean), "{key:?}: {value:?}");
        assert!(
            !["ro", "rw", "bind", "remount", "source"].contains(&key.as_str()),
            "{key:?}"
        );
    }
    let again = MountOptions::parse(&[parsed.data()]).expect("parameters that were accepted before");
    assert_eq!(again.parameters, parsed.parameters);
    assert_eq!(again.attributes, crate::mount_options::Attributes::NONE);
    true
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// Every seed is accepted or refused as its name says.
    fn replay(target: &str, run: fn(&[u8]) -> bool) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../fuzz/corpus")
            .join(target);
        let mut outcomes = [0, 0];
        for file in fs::read_dir(&folder).expect("the corpus") {
            let path = file.expect("a seed").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let accepted = run(&fs::read(&path).expect("readable"));
            assert_eq!(accepted, name.starts_with("ok-"), "{}", path.display());
            outcomes[usize::from(accepted)] += 1;
        }
        assert!(outcomes[0] > 0 && outcomes[1] > 0, "{target}: {outcomes:?}");
    }

    #[test]
    fn the_corpus_is_accepted_and_refused_as_named() {
        replay("mountinfo", super::mountinfo);
        replay("superblock", super::superblock);
        replay("mount_options", super::mount_options);
    }
}
