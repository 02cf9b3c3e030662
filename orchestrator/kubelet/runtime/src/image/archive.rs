//! Reading a docker-archive or oci-archive tar file into a directory of blobs, trusting nothing in it.
//!
//! Entries never become files of their own name: each is stored under the digest of what was read, and their names
//! are only keys of a map. So no name, link or device in an archive can touch anything.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

/// Entries an archive may have; real ones have a few per layer.
const ENTRIES_MAX: usize = 10_000;

/// Documents that are parsed; real ones have a few kilobytes.
const DOCUMENT_LIMIT_BYTES: u64 = 8 << 20;

const TOO_LARGE: &str = "it holds more than fits on this machine";
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The content of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    /// Digits of the sha256 of the content; also the file's name in the blob directory.
    pub(crate) digits: String,
    pub(crate) size: u64,
}

/// An archive whose entries have been read.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    dir: PathBuf,
    entries: BTreeMap<String, Blob>,
}

/// A reader that fails once more than its share was read, instead of filling the disk.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, TOO_LARGE))?;
        Ok(count)
    }
}

/// Opens a possibly compressed stream for plain reading, at most `limit_bytes` of it.
pub(crate) fn plain(path: &Path, limit_bytes: u64) -> io::Result<Box<dyn Read>> {
    let mut file = BufReader::with_capacity(128 << 10, File::open(path)?);
    let start = io::BufRead::fill_buf(&mut file)?;
    if start.starts_with(&ZSTD_MAGIC) {
        return Err(io::Error::other(
            "it is compressed with zstd, which is not supported: use gzip or none",
        ));
    }
    let compressed = start.starts_with(&GZIP_MAGIC);
    let reader: Box<dyn Read> = if compressed {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    Ok(Box::new(Limited {
        inner: reader,
        left: limit_bytes,
    }))
}

/// A file starts like a gzip stream.
pub(crate) fn is_gzip(path: &Path) -> io::Result<bool> {
    let mut start = [0; 2];
    let mut file = File::open(path)?;
    Ok(file.read_exact(&mut start).is_ok() && start == GZIP_MAGIC)
}

/// The tar library's words mean nothing to who has named a wrong file. What the kernel says stays as it is.
fn unreadable(number: usize, error: io::Error) -> io::Error {
    if error.raw_os_error().is_some() {
        return error;
    }
    // The tar library keeps the kind of an error, not always its words.
    if error.kind() == io::ErrorKind::FileTooLarge {
        return io::Error::other(TOO_LARGE);
    }
    let text = if error.kind() == io::ErrorKind::UnexpectedEof && number > 0 || is_decompression(&error) {
        format!("it is damaged or cut off after {number} entries: {error}")
    } else if number == 0 {
        "it is no tar archive, as `docker save` and `skopeo copy ... oci-archive:` write it".to_owned()
    } else {
        format!("its entry {} can't be read: {error}", number + 1)
    };
    io::Error::other(text)
}

fn is_decompression(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
    )
}

impl Archive {
    /// Reads all of the archive at `path`; blobs go to `dir`. On error the caller removes `dir`.
    pub(crate) fn read(path: &Path, dir: &Path, limit_bytes: u64) -> io::Result<Self> {
        let mut archive = Self {
            dir: dir.to_owned(),
            entries: BTreeMap::new(),
        };
        let mut links = Vec::new();
        let mut tar = tar::Archive::new(plain(path, limit_bytes)?);
        for (number, entry) in tar.entries()?.enumerate() {
            if number >= ENTRIES_MAX {
                return Err(io::Error::other(format!(
                    "it has more than {ENTRIES_MAX} entries"
                )));
            }
            let mut entry = entry.map_err(|error| unreadable(number, error))?;
            let kind = entry.header().entry_type();
            if kind.is_dir() || kind.is_pax_global_extensions() {
                continue;
            }
            let name = key(Path::new(""), &entry.path()?)?;
            if kind.is_file() || kind.is_contiguous() {
                let stored = archive.store(&mut entry, number);
                let blob = stored.map_err(|error| unreadable(number, error))?;
                archive.entries.insert(name, blob);
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = entry
                    .link_name()?
                    .ok_or_else(|| io::Error::other(format!("link {name} has no target")))?;
                // A symlink counts from its directory, a hard link from the archive's root.
                let base = if kind.is_symlink() {
                    Path::new(&name).parent()
                } else {
                    None
                };
                links.push((name.clone(), key(base.unwrap_or(Path::new("")), &target)?));
            } else {
                return Err(io::Error::other(format!(
                    "entry {name} is neither file, directory nor link"
                )));
            }
        }
        archive.resolve(links);
        Ok(archive)
    }

    fn store(&self, entry: &mut impl Read, number: usize) -> io::Result<Blob> {
        let temporary = self.dir.join(format!("incoming-{number}"));
        let mut file = File::create(&temporary)?;
        let mut hash = Sha256::new();
        let mut size = 0;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = entry.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            file.write_all(&buffer[..count])?;
            size += count as u64;
        }
        let digits = hex::encode(hash.finalize());
        fs::rename(&temporary, self.dir.join(&digits))?;
        Ok(Blob { digits, size })
    }

    /// Old versions of docker link equal layers to each other.
    fn resolve(&mut self, links: Vec<(String, String)>) {
        for (name, target) in links {
            if let Some(blob) = self.entries.get(&target).cloned() {
                self.entries.insert(name, blob);
            }
        }
    }

    /// The entry of a name, as manifests write it.
    pub(crate) fn find(&self, name: &str) -> Option<&Blob> {
        self.entries.get(&key(Path::new(""), Path::new(name)).ok()?)
    }

    /// The entry with this name, or an error that names it.
    pub(crate) fn get(&self, name: &str) -> io::Result<&Blob> {
        self.find(name)
            .ok_or_else(|| io::Error::other(format!("{name} is missing in it")))
    }

    /// Where the content of a blob is.
    pub(crate) fn path(&self, blob: &Blob) -> PathBuf {
        self.dir.join(&blob.digits)
    }

    /// A parsed JSON document.
    pub(crate) fn document<T: serde::de::DeserializeOwned>(&self, name: &str, blob: &Blob) -> io::Result<T> {
        if blob.size > DOCUMENT_LIMIT_BYTES {
            return Err(io::Error::other(format!(
                "{name} is too large for what it should be"
            )));
        }
        serde_json::from_slice(&fs::read(self.path(blob))?)
            .map_err(|error| io::Error::other(format!("{name} is not understood: {error}")))
    }
}

/// A name in its one normal form. Names that leave the archive are an attack, not a mistake.
fn key(base: &Path, name: &Path) -> io::Result<String> {
    let refused = || io::Error::other(format!("it names {}, which lies outside of it", name.display()));
    let mut parts: Vec<String> = base
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into())
        .collect();
    for part in name.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop().ok_or_else(refused)?;
            }
            Component::RootDir | Component::Prefix(_) => return Err(refused()),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form_and_stay_inside() {
        let ok = [
            ("", "./a/b", "a/b"),
            ("", "a//b", "a/b"),
            ("x/y", "../z/l.tar", "x/z/l.tar"),
            ("", "a/../b", "b"),
        ];
        for (base, name, expected) in ok {
            assert_eq!(key(Path::new(base), Path::new(name)).unwrap(), expected, "{name}");
        }
        for (base, name) in [
            ("", "/etc/passwd"),
            ("", "../x"),
            ("a", "../../x"),
            ("", "a/../../x"),
        ] {
            let error = key(Path::new(base), Path::new(name)).unwrap_err().to_string();
            assert!(error.contains("lies outside"), "{name}: {error}");
        }
    }

    #[test]
    fn reading_stops_at_the_limit() {
        let mut reader = Limited {
            inner: io::repeat(0),
            left: 1000,
        };
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("more than fits"), "{error}");
    }
}
