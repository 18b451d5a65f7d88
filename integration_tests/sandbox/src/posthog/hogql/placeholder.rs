//! What the parser can't read: `{name}` placeholders, filled with literals, and names with a `$`, put in
//! backticks.

use serde_json::{Map, Value as Json};

use crate::posthog::error::ApiError;

/// Replaces every `{name}` outside of quotes by the literal for its value.
pub(crate) fn fill(text: &str, values: &Map<String, Json>) -> Result<String, ApiError> {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    let mut quote = None;
    while let Some(letter) = letters.next() {
        match quote {
            Some(_) if letter == '\\' => {
                out.push(letter);
                out.extend(letters.next());
                continue;
            }
            Some(open) if letter == open => quote = None,
            None if matches!(letter, '\'' | '`' | '"') => quote = Some(letter),
            None if letter == '{' => {
                let name: String = letters.by_ref().take_while(|letter| *letter != '}').collect();
                let name = name.trim();
                let value = values.get(name).ok_or_else(|| {
                    let detail = format!("Placeholders, such as {{{name}}}, are not supported in this context");
                    ApiError::refused(detail, Vec::new())
                })?;
                out.push_str(&literal(name, value)?);
                continue;
            }
            None if letter == '$' => {
                out.push_str("`$");
                while let Some(letter) =
                    letters.next_if(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '$'))
                {
                    out.push(letter);
                }
                out.push('`');
                continue;
            }
            _ => {}
        }
        out.push(letter);
    }
    Ok(out)
}

fn literal(name: &str, value: &Json) -> Result<String, ApiError> {
    match value {
        Json::Null => Ok("NULL".to_owned()),
        Json::Bool(value) => Ok(value.to_string()),
        Json::Number(number) => Ok(number.to_string()),
        Json::String(text) => Ok(format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))),
        Json::Array(items) => {
            let items = items.iter().map(|item| literal(name, item)).collect::<Result<Vec<_>, _>>()?;
            Ok(format!("({})", items.join(", ")))
        }
        Json::Object(_) => Err(ApiError::unsupported(format_args!("an object as the value of {{{name}}}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_quotes_respected() {
        let values = serde_json::json!({"a": "it's \\ ñ", "n": 5, "list": ["x", 1]});
        let filled = fill(r"{a} '{a}' `{n}` '\'{a}' { n } {list}", values.as_object().unwrap()).unwrap();
        assert_eq!(filled, r"'it\'s \\ ñ' '{a}' `{n}` '\'{a}' 5 ('x', 1)");
        assert_eq!(fill("a.$b, `$c`, '$d'", &Map::new()).unwrap(), "a.`$b`, `$c`, '$d'");
        assert_eq!(fill("{missing}", &Map::new()).unwrap_err().status, 400);
    }
}
