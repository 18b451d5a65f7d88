//! The body of a request to start a run.

use chrono_tz::Tz;
use serde_json::{Map, Value};

use super::behaviour::{ExportServer, Offset};
use crate::posthog::error::ApiError;
use crate::posthog::hogql::parse_time;
use crate::posthog::store::DAY;

/// What PostHog counts as a megabyte here.
const MEGABYTE: usize = 1_000_000;
const LONGEST: i64 = 7 * DAY;
const COMPRESSIONS: [&str; 5] = ["zstd", "gzip", "brotli", "lz4", "snappy"];

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Model {
    Events,
    Persons,
    Sessions,
}

impl Model {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Persons => "persons",
            Self::Sessions => "sessions",
        }
    }
}

/// A request that has passed validation.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) model: Model,
    pub(super) gzip: bool,
    /// Length of a file before it is compressed.
    pub(super) max_bytes: Option<usize>,
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<String>,
    /// Microseconds since 1970.
    pub(super) start: i64,
    /// Microseconds since 1970, exclusive.
    pub(super) end: i64,
}

fn required(attr: &'static str) -> ApiError {
    ApiError::code("required", "This field is required.").attribute(attr)
}

fn no_choice(value: &Value, attr: &'static str) -> ApiError {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    ApiError::code("invalid_choice", format!("\"{text}\" is not a valid choice.")).attribute(attr)
}

/// `now` is the server's time in microseconds since 1970.
pub(super) fn validate(body: &[u8], server: ExportServer, now: i64) -> Result<Asked, ApiError> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::code("parse_error", format!("JSON parse error - {error}")))?;
    let body = body.as_object().ok_or_else(|| ApiError::code("invalid", "Invalid data. Expected a dictionary."))?;
    let model = match body.get("model") {
        None => Model::Events,
        Some(value) => [Model::Events, Model::Persons, Model::Sessions]
            .into_iter()
            .find(|model| value.as_str() == Some(model.name()))
            .ok_or_else(|| no_choice(value, "model"))?,
    };
    let file = body.get("file").and_then(Value::as_object).ok_or_else(|| required("file"))?;
    let gzip = compression(file)?;
    let max_bytes = max_bytes(file, server)?;
    let [include, exclude] = ["include", "exclude"].map(|name| names(body, name, model));
    let start = moment(body, "data_interval_start")?;
    let end = moment(body, "data_interval_end")?;
    interval(start, end, server, now)?;
    Ok(Asked { model, gzip, max_bytes, include: include?, exclude: exclude?, start, end })
}

fn interval(start: i64, end: i64, server: ExportServer, now: i64) -> Result<(), ApiError> {
    let (backwards, too_long) = if server.current_answers {
        (
            "'data_interval_end' must occur after 'data_interval_start'",
            "data interval range too big. Choose an interval of at most seven days.",
        )
    } else {
        ("data interval start must be before data interval end", "data interval range too big")
    };
    // An interval of no length is accepted today.
    if start > end || (start == end && !server.current_answers) {
        return Err(ApiError::invalid(backwards));
    }
    if end - start > LONGEST {
        return Err(ApiError::invalid(too_long));
    }
    for (name, bound) in [("data_interval_start", start), ("data_interval_end", end)] {
        if server.future_refused && bound > now {
            let bound = Offset::Zero.write(bound);
            return Err(ApiError::invalid(format!("The provided '{name}' ({bound}) is in the future")));
        }
    }
    Ok(())
}

/// Whether files are compressed, if they are in a form that the stand-in can write.
fn compression(file: &Map<String, Value>) -> Result<bool, ApiError> {
    let format = file.get("format").filter(|format| !format.is_null()).ok_or_else(|| required("file__format"))?;
    if !matches!(format.as_str(), Some("JSONLines" | "Parquet")) {
        return Err(no_choice(format, "file__format"));
    }
    let compression = file.get("compression").filter(|compression| !compression.is_null());
    let name = match compression {
        Some(value) => {
            let known = value.as_str().filter(|name| COMPRESSIONS.contains(name));
            Some(known.ok_or_else(|| no_choice(value, "file__compression"))?)
        }
        None => None,
    };
    if format == "Parquet" {
        return Err(ApiError::unsupported("files in the format Parquet").attribute("file__format"));
    }
    match name {
        None => Ok(false),
        Some("gzip") => Ok(true),
        Some("brotli") => Err(ApiError::unsupported("brotli").attribute("file__compression")),
        Some(other) => {
            let detail = format!("Compression '{other}' is not supported for JSONLines file format");
            Err(ApiError::invalid(detail).attribute("file"))
        }
    }
}

fn max_bytes(file: &Map<String, Value>, server: ExportServer) -> Result<Option<usize>, ApiError> {
    let Some(size) = file.get("max_size_mb").filter(|size| !size.is_null()) else { return Ok(None) };
    if server.current_answers && *size == 0 {
        return Ok(None);
    }
    let number = size.as_u64().filter(|number| *number > 0).and_then(|number| usize::try_from(number).ok());
    let number = number.ok_or_else(|| {
        ApiError::code("min_value", "Ensure this value is greater than or equal to 1.").attribute("file__max_size_mb")
    })?;
    Ok(Some(number.saturating_mul(MEGABYTE)))
}

fn names(body: &Map<String, Value>, name: &'static str, model: Model) -> Result<Vec<String>, ApiError> {
    let Some(value) = body.get(name).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    let list =
        value.as_array().ok_or_else(|| ApiError::code("not_a_list", "Expected a list of items.").attribute(name))?;
    if !list.is_empty() && model != Model::Events {
        return Err(ApiError::invalid(format!("'{name}' is only supported for events")).attribute(name));
    }
    let texts = list.iter().map(|item| item.as_str().map(str::to_owned));
    texts.collect::<Option<_>>().ok_or_else(|| ApiError::code("invalid", "Not a valid string.").attribute(name))
}

/// An instant in microseconds; without a zone it is meant in UTC.
fn moment(body: &Map<String, Value>, name: &'static str) -> Result<i64, ApiError> {
    let value = body.get(name).filter(|value| !value.is_null()).ok_or_else(|| required(name))?;
    let micros = value.as_str().and_then(|text| parse_time(text, Tz::UTC));
    micros.ok_or_else(|| {
        let detail = "Datetime has wrong format. Use one of these formats instead: \
                      YYYY-MM-DDThh:mm[:ss[.uuuuuu]][+HH:MM|-HH:MM|Z].";
        ApiError::code("invalid", detail).attribute(name)
    })
}
