//! Objects of list endpoints as RECORD lines.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::frame::{RecordEnvelope, append_changes};
use super::nulled::NulledValues;
use super::property_filter::{FilterScratch, PropertyFilter};
use super::value;
use crate::config::Treatment;
use crate::large::{LARGE, make_room};
use crate::posthog::{AtMostMembers, Malformed};
use crate::protocol::StreamDescriptor;
use crate::streams::PROJECT_FIELD;
use crate::streams::{Kind, List, Selection};
use crate::time::Timestamp;

/// The field of feature flags that says that their payloads are stored encrypted.
const ENCRYPTED_PAYLOADS: &str = "has_encrypted_payloads";
/// So many fields that this version does not know are named.
const MOST_UNKNOWN: usize = 100;
/// The field with the person that an object is about.
const PERSON_FIELD: &str = "person";

/// The value of a text; null if it is so large that it would take very much memory.
fn small_value(text: &str) -> Value {
    if text.len() > LARGE {
        tracing::warn!("a value of {} bytes, of which only a part may be emitted, is left out as a whole", text.len());
        return Value::Null;
    }
    serde_json::from_str(text).unwrap_or_default()
}

/// A person whose properties some rules have been applied to. Its name is one of them, or made of some.
fn with_rules(person: &str, rules: &PropertyFilter) -> String {
    let mut person = small_value(person);
    if let Some(properties) = person.get_mut("properties") {
        let mut scratch = FilterScratch::default();
        rules.apply(properties.to_string().as_bytes(), &mut scratch);
        *properties = serde_json::from_slice(&scratch.text).unwrap_or_default();
    }
    if let Some(name) = person.get_mut("name") {
        *name = Value::Null;
    }
    person.to_string()
}

/// A field of an object's record.
struct ObjectField {
    name: String,
    kind: Kind,
    /// What becomes of the property that it is made from.
    treatment: Treatment,
    /// What it is hashed by, or what is left of the person that it holds.
    filter: Option<PropertyFilter>,
}

impl ObjectField {
    fn new(list: &List, name: &str, schema: &Value, selection: &Selection) -> Self {
        let rules = selection.event_rules();
        let property = list.made_from.iter().find(|(field, _)| *field == name);
        let treatment = property.map_or(Treatment::Keep, |(_, property)| rules.of_value(property));
        let filter = match treatment {
            Treatment::Hash => PropertyFilter::hashing(rules),
            _ if name == PERSON_FIELD => PropertyFilter::new(selection.person_rules(), None),
            _ => None,
        };
        Self { name: name.to_owned(), kind: Kind::of_schema(schema), treatment, filter }
    }

    /// What becomes of a value, given as JSON text; none if it is dropped.
    fn apply<'v>(&self, value: Cow<'v, str>) -> Option<Cow<'v, str>> {
        match (self.treatment, &self.filter) {
            (Treatment::Drop, _) => None,
            (_, None) => Some(value),
            (Treatment::Hash, Some(filter)) => {
                let mut scratch = FilterScratch::default();
                filter.apply(value.as_bytes(), &mut scratch);
                String::from_utf8(scratch.text).ok().map(Cow::Owned)
            }
            (_, Some(filter)) => Some(with_rules(&value, filter).into()),
        }
    }
}

/// Writes the records of one list and one project.
pub struct ObjectWriter {
    list: &'static List,
    project: u64,
    envelope: RecordEnvelope,
    /// Fields that are wanted.
    fields: Vec<ObjectField>,
    has_project: bool,
    has_credentials: bool,
    nulled: NulledValues,
    /// Fields of the schema.
    known: BTreeSet<String>,
    /// Fields that the server sends and the schema does not have.
    unknown: BTreeSet<String>,
}

/// An object that has been taken apart.
pub struct Object<'o> {
    values: BTreeMap<String, &'o RawValue>,
}

/// The data of an object's record.
pub struct ObjectData {
    /// As JSON, with what goes behind it.
    data: Vec<u8>,
    /// Of all fields but those that change without the object.
    pub checksum: u64,
}

/// A number that stands for an object's key.
pub fn key_number(key: impl AsRef<[u8]>) -> u64 {
    first_digits(&Sha256::digest(key))
}

fn first_digits(digest: &[u8]) -> u64 {
    u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default())
}

impl<'o> Object<'o> {
    /// Takes an object apart.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(text: &'o RawValue) -> Result<Self, Malformed> {
        let AtMostMembers(values) = serde_json::from_str::<AtMostMembers<10_000, _>>(text.get())
            .map_err(|error| Malformed(format!("an entry of a list is no object: {error}")))?;
        Ok(Self { values })
    }

    /// The values of some fields, joined into one string that identifies the object.
    pub fn key(&self, fields: &[&str]) -> String {
        let texts: Vec<&str> =
            fields.iter().map(|field| self.values.get(*field).map_or("", |value| value.get())).collect();
        texts.join(",")
    }

    /// A field that is an instant.
    pub fn instant(&self, field: &str) -> Option<Timestamp> {
        Timestamp::parse_json(self.values.get(field)?.get())
    }

    /// The value of a field in a record, changed where it holds secrets and these are not wanted.
    fn value(&self, field: &str, has_credentials: bool) -> Option<Cow<'o, str>> {
        let value = self.values.get(field)?.get();
        // PostHog decrypts the payloads of such flags for every API key.
        let is_secret =
            field == "filters" && self.values.get(ENCRYPTED_PAYLOADS).is_some_and(|flag| flag.get() == "true");
        // Surveys, experiments and features have flags in them.
        let is_flag = value.contains(ENCRYPTED_PAYLOADS);
        if has_credentials || !is_secret && !is_flag {
            return Some(value.into());
        }
        // In memory, a value takes many times as much as its text.
        let mut object = small_value(value);
        if object.is_null() {
            return Some("null".into());
        }
        let payloads = match object.get(ENCRYPTED_PAYLOADS) {
            _ if is_secret => object.get_mut("payloads"),
            Some(Value::Bool(true)) => object.pointer_mut("/filters/payloads"),
            _ => return Some(value.into()),
        };
        if let Some(payloads) = payloads {
            *payloads = Value::Null;
        }
        Some(object.to_string().into())
    }
}

impl ObjectWriter {
    /// A writer for `project`.
    pub fn new(list: &'static List, selection: &Selection, stream: &StreamDescriptor, project: u64) -> Self {
        let known = list.fields();
        let fields = known.iter().filter(|(field, _)| *field != PROJECT_FIELD && selection.has(field));
        let fields = fields.map(|(field, schema)| ObjectField::new(list, field, schema, selection)).collect();
        let (envelope, nulled) = (RecordEnvelope::new(stream), NulledValues::default());
        let has_project = selection.has(PROJECT_FIELD);
        let known = known.into_iter().map(|(field, _)| field).collect();
        let (has_credentials, unknown) = (selection.has_credentials(), BTreeSet::new());
        Self { list, project, envelope, fields, has_project, has_credentials, nulled, known, unknown }
    }

    /// The data of an object's record; `labels` are fields that the server does not send.
    pub fn data(&mut self, object: &Object<'_>, labels: &[(&str, Value)]) -> ObjectData {
        let mut data = vec![b'{'];
        if self.has_project {
            data.extend_from_slice(format!("\"{PROJECT_FIELD}\":{}", self.project).as_bytes());
        }
        let (mut undecoded, mut digest) = (Vec::new(), Sha256::new());
        // Objects of which the same few fields are wanted would have one checksum.
        for field in self.list.own_key().into_iter().filter(|key| self.fields.iter().all(|field| field.name != *key)) {
            digest.update(object.key(&[field]));
        }
        for field in &self.fields {
            let (begin, name) = (data.len(), field.name.as_str());
            let label = labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.to_string().into());
            let value = label.or_else(|| object.value(name, self.has_credentials)).and_then(|value| field.apply(value));
            let comma = if data.len() > 1 { "," } else { "" };
            data.extend_from_slice(format!("{comma}{}:", Value::from(name)).as_bytes());
            make_room(&mut data, value.as_ref().map_or(0, |value| value.len()));
            if !value::append(field.kind, value.as_deref().unwrap_or("null"), &mut data) {
                undecoded.push(name);
            }
            if !self.list.incidental.contains(&name) {
                digest.update(&data[begin..]);
            }
        }
        data.push(b'}');
        append_changes(&undecoded, &self.nulled, &mut data);
        let unknown = object.values.keys().filter(|field| !self.known.contains(*field));
        self.unknown.extend(unknown.take(MOST_UNKNOWN.saturating_sub(self.unknown.len())).cloned());
        ObjectData { data, checksum: first_digits(&digest.finalize()) }
    }

    /// Appends a record with this data.
    pub fn write(&self, data: &ObjectData, lines: &mut Vec<u8>) {
        make_room(lines, data.data.len());
        self.envelope.write(lines, |lines| lines.extend_from_slice(&data.data));
    }

    /// Logs which fields were left out because this version does not know them.
    pub fn report(&self) {
        if !self.unknown.is_empty() {
            let names: Vec<&str> = self.unknown.iter().map(String::as_str).collect();
            tracing::info!(
                "PostHog sends fields of {} that this version does not know; they are left out: {}",
                self.list.stream,
                names.join(", ")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_schema_fields_without_decrypted_payloads() {
        let list = List::find("feature_flags").unwrap();
        let stream = StreamDescriptor { name: "feature_flags".into(), namespace: None };
        let mut writer = ObjectWriter::new(list, &Selection::all(), &stream, 7);
        let text = r#"{"id":1,"key":"a","new_field":1,"has_encrypted_payloads":true,"filters":{"groups":[],"payloads":{"true":"secret"}}}"#;
        let raw = RawValue::from_string(text.to_owned()).unwrap();
        let mut lines = Vec::new();
        let data = writer.data(&Object::read(&raw).unwrap(), &[]);
        writer.write(&data, &mut lines);
        let line = String::from_utf8(lines).unwrap();
        assert!(!line.contains("secret"), "{line}");
        let message: Value = serde_json::from_str(&line).unwrap();
        let data = message["record"]["data"].as_object().unwrap();
        let fields = list.fields();
        assert_eq!(data.keys().collect::<Vec<_>>(), fields.keys().collect::<Vec<_>>());
        assert_eq!((&data["id"], &data["project_id"], &data["name"]), (&1.into(), &7.into(), &Value::Null));
        assert_eq!(data["filters"]["groups"], Value::Array(Vec::new()));
        assert_eq!(writer.unknown.iter().collect::<Vec<_>>(), ["new_field"]);
    }

    #[test]
    fn encrypted_payloads_are_left_out_wherever_a_flag_is() {
        let flag = r#"{"id":1,"has_encrypted_payloads":true,"filters":{"groups":[],"payloads":{"true":"secret"}}}"#;
        let plain = r#"{"id":1,"has_encrypted_payloads":false,"filters":{"payloads":{"true":"public"}}}"#;
        let stream = StreamDescriptor { name: "surveys".into(), namespace: None };
        let text = format!(r#"{{"id":"s","linked_flag":{flag},"targeting_flag":{plain}}}"#);
        let raw = RawValue::from_string(text).unwrap();
        for (selection, is_left) in [(Selection::all(), false), (Selection::all().with_credentials(true), true)] {
            let mut writer = ObjectWriter::new(List::find("surveys").unwrap(), &selection, &stream, 7);
            let data = String::from_utf8(writer.data(&Object::read(&raw).unwrap(), &[]).data).unwrap();
            assert!(data.contains("secret") == is_left && data.contains("public") && data.contains("groups"), "{data}");
        }
    }
}
