//! What the parts log: no secret may be in it, and a run that is shown shows it.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, span};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::users::MARKER;

/// Crates of ours are called this.
const OURS: &str = "moorline";

thread_local! {
    static LEAKS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static IS_PRINTED: Cell<bool> = const { Cell::new(false) };
}

/// Listens on this thread from now on.
pub(crate) fn listen(is_printed: bool) {
    IS_PRINTED.set(is_printed);
    let listener = tracing_subscriber::registry().with(Listener);
    // A second simulation in this process: the first one's listener does.
    tracing::subscriber::set_global_default(listener).ok();
}

/// Lines with a secret since this was last asked.
pub(crate) fn take_leaks() -> Vec<String> {
    LEAKS.take()
}

struct Listener;

impl Listener {
    fn hear(text: &str) {
        if IS_PRINTED.get() {
            println!("             LOG {text}");
        }
        if MARKER.iter().any(|marker| text.contains(marker)) {
            LEAKS.with_borrow_mut(|leaks| leaks.push(format!("a secret is in the log: {text}")));
        }
    }
}

impl<S: Subscriber> Layer<S> for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with(OURS) && *metadata.level() <= Level::DEBUG
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        let mut line = Line(attributes.metadata().name().to_owned());
        attributes.record(&mut line);
        Self::hear(&line.0);
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line(format!("{} {}:", metadata.level(), metadata.target()));
        event.record(&mut line);
        Self::hear(&line.0);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = field.name();
        let written = if name == "message" {
            write!(self.0, " {value:?}")
        } else {
            write!(self.0, " {name}={value:?}")
        };
        written.expect("strings have room");
    }
}
