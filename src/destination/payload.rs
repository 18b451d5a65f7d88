//! What a record looks like in a request.
//!
//! Values are copied as they came, never parsed and printed again: big numbers, key order and
//! spelling survive.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::spec::Shape;

/// A record as received.
#[derive(Debug, Deserialize)]
pub(super) struct Record<'a> {
    /// Stream name.
    pub(super) stream: String,
    /// Namespace, if the source has one.
    #[serde(default)]
    pub(super) namespace: Option<String>,
    /// The data, which is an object.
    #[serde(borrow)]
    pub(super) data: &'a RawValue,
    /// Milliseconds since the epoch.
    #[serde(default)]
    emitted_at: i64,
}

/// The fields of an event that the shape of PostHog's app is made of.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    uuid: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    #[serde(borrow, default)]
    distinct_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    project_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    properties: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct PersonChanges<'a> {
    #[serde(borrow, default, rename = "$set")]
    set: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "$set_once")]
    set_once: Option<&'a RawValue>,
}

/// What makes a record with the name of an event an event: rows about events, such as their number by
/// day, have neither a sender nor an id.
fn identity<T>(distinct_id: Option<T>, uuid: Option<T>, id: Option<T>) -> Option<T> {
    distinct_id.or(uuid).or(id)
}

impl Record<'_> {
    /// The name of the event that the record is, if it is one.
    pub(super) fn event_name(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            #[serde(default)]
            event: Value,
            #[serde(default)]
            distinct_id: Option<IgnoredAny>,
            #[serde(default)]
            uuid: Option<IgnoredAny>,
            #[serde(default)]
            id: Option<IgnoredAny>,
        }
        let named: Named = serde_json::from_str(self.data.get()).ok()?;
        identity(named.distinct_id, named.uuid, named.id)?;
        named.event.as_str().map(str::to_owned)
    }

    /// The element of the request's array.
    pub(super) fn element(&self, shape: Shape) -> Vec<u8> {
        match shape {
            Shape::Data => self.data.get().as_bytes().to_vec(),
            Shape::PosthogApp => self.as_app().unwrap_or_else(|| self.data.get().as_bytes().to_vec()),
            Shape::Airbyte => {
                let stream = Value::from(self.stream.as_str());
                let namespace = Value::from(self.namespace.as_deref());
                let (emitted_at, data) = (self.emitted_at, self.data.get());
                format!(r#"{{"stream":{stream},"namespace":{namespace},"emitted_at":{emitted_at},"data":{data}}}"#)
                    .into_bytes()
            }
        }
    }

    /// The event as PostHog's app sent it; none when the record is not an event.
    fn as_app(&self) -> Option<Vec<u8>> {
        let event: Event<'_> = serde_json::from_str(self.data.get()).ok()?;
        event.event.zip(identity(event.distinct_id, event.uuid, event.id))?;
        let mut element = b"{".to_vec();
        let mut add = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                if element.len() > 1 {
                    element.push(b',');
                }
                element.extend_from_slice(format!("\"{key}\":{value}").as_bytes());
            }
        };
        let text = |value: Option<&RawValue>| value.map(|value| value.get().to_owned());
        let changes = event.properties.and_then(|all| serde_json::from_str::<PersonChanges<'_>>(all.get()).ok());
        let changes = changes.unwrap_or(PersonChanges { set: None, set_once: None });
        add("distinct_id", text(event.distinct_id).as_deref());
        add("ip", Some("null"));
        add("team_id", text(event.project_id).as_deref());
        add("event", text(event.event).as_deref());
        add("properties", text(event.properties).as_deref());
        add("timestamp", text(event.timestamp).as_deref());
        add("$set", text(changes.set).as_deref());
        add("$set_once", text(changes.set_once).as_deref());
        add("uuid", text(event.uuid.or(event.id)).as_deref());
        element.push(b'}');
        Some(element)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"stream":"events","data":{"id":"u","project_id":7,"uuid":"u","event":"$set","properties":{"n":1.0,"$set":{"a":18446744073709551616},"z":null},"timestamp":"2026-01-01T00:00:00Z","distinct_id":"d"},"emitted_at":5}"#;

    fn element(record: &str, shape: Shape) -> String {
        let record: Record<'_> = serde_json::from_str(record).unwrap();
        String::from_utf8(record.element(shape)).unwrap()
    }

    #[test]
    fn payload_contains_the_record_data_unchanged() {
        let data = r#"{"b": 123456789012345678901234567890, "a":1e2, "a":2}"#;
        assert_eq!(element(&format!(r#"{{"stream":"s","emitted_at":1,"data":{data}}}"#), Shape::Data), data);
    }

    #[test]
    fn the_app_shape_has_the_keys_of_the_app() {
        assert_eq!(
            element(EVENT, Shape::PosthogApp),
            r#"{"distinct_id":"d","ip":null,"team_id":7,"event":"$set","properties":{"n":1.0,"$set":{"a":18446744073709551616},"z":null},"timestamp":"2026-01-01T00:00:00Z","$set":{"a":18446744073709551616},"uuid":"u"}"#
        );
        let person = r#"{"stream":"persons","data":{"id":"p"},"emitted_at":5}"#;
        assert_eq!(element(person, Shape::PosthogApp), r#"{"id":"p"}"#);
    }

    #[test]
    fn rows_of_a_custom_query_are_not_events() {
        let row = r#"{"stream":"per_day","data":{"day":"2026-01-01","event":"$pageview","total":3},"emitted_at":5}"#;
        assert_eq!(element(row, Shape::PosthogApp), r#"{"day":"2026-01-01","event":"$pageview","total":3}"#);
        let name = |record| serde_json::from_str::<Record<'_>>(record).unwrap().event_name();
        assert_eq!((name(row), name(EVENT)), (None, Some("$set".to_owned())));
    }

    #[test]
    fn the_wrapped_shape_names_the_stream() {
        let person = r#"{"stream":"per\"sons","namespace":"n","data":{"id":"p"},"emitted_at":5}"#;
        assert_eq!(
            element(person, Shape::Airbyte),
            r#"{"stream":"per\"sons","namespace":"n","emitted_at":5,"data":{"id":"p"}}"#
        );
    }
}
