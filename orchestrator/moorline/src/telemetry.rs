//! The one place that sets up logging, and the one that prints a failed command's reason.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// Sends log lines to standard error, in the asked form and from the asked level on.
pub fn init(format: LogFormat, verbose: u8, default_level: &str) {
    let level = match verbose {
        0 => default_level,
        1 => "debug",
        _ => "trace",
    };
    // Below `trace`, the libraries underneath have nothing to say that helps a user of Moorline.
    let quiet = if verbose < 2 {
        ",hyper=warn,hyper_util=warn,h2=warn,rustls=warn,tower=warn,tonic=warn,kube=warn,kube_client=warn,kube_runtime=warn,\
         libcontainer=warn,libcgroups=warn"
    } else {
        ""
    };
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("{level}{quiet}")));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second subscriber is refused, as in tests that call in twice; the first one stays.
    let outcome = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "Logging was set up before");
    }
}

/// Prints why a command failed, with the whole chain of causes on one line.
#[expect(clippy::print_stderr, reason = "the command line's answer to its user")]
pub fn say_error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
