//! What holds for each field of a request that was accepted: the limits are written down here a second time, straight
//! from the specification. Every function panics unless they are kept.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use crate::request::{
    BlockWindow, CapacityRange, MountVolume, Secrets, StringMap, Topology, VolumeCapability,
};

/// CSI 1.12, Size Limits: at most 128 bytes; C0 and C1 only as tab, line feed and carriage return.
fn text(text: &str, bytes_max: usize) {
    assert!((1..=bytes_max).contains(&text.len()), "{} bytes", text.len());
    let is_banned =
        |c: char| matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}') && !matches!(c, '\t' | '\n' | '\r');
    assert!(!text.contains(is_banned), "{text:?}");
}

pub(super) fn name(name: &str) {
    text(name, 128);
}

pub(super) fn node(node_id: &str) {
    text(node_id, 256);
}

pub(super) fn maps<const N: usize>(maps: [&StringMap; N]) {
    for map in maps {
        let words = || map.iter().flat_map(|(key, value)| [key, value]);
        assert!(words().map(String::len).sum::<usize>() <= 4096);
        words()
            .filter(|word| !word.is_empty())
            .for_each(|word| text(word, 4096));
    }
}

pub(super) fn secrets(secrets: &Secrets) {
    assert_eq!(format!("{secrets:?}"), "***stripped***");
}

/// A path spelled in the one way there is, below the root, without a way up.
pub(super) fn target(path: &Path) {
    location(path);
    assert!(path.is_absolute() && path.file_name().is_some(), "{path:?}");
    assert!(
        !path.components().any(|part| part == Component::ParentDir),
        "{path:?}"
    );
}

pub(super) fn location(path: &Path) {
    let spelled = path.to_str().expect("it came as a string");
    text(spelled, 4095);
    assert_eq!(
        path.components().collect::<PathBuf>().as_os_str(),
        path.as_os_str()
    );
}

pub(super) fn range(range: CapacityRange) {
    let CapacityRange {
        required_bytes,
        limit_bytes,
    } = range;
    for bytes in [required_bytes, limit_bytes].into_iter().flatten() {
        assert!(
            bytes > 0 && i64::try_from(bytes).is_ok(),
            "{bytes} is not on the wire"
        );
    }
    assert!(limit_bytes.is_none_or(|limit| required_bytes.is_none_or(|required| limit >= required)));
    for (min, step) in [(1, 1), (4096, 4096), (300 << 20, 1 << 20)] {
        if let Ok(bytes) = range.choose(1 << 30, min, step) {
            assert!(
                range.admits(bytes) && bytes >= min && bytes % step == 0,
                "{bytes}"
            );
        }
    }
}

pub(super) fn capability(capability: &VolumeCapability) {
    let Some(mount) = capability.mount() else {
        return;
    };
    let MountVolume {
        fs_type,
        mount_flags,
        volume_mount_group,
    } = mount;
    fs_type
        .as_deref()
        .into_iter()
        .chain(volume_mount_group.as_deref())
        .for_each(name);
    assert!(mount_flags.iter().map(String::len).sum::<usize>() <= 4096);
    assert!(!mount_flags.iter().any(|flag| flag.contains(char::is_control)));
    let words: BTreeSet<_> = mount_flags.iter().flat_map(|flag| flag.split(',')).collect();
    assert!(!(words.contains("ro") && words.contains("rw")));
    let back = moorline_proto::csi::VolumeCapability::from(capability.clone());
    assert!(back.access_mode.is_some_and(|mode| (1..=7).contains(&mode.mode)));
}

pub(super) fn topology(topology: &Topology) {
    maps([&topology.0]);
    let folded: BTreeSet<_> = topology.0.keys().map(|key| key.to_ascii_lowercase()).collect();
    assert_eq!(folded.len(), topology.0.len(), "keys differ in more than case");
    for (key, value) in &topology.0 {
        let names = key.split('/').chain([value.as_str()]);
        assert!(key.split('/').count() <= 2, "{key:?}");
        names.for_each(|part| {
            text(part, 63);
            assert!(
                part.is_ascii() && !part.contains([' ', '\t', '\n', '\r']),
                "{part:?}"
            );
        });
    }
}

pub(super) fn unique<'a, T: Ord + 'a>(ids: &'a [T], as_str: fn(&'a T) -> &'a str) {
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "none twice");
    ids.iter().map(as_str).for_each(name);
}

pub(super) fn window(window: BlockWindow) {
    let BlockWindow {
        starting_offset,
        max_results,
    } = window;
    assert!(i64::try_from(starting_offset).is_ok());
    assert_ne!(max_results, Some(0));
}
