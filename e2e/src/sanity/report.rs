//! The results of all runs: as a table, as JSON, and as JUnit XML.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::{
    matrix::Cell,
    suite::{MODULE, Spec, State, VERSION},
    verdict::Verdict,
};

/// The result of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Which run.
    pub cell: Cell,
    /// How long it took.
    pub seconds: f64,
    /// Whether it was good.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Each spec.
    pub specs: Vec<Spec>,
}

impl Outcome {
    /// Nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.verdict.faults.is_empty()
    }

    /// The counts and what is wrong, on one line and one for each fault.
    pub fn summary(&self) -> String {
        let counts = self.verdict.counts;
        let mut text = format!(
            "{}: {} passed, {} failed, {} pending, {} skipped in {:.1} s",
            self.cell, counts.passed, counts.failed, counts.pending, counts.skipped, self.seconds
        );
        for fault in &self.verdict.faults {
            text.push_str("\n  ");
            text.push_str(fault);
        }
        for failure in &self.verdict.failures {
            text.push_str(&format!(
                "\n  {}:\n    {}",
                failure.spec,
                failure.said.replace('\n', "\n    ")
            ));
        }
        text
    }
}

/// How results are written to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Everything, each spec included.
    Json,
    /// A test suite for each run, for CI systems.
    Junit,
}

/// All results in this format.
///
/// # Errors
/// When they can't be put into it, which would be a bug.
pub fn render(outcomes: &[Outcome], format: Format) -> anyhow::Result<String> {
    match format {
        Format::Json => {
            let document = serde_json::json!({
                "suite": MODULE,
                "version": VERSION,
                "runs": outcomes,
            });
            Ok(serde_json::to_string_pretty(&document)?)
        }
        Format::Junit => Ok(junit(outcomes)),
    }
}

/// A line for each run, then each skipped spec once with its reason, then what is wrong.
pub fn table(outcomes: &[Outcome]) -> String {
    let width = outcomes
        .iter()
        .map(|outcome| outcome.cell.to_string().len())
        .max()
        .unwrap_or(0);
    let mut lines = vec![format!(
        "{:<width$}  passed (to reach)  failed  pending  skipped  seconds  result",
        "run"
    )];
    for outcome in outcomes {
        let counts = outcome.verdict.counts;
        lines.push(format!(
            "{:<width$}  {:>6} {:>10}  {:>6}  {:>7}  {:>7}  {:>7.1}  {}",
            outcome.cell.to_string(),
            counts.passed,
            format!("({})", outcome.verdict.expected_passes),
            counts.failed,
            counts.pending,
            counts.skipped,
            outcome.seconds,
            if outcome.is_good() { "good" } else { "BAD" },
        ));
    }
    lines.extend(skips(outcomes));
    for outcome in outcomes {
        let faults = outcome.verdict.faults.iter();
        lines.extend(faults.map(|fault| format!("{}: {fault}", outcome.cell)));
    }
    lines.join("\n")
}

/// Each reason with the skipped specs that it explains, and the number of runs that skip them.
fn skips(outcomes: &[Outcome]) -> Vec<String> {
    let mut skips: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for skip in outcomes.iter().flat_map(|outcome| &outcome.verdict.skips) {
        let reason = skip.reason.unwrap_or("NOT ON THE LIST of skips that are right");
        *skips.entry(reason).or_default().entry(&skip.spec).or_default() += 1;
    }
    let mut lines = Vec::new();
    for (reason, specs) in skips {
        lines.push(format!("skipped: {reason}"));
        let specs = specs.into_iter();
        lines.extend(specs.map(|(spec, runs)| format!("    in {runs} of {} runs: {spec}", outcomes.len())));
    }
    lines
}

fn junit(outcomes: &[Outcome]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for outcome in outcomes {
        let counts = outcome.verdict.counts;
        // What is wrong with the run as a whole is a failed case of its own.
        let faults = usize::from(!outcome.is_good());
        writeln!(
            xml,
            "  <testsuite name=\"csi-sanity {}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{:.3}\">",
            escaped(&outcome.cell.to_string()),
            outcome.specs.len() + 1,
            counts.failed as usize + faults,
            counts.skipped + counts.pending,
            outcome.seconds
        )
        .expect("strings take everything");
        for spec in &outcome.specs {
            let message = escaped(&spec.message);
            let inner = match spec.state {
                State::Passed => String::new(),
                State::Failed => format!("<failure message=\"{message}\"/>"),
                State::Pending | State::Skipped => format!("<skipped message=\"{message}\"/>"),
            };
            case(&mut xml, &spec.name, spec.seconds, &inner);
        }
        let message = escaped(&outcome.verdict.faults.join("; "));
        let inner = if outcome.is_good() {
            String::new()
        } else {
            format!("<failure message=\"{message}\"/>")
        };
        case(&mut xml, "the run as a whole", outcome.seconds, &inner);
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn case(xml: &mut String, name: &str, seconds: f64, inner: &str) {
    let name = escaped(name);
    writeln!(
        xml,
        "    <testcase name=\"{name}\" time=\"{seconds:.3}\">{inner}</testcase>"
    )
    .expect("strings take everything");
}

/// Text as XML attributes may hold it.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            // XML 1.0 has no other control characters at all.
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sanity::{matrix, verdict};

    fn outcome(states: &[State]) -> Outcome {
        let cell = matrix::all()[0];
        let specs: Vec<Spec> = states
            .iter()
            .map(|state| Spec {
                name: format!("a <{state:?}>"),
                state: *state,
                message: "it said \"no\"\n\u{1b}".to_owned(),
                seconds: 0.25,
            })
            .collect();
        let mut verdict = verdict::judge(cell, &specs);
        verdict.faults.retain(|fault| !fault.contains("expected were"));
        Outcome {
            cell,
            seconds: 1.0,
            verdict,
            specs,
        }
    }

    #[test]
    fn tables_show_each_run_skip_and_fault() {
        let good = outcome(&[State::Passed, State::Pending]);
        assert!(good.is_good());
        let table = table(&[good, outcome(&[State::Failed, State::Skipped])]);
        for part in [
            "  good\n",
            "  BAD\n",
            "skipped: NOT ON THE LIST of skips that are right\n    in 1 of 2 runs: a <Skipped>",
            ": failed: a <Failed>",
        ] {
            assert!(table.contains(part), "{part} in\n{table}");
        }
    }

    #[test]
    fn junit_counts_and_escapes() {
        let xml = render(
            &[outcome(&[State::Passed, State::Failed, State::Skipped])],
            Format::Junit,
        )
        .unwrap();
        assert!(xml.contains("tests=\"4\" failures=\"2\" skipped=\"1\""), "{xml}");
        assert!(
            xml.contains("<testcase name=\"a &lt;Failed&gt;\" time=\"0.250\"><failure message=\"it said &quot;no&quot;&#10;\u{fffd}\"/>"),
            "{xml}"
        );
    }

    #[test]
    fn json_has_every_spec() {
        let text = render(&[outcome(&[State::Passed, State::Failed])], Format::Json).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let run = &document["runs"][0];
        assert_eq!(run["counts"]["failed"], 1);
        assert_eq!(run["specs"].as_array().unwrap().len(), 2);
        assert_eq!(run["specs"][0]["state"], "passed");
    }
}
