//! Command lines and what becomes of them.

use super::*;

fn table() -> Vec<Flag> {
    vec![
        Flag::new("timeout", Kind::Duration, "10s", "A time"),
        Flag::new("leader-election", Kind::Bool, "false", "A switch"),
        Flag::new("v", Kind::Int, "0", "A level"),
        Flag::new("qps", Kind::Float, "5", "A rate"),
        Flag::new("worker-threads", Kind::Uint, "100", "A count"),
        Flag::new("length", Kind::Int, "-1", "A length"),
        Flag::new("prefix", Kind::Text, "pvc", "A text"),
        Flag::new("feature-gates", Kind::Gates, "", "Gates"),
        Flag::new("labels", Kind::Labels, "", "Labels"),
        Flag::new("automaxprocs", Kind::Bool, "false", "Nothing").ignored("it is of Go's runtime"),
        Flag::new("metrics-address", Kind::Text, "", "Old").deprecated("use --http-endpoint"),
    ]
}

fn read(words: &[&str]) -> Result<Values, UsageError> {
    parse(table(), words.iter().map(|word| (*word).to_owned()))
}

#[test]
fn spellings_of_one_flag() {
    for words in [
        &["-timeout=15s"][..],
        &["--timeout=15s"],
        &["-timeout", "15s"],
        &["--timeout", "15s"],
        &["--timeout=1s", "--timeout=15s"],
    ] {
        let values = read(words).unwrap();
        assert_eq!(values.duration("timeout"), Duration::from_secs(15), "{words:?}");
    }
    for words in [&["-v=5"][..], &["--v=5"], &["-v", "5"], &["-v5"]] {
        assert_eq!(read(words).unwrap().int("v"), 5, "{words:?}");
    }
    for (words, expected) in [
        (&["--leader-election"][..], true),
        (&["-leader-election=T"], true),
        (&["--leader-election=false"], false),
        (&[], false),
    ] {
        assert_eq!(
            read(words).unwrap().flag("leader-election"),
            expected,
            "{words:?}"
        );
    }
}

#[test]
fn defaults_and_values() {
    let values = read(&[]).unwrap();
    assert_eq!(values.duration("timeout"), Duration::from_secs(10));
    assert_eq!((values.uint("worker-threads"), values.int("length")), (100, -1));
    assert_eq!((values.text("prefix"), values.some_text("labels")), ("pvc", None));
    assert!((values.float("qps") - 5.0).abs() < f64::EPSILON && !values.is_given("qps"));
    let values = read(&[
        "--feature-gates=A=true,B=false",
        "--feature-gates",
        "B=true",
        "--labels=a:b,c:d",
    ])
    .unwrap();
    let gates: Vec<(String, bool)> = values.gates("feature-gates").into_iter().collect();
    assert_eq!(gates, [("A".into(), true), ("B".into(), true)]);
    assert_eq!(values.labels("labels").len(), 2);
}

#[test]
fn wrong_command_lines_say_what_is_wrong() {
    let cases: &[(&[&str], &str)] = &[
        (&["--help"], "help requested"),
        (&["-h"], "help requested"),
        (
            &["--timout=5s"],
            "unknown flag --timout (did you mean --timeout?)",
        ),
        (&["--nothing-like-it"], "unknown flag --nothing-like-it"),
        (&["word"], "unexpected argument \"word\": flags begin with a dash"),
        (
            &["--leader-election", "true"],
            "unexpected argument \"true\": flags begin with a dash",
        ),
        (&["--timeout"], "flag --timeout needs a value"),
        (
            &["--timeout=5"],
            "flag --timeout: \"5\" is no duration from 0 on, such as 15s, 1m30s or 250ms",
        ),
        (
            &["--worker-threads=-1"],
            "flag --worker-threads: \"-1\" is no whole number from 0 on",
        ),
        (
            &["--leader-election=yes"],
            "flag --leader-election: \"yes\" is neither true nor false",
        ),
        (&["--qps=inf"], "flag --qps: \"inf\" is no number"),
        (
            &["--feature-gates=A"],
            "flag --feature-gates: \"A\" is not of the form Gate=true,OtherGate=false",
        ),
        (
            &["--labels=a"],
            "flag --labels: \"a\" is not of the form key:value,other-key:value",
        ),
    ];
    for (words, expected) in cases {
        assert_eq!(read(words).unwrap_err().to_string(), *expected, "{words:?}");
    }
}

#[test]
fn flags_without_effect_are_named_when_they_ask_for_something() {
    let values = read(&["--automaxprocs", "--metrics-address=:1"]).unwrap();
    assert_eq!(
        values.warnings(),
        [
            "--automaxprocs has no effect: it is of Go's runtime",
            "--metrics-address is deprecated: use --http-endpoint"
        ]
    );
    assert!(read(&["--automaxprocs=false"]).unwrap().warnings().is_empty());
}

#[test]
fn help_shows_every_flag() {
    let text = usage("csi-x", &table());
    for flag in table() {
        assert!(text.contains(&format!("  --{}", flag.name)), "{}", flag.name);
    }
    assert!(text.contains("A time (default 10s)") && text.contains("No effect here: it is of Go's runtime."));
}
