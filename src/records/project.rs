//! The record of a project.

use serde_json::value::RawValue;

use super::document;
use crate::streams::projects::FIELDS;

/// The record of a project: the fields of the schema, values as the server wrote them.
///
/// # Errors
/// When the description is not a JSON object.
pub fn record(json: &RawValue) -> Result<Vec<u8>, serde_json::Error> {
    let fields: std::collections::HashMap<String, &RawValue> = serde_json::from_str(json.get())?;
    let mut record = b"{".to_vec();
    for (field, value) in FIELDS.iter().filter_map(|(field, ..)| Some((*field, fields.get(*field)?))) {
        if record.len() > 1 {
            record.push(b',');
        }
        record.extend_from_slice(format!("\"{field}\":").as_bytes());
        document::append(value.get(), &mut record);
    }
    record.push(b'}');
    Ok(record)
}
