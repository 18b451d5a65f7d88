//! `tracing` events as LOG messages.
//!
//! The level comes from `LOG_LEVEL` (Airbyte sets it; any case) or `RUST_LOG`; libraries stay at
//! warnings, because their INFO is not for users.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Registry};

use super::message::{LogLevel, Message};
use super::output::Output;

/// Sends all log events of this process to `output` from now on.
pub fn install(output: &Output) {
    let subscriber = Registry::default().with(filter()).with(Lines { output: output.clone() });
    // A second call keeps the first subscriber, which only tests do.
    drop(tracing::subscriber::set_global_default(subscriber));
}

/// What sends only warnings and errors to `output`, for a part of a program.
pub fn warnings(output: &Output) -> impl Subscriber + Send + Sync + 'static {
    Registry::default().with(LevelFilter::WARN).with(Lines { output: output.clone() })
}

fn filter() -> EnvFilter {
    let level = std::env::var("LOG_LEVEL").ok().and_then(|level| match level.to_ascii_lowercase().as_str() {
        "fatal" => Some(Level::ERROR),
        "warning" => Some(Level::WARN),
        other => other.parse().ok(),
    });
    let ours = level.unwrap_or(Level::INFO);
    std::env::var("RUST_LOG")
        .ok()
        .and_then(|directives| EnvFilter::try_new(directives).ok())
        .unwrap_or_else(|| EnvFilter::new(format!("warn,source_posthog={ours},destination_patterns={ours}")))
}

struct Lines {
    output: Output,
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Text::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(SpanFields(fields.fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            Level::DEBUG => LogLevel::Debug,
            Level::TRACE => LogLevel::Trace,
        };
        let mut text = Text::default();
        event.record(&mut text);
        // The project and the stream that a line is about are fields of the span around it.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(SpanFields(fields)) = span.extensions().get() {
                text.fields.push_str(fields);
            }
        }
        self.output.log(&Message::log(level, text.message + &text.fields));
    }
}

/// The fields of a span, as ` key=value`.
struct SpanFields(String);

/// The message of an event, followed by its other fields as ` key=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        debug_assert!(written.is_ok());
    }
}
