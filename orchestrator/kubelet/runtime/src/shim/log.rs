//! Container output as CRI log lines: `2026-01-02T03:04:05.000000000Z stdout F text`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// Longest text of one log line; longer output is cut into partial lines (`P`), the last one whole (`F`).
const LINE_LIMIT_BYTES: usize = 16 << 10;

/// A file that grew beyond this is put aside.
pub(crate) const FILE_LIMIT_BYTES: u64 = 10 << 20;

/// Files put aside per container: `0.log.1` (newest) to `0.log.4`.
pub(crate) const FILES_KEPT: u32 = 4;

/// Which output a line is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Cuts one stream's bytes into log lines.
#[derive(Debug)]
pub(crate) struct LineCutter {
    stream: Stream,
    pending: Vec<u8>,
}

impl LineCutter {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            pending: Vec::new(),
        }
    }

    /// Which output it is.
    pub(crate) fn stream(&self) -> Stream {
        self.stream
    }

    /// Takes output and returns the log lines that are complete with it.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], now: Timestamp) -> Vec<u8> {
        let mut lines = Vec::with_capacity(bytes.len() + 64);
        while !bytes.is_empty() {
            // One byte more than the limit is looked at: a line end right behind a full line makes it whole.
            let room = LINE_LIMIT_BYTES - self.pending.len();
            let window = &bytes[..bytes.len().min(room + 1)];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                self.pending.extend_from_slice(&window[..end]);
                self.emit(&mut lines, b'F', now);
                bytes = &bytes[end + 1..];
            } else {
                let taken = window.len().min(room);
                self.pending.extend_from_slice(&window[..taken]);
                bytes = &bytes[taken..];
                if window.len() > room {
                    self.emit(&mut lines, b'P', now);
                }
            }
        }
        lines
    }

    /// What is left when the stream ends without a line end.
    pub(crate) fn finish(&mut self, now: Timestamp) -> Vec<u8> {
        let mut lines = Vec::new();
        if !self.pending.is_empty() {
            self.emit(&mut lines, b'F', now);
        }
        lines
    }

    fn emit(&mut self, lines: &mut Vec<u8>, tag: u8, now: Timestamp) {
        lines.extend_from_slice(format!("{now:.9} {} ", self.stream.name()).as_bytes());
        lines.extend_from_slice(&[tag, b' ']);
        lines.append(&mut self.pending);
        lines.push(b'\n');
    }
}

/// The log file of one container.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    limit_bytes: u64,
    /// The last write failed, and that was said.
    is_failing: bool,
}

impl LogFile {
    /// Opens for appending; makes the file and its directories where missing.
    pub(crate) fn open(path: &Path, limit_bytes: u64) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = append(path)?;
        let size_bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size_bytes,
            limit_bytes,
            is_failing: false,
        })
    }

    /// Appends whole lines in one write, after putting a full file aside.
    pub(crate) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.size_bytes > 0 && self.size_bytes + lines.len() as u64 > self.limit_bytes {
            self.rotate()?;
        }
        self.file.write_all(lines)?;
        self.size_bytes += lines.len() as u64;
        Ok(())
    }

    /// As [`LogFile::write`] for a caller that goes on anyway: a full disk loses log lines, it must not stop the
    /// container. The first failure of a row is returned for somebody to hear.
    pub(crate) fn write_or_drop(&mut self, lines: &[u8]) -> Option<String> {
        let result = if lines.is_empty() {
            Ok(())
        } else {
            self.write(lines)
        };
        let was_failing = std::mem::replace(&mut self.is_failing, result.is_err());
        let error = result.err().filter(|_| !was_failing)?;
        Some(format!(
            "log lines are lost: write {}: {error}",
            self.path.display()
        ))
    }

    fn rotate(&mut self) -> io::Result<()> {
        let aside = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..FILES_KEPT).rev() {
            match fs::rename(aside(number), aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(&self.path, aside(1))?;
        self.file = append(&self.path)?;
        self.size_bytes = 0;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-01-02T03:04:05.000000000Z";

    fn now() -> Timestamp {
        AT.parse().unwrap()
    }

    fn cut(chunks: &[&[u8]]) -> String {
        let mut cutter = LineCutter::new(Stream::Stdout);
        let mut all = Vec::new();
        for chunk in chunks {
            all.extend(cutter.feed(chunk, now()));
        }
        all.extend(cutter.finish(now()));
        String::from_utf8(all)
            .unwrap()
            .replace(&format!("{AT} stdout "), "")
    }

    #[test]
    fn output_is_cut_into_lines() {
        let limit = "a".repeat(LINE_LIMIT_BYTES);
        let over = format!("{limit}b\n");
        let exact = format!("{limit}\n");
        let cases: Vec<(&str, Vec<&[u8]>, String)> = vec![
            ("one line", vec![b"hello\n"], "F hello\n".into()),
            (
                "line in pieces",
                vec![b"he", b"llo", b"\nx\n"],
                "F hello\nF x\n".into(),
            ),
            ("empty lines", vec![b"\n\n"], "F \nF \n".into()),
            ("end without line end", vec![b"a\nlast"], "F a\nF last\n".into()),
            ("nothing", vec![], String::new()),
            ("carriage return stays", vec![b"a\r\n"], "F a\r\n".into()),
            (
                "longer than the limit",
                vec![over.as_bytes()],
                format!("P {limit}\nF b\n"),
            ),
            (
                "exactly the limit",
                vec![exact.as_bytes()],
                format!("F {limit}\n"),
            ),
        ];
        for (name, chunks, expected) in cases {
            assert_eq!(cut(&chunks), expected, "{name}");
        }
    }

    #[test]
    fn line_names_time_and_stream() {
        let mut cutter = LineCutter::new(Stream::Stderr);
        assert_eq!(
            cutter.feed(b"x\n", now()),
            format!("{AT} stderr F x\n").into_bytes()
        );
    }

    #[test]
    fn failure_is_told_once_in_a_row() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(&dir.path().join("log"), 100).unwrap();
        let working = std::mem::replace(
            &mut log.file,
            File::options().write(true).open("/dev/full").unwrap(),
        );
        let told = log.write_or_drop(b"a\n").unwrap();
        assert!(
            told.starts_with("log lines are lost: write") && told.contains("No space left"),
            "{told}"
        );
        assert_eq!(log.write_or_drop(b"b\n"), None);
        log.file = working;
        assert_eq!(log.write_or_drop(b"c\n"), None);
        assert_eq!(fs::read_to_string(dir.path().join("log")).unwrap(), "c\n");
        log.file = File::options().write(true).open("/dev/full").unwrap();
        assert!(log.write_or_drop(b"d\n").is_some());
    }

    #[test]
    fn full_file_is_put_aside_and_old_ones_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main/0.log");
        let mut log = LogFile::open(&path, 10).unwrap();
        for line in [
            "1\n",
            "12345678\n",
            "2\n",
            "22345678\n",
            "3\n",
            "32345678\n",
            "4\n",
            "42345678\n",
            "5\n",
        ] {
            log.write(line.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join("main").join(name)).ok();
        assert_eq!(read("0.log").as_deref(), Some("5\n"));
        assert_eq!(read("0.log.1").as_deref(), Some("42345678\n"));
        assert_eq!(read("0.log.4").as_deref(), Some("3\n"));
        assert_eq!(read("0.log.5"), None);
        drop(log);
        let mut again = LogFile::open(&path, 10).unwrap();
        again.write(b"6\n").unwrap();
        assert_eq!(read("0.log").as_deref(), Some("5\n6\n"));
    }
}
