//! What happened when: recorded once, shown as lines while it happens or as one JSON document at the end.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;

use crate::args::OutputFormat;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Step {
    /// The chapter of the story, such as `first pod`.
    pub(super) chapter: &'static str,
    /// What happened, such as `bound`.
    pub(super) step: &'static str,
    /// The particulars: a name, a size.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) detail: String,
    /// Milliseconds since the demo began.
    pub(super) at_ms: f64,
    /// Milliseconds since the step before.
    pub(super) took_ms: f64,
}

/// The record, and how it is shown.
#[derive(Debug)]
pub(super) struct Timeline {
    output: OutputFormat,
    started: Instant,
    last: Instant,
    chapter: &'static str,
    steps: Vec<Step>,
    spinner: Option<ProgressBar>,
}

impl Timeline {
    /// Begins now. A terminal gets a spinner beside the lines.
    pub(super) fn new(output: OutputFormat) -> Self {
        let now = Instant::now();
        let spinner = (output == OutputFormat::Text && std::io::stdout().is_terminal()).then(spinner);
        Self {
            output,
            started: now,
            last: now,
            chapter: "",
            steps: Vec::new(),
            spinner,
        }
    }

    /// Begins a chapter of the story.
    pub(super) fn chapter(&mut self, name: &'static str) {
        self.chapter = name;
        self.last = Instant::now();
        self.line(&format!("\n{name}"));
    }

    /// Says what is waited for; only a terminal shows it.
    pub(super) fn waiting(&self, what: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(what.to_owned());
        }
    }

    /// Records a step that happened at `at`.
    pub(super) fn step(&mut self, step: &'static str, detail: impl Into<String>, at: Instant) {
        let took = at.saturating_duration_since(self.last);
        self.last = self.last.max(at);
        let recorded = Step {
            chapter: self.chapter,
            step,
            detail: detail.into(),
            at_ms: milliseconds(at.saturating_duration_since(self.started)),
            took_ms: milliseconds(took),
        };
        self.line(&render(&recorded));
        self.steps.push(recorded);
    }

    /// Everything so far, in order.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Time since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends the show; lines come plainly from here on.
    pub(super) fn finish(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }

    /// Prints a line, unless the answer is one JSON document.
    #[expect(clippy::print_stdout, reason = "the command line's answer to its user")]
    pub(super) fn line(&self, text: &str) {
        match (&self.spinner, self.output) {
            (Some(spinner), _) => spinner.println(text),
            (None, OutputFormat::Text) => println!("{text}"),
            (None, OutputFormat::Json) => {}
        }
    }
}

/// Milliseconds, with microseconds behind the point.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn render(step: &Step) -> String {
    let Step {
        step,
        detail,
        at_ms,
        took_ms,
        ..
    } = step;
    let seconds = at_ms / 1e3;
    let line = format!("  {seconds:>7.3} s  +{took_ms:>7.1} ms  {step:<20} {detail}");
    line.trim_end().to_owned()
}

fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("  {spinner} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let spinner = ProgressBar::new_spinner().with_style(style);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn steps_carry_the_time_since_the_one_before() {
        let mut timeline = Timeline::new(OutputFormat::Json);
        timeline.chapter("first pod");
        tokio::time::advance(Duration::from_millis(5)).await;
        timeline.step("claim seen", "default/data", Instant::now());
        tokio::time::advance(Duration::from_millis(7)).await;
        timeline.step("bound", "", Instant::now());
        let times: Vec<_> = timeline
            .steps()
            .iter()
            .map(|s| (s.step, s.at_ms, s.took_ms))
            .collect();
        assert_eq!(times, [("claim seen", 5.0, 5.0), ("bound", 12.0, 7.0)]);
        assert_eq!(
            render(&timeline.steps()[0]),
            "    0.005 s  +    5.0 ms  claim seen           default/data"
        );
    }
}
