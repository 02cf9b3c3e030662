//! The table of what is written when.

use super::*;

/// Puts and drops of a write, as `+key` and `-key`.
fn shown(write: Option<&Write>) -> String {
    let Some(write) = write else {
        return "nothing".to_string();
    };
    let puts = write.puts.iter().map(|(key, _)| format!("+{key}"));
    let drops = write.drops.iter().map(|key| format!("-{key}"));
    puts.chain(drops).collect::<Vec<_>>().join(" ")
}

/// What happens to a book in a case.
enum Does {
    /// An intent is wanted; whether it is there already.
    Record(&'static str, bool),
    Done(&'static str),
    /// A done intent is wanted out; whether somebody has to wait.
    Press(&'static str, bool),
    Found(&'static str, bool),
    /// The next write is this one; it is under way.
    Write(&'static str),
    Written,
    Failed,
}

#[expect(clippy::too_many_lines, reason = "a flat table")]
fn cases() -> Vec<(&'static str, Vec<Does>)> {
    use Does::*;
    vec![
        ("nothing wanted, nothing written", vec![Write("nothing")]),
        (
            "one claim costs one write",
            vec![
                Record("a", false),
                Write("+a"),
                Written,
                Done("a"),
                Write("nothing"),
            ],
        ),
        (
            "what comes during a write shares the next one",
            vec![
                Record("a", false),
                Write("+a"),
                Record("b", false),
                Record("c", false),
                Written,
                Write("+b +c"),
                Written,
                Write("nothing"),
            ],
        ),
        (
            "a done intent leaves with the next write",
            vec![
                Record("a", false),
                Write("+a"),
                Written,
                Done("a"),
                Found("x", true),
                Press("x", true),
                Write("-a -x"),
                Written,
                Write("nothing"),
            ],
        ),
        (
            "a recorded intent is not written again",
            vec![
                Record("a", false),
                Write("+a"),
                Written,
                Record("a", true),
                Write("nothing"),
            ],
        ),
        (
            "a done intent that is wanted again unchanged needs no write",
            vec![
                Record("a", false),
                Write("+a"),
                Written,
                Done("a"),
                Record("a", true),
            ],
        ),
        (
            "wanted again while it is being dropped: written again",
            vec![
                Found("a", true),
                Press("a", true),
                Write("-a"),
                Record("a", false),
                Written,
                Write("+a"),
                Written,
                Record("a", true),
            ],
        ),
        (
            "wanted again while dropping it fails: written again",
            vec![
                Found("a", true),
                Press("a", true),
                Write("-a"),
                Record("a", false),
                Failed,
                Write("+a"),
            ],
        ),
        (
            "a lost answer: wanted again it is written again, to the same place",
            vec![
                Record("a", false),
                Write("+a"),
                Failed,
                Record("a", false),
                Write("+a"),
                Written,
            ],
        ),
        (
            "a lost answer: given up, it is dropped as if it were there",
            vec![
                Record("a", false),
                Write("+a"),
                Failed,
                Press("a", true),
                Write("-a"),
                Written,
            ],
        ),
        (
            "nobody waits for an unknown intent to go",
            vec![Press("a", false), Write("nothing")],
        ),
        (
            "nobody drops an intent that is not done",
            vec![
                Record("a", false),
                Write("+a"),
                Written,
                Press("a", false),
                Write("nothing"),
            ],
        ),
        (
            "done before it was written: nothing is left to write",
            vec![Record("a", false), Done("a"), Write("nothing")],
        ),
        (
            "found and not done: kept",
            vec![Found("a", false), Write("nothing"), Press("a", false)],
        ),
    ]
}

#[test]
fn what_is_written_when() {
    for (name, steps) in cases() {
        let mut book = Book::default();
        let mut under_way = None;
        for step in steps {
            use Does::*;
            match step {
                Record(key, is_there) => assert_eq!(book.record(key, "text".into()), Ok(is_there), "{name}"),
                Done(key) => book.done(key),
                Press(key, waits) => assert_eq!(book.press(key), waits, "{name}: press {key}"),
                Found(key, is_done) => book.found(0, key, "text".into(), is_done),
                Write(expected) => {
                    under_way = book.next_write();
                    assert_eq!(shown(under_way.as_ref()), expected, "{name}");
                }
                Written => book.written(&under_way.take().expect("a write is under way")),
                Failed => book.failed(&under_way.take().expect("a write is under way")),
            }
        }
    }
}

#[test]
fn batches_take_turns_over_the_shards_and_none_outgrows_its_object() {
    let mut book = Book::default();
    let big = "x".repeat(100 * 1024);
    let mut recorded = 0;
    let refused = loop {
        match book.record(&format!("v{recorded}"), big.clone()) {
            Ok(is_there) => assert!(!is_there),
            Err(refusal) => break refusal,
        }
        recorded += 1;
    };
    assert_eq!(refused, Refusal::Full);
    let mut sizes = [0; SHARDS];
    let mut written = 0;
    while let Some(write) = book.next_write() {
        sizes[write.shard] += write
            .puts
            .iter()
            .map(|(key, text)| key.len() + text.len())
            .sum::<usize>();
        written += write.puts.len();
        book.written(&write);
    }
    assert_eq!(written, recorded, "all that was taken was written");
    assert!(recorded > 40, "{recorded}");
    assert!(sizes.iter().all(|size| *size <= SHARD_BYTES_MAX), "{sizes:?}");
    // Room again once something has gone.
    book.done("v0");
    assert!(book.press("v0"));
    let write = book.next_write().expect("a write is due");
    book.written(&write);
    assert_eq!(book.record("w", big), Ok(false));
    let huge = "x".repeat(INTENT_BYTES_MAX + 1);
    assert!(matches!(book.record("h", huge), Err(Refusal::TooLarge(_))));
}

#[test]
fn a_changed_text_is_written_where_the_old_one_is() {
    let mut book = Book::default();
    for shard in 0..SHARDS {
        book.found(shard, &format!("full{shard}"), "x".repeat(1000), false);
    }
    book.found(5, "a", "old".into(), false);
    assert_eq!(book.record("a", "new".into()), Ok(false));
    let write = book.next_write().expect("a write is due");
    assert_eq!((write.shard, shown(Some(&write)).as_str()), (5, "+a"));
}
