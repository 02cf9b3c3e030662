//! What happened, as lines with their virtual time. All of them are hashed, so that two runs can be compared; the last
//! ones are kept for the report.

use std::collections::VecDeque;

/// How many lines a report shows.
const TAIL: usize = 60;

/// A running hash of lines, and the last of them.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    lines: u64,
    tail: VecDeque<String>,
    is_printed: bool,
}

impl Trace {
    pub(crate) fn new(is_printed: bool) -> Self {
        Self {
            is_printed,
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, now: u64, line: String) {
        let line = format!(
            "{:>12.6} {line}",
            std::time::Duration::from_nanos(now).as_secs_f64()
        );
        // FNV-1a: the same on every machine and in every version of std.
        let mut hash = self.hash ^ 0xcbf2_9ce4_8422_2325;
        for byte in line.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.hash = hash;
        self.lines += 1;
        if self.is_printed {
            println!("{line}");
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    pub(crate) fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }
}
