//! Streams of the user's own `HogQL` queries.
//!
//! A query is wrapped as a table, `FROM (<query>) AS q`, and read like one. So it must be one whole
//! SELECT without LIMIT and OFFSET: pages are made around it. [`check_text`] sees to it that a query
//! cannot leave its parentheses. It reads texts, names and comments as `posthog/hogql/grammar/
//! HogQLLexer.common.g4` does, and refuses the few things that would need more than that: templates
//! (`f'…'`) and tags (`<a>…</a>`), inside of which quotes and parentheses mean something else.

use super::column::{Column, Exported, Kind};
use super::keyed::{Keyed, Part};
use crate::config::CustomQuery;
use crate::error::Error;

/// Checks what can be checked without asking the server.
///
/// # Errors
/// A sentence that says what is wrong with the query's text.
pub fn check_text(query: &str) -> Result<(), String> {
    let mut words: Vec<String> = Vec::new();
    let mut depth = 0_i32;
    let mut rest = query.chars().peekable();
    let mut word = String::new();
    while let Some(character) = rest.next() {
        if character.is_alphanumeric() || character == '_' || character == '$' {
            word.push(character);
            continue;
        }
        let glued = std::mem::take(&mut word);
        match character {
            '\'' if glued.ends_with(['f', 'F']) => {
                return Err("contains a template `f'…'`; use concat() instead".to_owned());
            }
            '\'' | '"' | '`' => skip_quoted(&mut rest, character)?,
            '-' | '/' if rest.peek() == Some(&character) => {
                while rest.next_if(|next| !matches!(next, '\n' | '\r')).is_some() {}
            }
            '/' if rest.peek() == Some(&'*') => {
                rest.next();
                let mut previous = ' ';
                loop {
                    match rest.next() {
                        None => return Err("has a comment without an end".to_owned()),
                        Some('/') if previous == '*' => break,
                        Some(next) => previous = next,
                    }
                }
            }
            '<' if rest.peek().is_some_and(|next| next.is_alphabetic() || matches!(next, '_' | '/')) => {
                return Err(
                    "contains `<` in front of a name, which could be a tag; put a space between them".to_owned()
                );
            }
            '(' => depth += 1,
            ')' => depth -= 1,
            ';' => return Err("contains `;`; it must be one query".to_owned()),
            '{' | '}' => return Err(format!("contains `{character}`; placeholders cannot be used")),
            _ => {}
        }
        if !glued.is_empty() {
            words.push(glued.to_ascii_uppercase());
        }
        if depth < 0 {
            return Err("has a `)` without its `(`".to_owned());
        }
    }
    words.push(word.to_ascii_uppercase());
    if depth > 0 {
        return Err("has a `(` without its `)`".to_owned());
    }
    for forbidden in ["LIMIT", "OFFSET"] {
        // A number ends where a letter follows that it cannot have: `5LIMIT` are two words.
        let is_number = |word: &str| word.starts_with(|first: char| first.is_ascii_digit());
        if words.iter().any(|word| word == forbidden || (is_number(word) && word.ends_with(forbidden))) {
            return Err(format!("contains {forbidden}; leave it out, since the connector reads page by page itself"));
        }
    }
    match words.iter().find(|word| !word.is_empty()).map(String::as_str) {
        Some("SELECT" | "WITH") => Ok(()),
        _ => Err("must begin with SELECT".to_owned()),
    }
}

fn skip_quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, quote: char) -> Result<(), String> {
    while let Some(character) = rest.next() {
        if character == '\\' {
            rest.next();
        } else if character == quote {
            return Ok(());
        }
    }
    Err(format!("has a {quote} without its end"))
}

/// The stream of a query whose columns and types the server has told.
///
/// # Errors
/// A config error when key or cursor are not among the columns, or a column cannot be addressed.
pub fn stream(query: &CustomQuery, described: &[(String, String)]) -> Result<&'static Keyed, Error> {
    let problem = |text: String| Error::config(format!("the custom query `{}` {text}", query.name));
    let mut columns: Vec<Column> = Vec::new();
    for (name, kind) in described {
        if name.contains(['`', '\\']) || name.is_empty() {
            return Err(problem(format!(
                "has the column `{name}`, whose name cannot be used; give it a simple one with AS"
            )));
        }
        if name == super::table::PROJECT_FIELD {
            return Err(problem(
                "has a column `project_id`, which the connector adds itself; give it another name with AS".to_owned(),
            ));
        }
        if columns.iter().any(|known| known.field == name) {
            return Err(problem(format!("has two columns `{name}`; give one another name with AS")));
        }
        columns.push(Column {
            field: for_ever(name.clone()),
            expression: Some(for_ever(format!("q.`{name}`"))),
            exported: Exported::Nowhere,
            kind: kind_of(kind),
            description: for_ever(format!("Of the type {kind} in PostHog.")),
        });
    }
    let names = || described.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    for (field, setting) in query
        .primary_key
        .iter()
        .map(|field| (field, "primary_key"))
        .chain(query.cursor_field.iter().map(|field| (field, "cursor_field")))
    {
        if columns.iter().all(|column| column.field != field) {
            return Err(problem(format!("has no column `{field}`, which `{setting}` names; it has {}", names())));
        }
    }
    if let Some(cursor) = &query.cursor_field {
        let kind = columns.iter().find(|column| column.field == cursor).map(|column| column.kind);
        if !matches!(kind, Some(Kind::Timestamp | Kind::Date | Kind::Integer)) {
            return Err(problem(format!(
                "cannot use `{cursor}` as `cursor_field`; it must be a time, a date or a whole number"
            )));
        }
    }
    let key: Vec<&'static str> = query.primary_key.iter().map(|field| for_ever(field.clone())).collect();
    let part = Part { from: for_ever(format!("({}\n) AS q", query.query)), label: None, optional: false };
    Ok(Box::leak(Box::new(Keyed {
        stream: for_ever(query.name.clone()),
        parts: Box::leak(Box::new([part])),
        columns: columns.leak(),
        key: key.leak(),
        cursor: query.cursor_field.clone().map(for_ever),
        key_must_be_unique: true,
    })))
}

/// Streams live as long as the program; so do the few texts of those that the user has made.
fn for_ever(text: String) -> &'static str {
    text.leak()
}

/// What a ClickHouse type becomes.
fn kind_of(mut kind: &str) -> Kind {
    // No recursion, however deep a server nests them.
    while let Some(inner) = inside(kind, "Nullable").or_else(|| inside(kind, "LowCardinality")) {
        kind = inner;
    }
    let name = kind.split('(').next().unwrap_or(kind);
    match name {
        "String" | "FixedString" | "UUID" | "Enum8" | "Enum16" | "IPv4" | "IPv6" => Kind::Text,
        "DateTime" | "DateTime64" => Kind::Timestamp,
        "Date" | "Date32" => Kind::Date,
        "Bool" => Kind::Boolean,
        "Array" => Kind::List,
        _ if name.starts_with("Int") || name.starts_with("UInt") => Kind::Integer,
        _ if name.starts_with("Float") || name.starts_with("Decimal") => Kind::Number,
        _ => Kind::Any,
    }
}

/// What is between the parentheses of the type with this name.
fn inside<'k>(kind: &'k str, name: &str) -> Option<&'k str> {
    kind.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_several_queries_are_refused() {
        for (query, expected) in [
            ("SELECT event FROM events LIMIT 5", "LIMIT"),
            ("select event from events limit 5 offset 6", "LIMIT"),
            ("SELECT 1 FROM (SELECT 2 FROM events OFFSET 1)", "OFFSET"),
            ("SELECT 1; SELECT 2", "`;`"),
            ("SELECT 1) UNION ALL (SELECT 2", "`)`"),
            ("SELECT (1", "`(`"),
            ("SELECT 'a", "'"),
            ("SELECT {x}", "`{`"),
            ("SELECT 1 /* never", "comment"),
            ("DROP TABLE events", "SELECT"),
            ("", "SELECT"),
            ("SELECT 1 WHERE 1=5LIMIT 3", "LIMIT"),
            // A comment ends with a carriage return, too, and may begin with two slashes.
            ("SELECT 1 -- x\r) UNION ALL (SELECT 2", "`)`"),
            ("SELECT 1 // '\n) UNION ALL (SELECT 2 // '", "`)`"),
            // What would be outside of quotes is inside of a template or of a tag, and the reverse.
            ("SELECT f'{'(' }') UNION ALL (SELECT '1'", "template"),
            ("SELECT F'{", "template"),
            ("SELECT <a>'</a>) UNION ALL (SELECT '1'", "tag"),
            ("SELECT 1 }", "`}`"),
        ] {
            let problem = check_text(query).unwrap_err();
            assert!(problem.contains(expected), "{query}: {problem}");
        }
        for query in [
            "SELECT 'LIMIT 5; )' AS `limit 1`, \"offset\", x -- LIMIT ( in a comment\nFROM events",
            "/* LIMIT */ WITH a AS (SELECT 1) SELECT limits, 'it\\'s' FROM a",
            " \n select properties.$browser, count() from events group by 1",
            "SELECT a / b, a < b, a <= 'f', if(x, 'a', 'b') FROM t // it's (a comment",
        ] {
            check_text(query).unwrap();
        }
    }

    #[test]
    fn types_become_schemas() {
        for (kind, expected) in [
            ("Nullable(String)", Kind::Text),
            ("LowCardinality(Nullable(String))", Kind::Text),
            ("DateTime64(6, 'UTC')", Kind::Timestamp),
            ("Nullable(DateTime64(3, 'Europe/Berlin'))", Kind::Timestamp),
            ("UInt64", Kind::Integer),
            ("Nullable(Float64)", Kind::Number),
            ("Decimal(10, 2)", Kind::Number),
            ("Array(Tuple(String, UInt8))", Kind::List),
            ("Map(String, String)", Kind::Any),
            ("Date", Kind::Date),
            ("Bool", Kind::Boolean),
        ] {
            assert_eq!(kind_of(kind), expected, "{kind}");
        }
        let deep = format!("{}Date{}", "Nullable(".repeat(1_000_000), ")".repeat(1_000_000));
        assert_eq!(kind_of(&deep), Kind::Date);
    }
}
