//! Logs: to standard error, one JSON object a line, or for people on a terminal.

use crate::{LogFormat, TelemetryConfig, trace};
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// Installs the logs of this process. A process that has them already, as in tests, keeps what it has.
///
/// # Errors
/// When the filter cannot be read.
pub(crate) fn install(config: &TelemetryConfig, filter: Option<&str>) -> Result<(), String> {
    let text = filter.unwrap_or(&config.log);
    let filter = EnvFilter::try_new(text).map_err(|error| error.to_string())?;
    let terminal = std::io::stderr().is_terminal();
    let human = match config.format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = if human {
        lines.with_ansi(terminal).boxed()
    } else {
        lines.json().flatten_event(true).with_span_list(false).boxed()
    };
    if tracing_subscriber::registry().with(layer.with_filter(filter)).with(trace::layer()).try_init().is_ok() {
        log_panics();
    }
    Ok(())
}

/// A panic becomes one log line with its place. Its message is a constant of ours or of a library; it is
/// not logged, since it may quote what it was working on.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().filter(|_| cfg!(debug_assertions));
        tracing::error!(place, message, "panicked");
    }));
}
