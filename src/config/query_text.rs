//! Checks a custom query, or a condition on events.
//!
//! A query is wrapped as a table, `FROM (<query>) AS q`, and read like one. So it must be one whole
//! SELECT without LIMIT and OFFSET, and must not leave its parentheses. A semicolon at its end is dropped. Strings, names and comments
//! are read as `posthog/hogql/grammar/HogQLLexer.common.g4` does; the few things that would need more
//! than that are refused: templates (`f'…'`) and tags (`<a>…</a>`), inside of which quotes and
//! parentheses mean something else.
//!
//! A condition is wrapped as `(<condition>)`, so the same holds for it. It must not name anything with AS, because
//! `ClickHouse` would take the name for a column elsewhere in the query.

/// Checks everything about a query that can be checked without asking the server. Returns the query without a
/// semicolon at its end.
///
/// # Errors
/// A sentence describing the problem.
pub fn check_text(query: &str) -> Result<&str, String> {
    let Scanned { words, end, .. } = scan(query)?;
    for forbidden in ["LIMIT", "OFFSET"] {
        // A number ends where a letter follows that it cannot have: `5LIMIT` are two words.
        let is_number = |word: &str| word.starts_with(|first: char| first.is_ascii_digit());
        if words.iter().any(|word| word == forbidden || (is_number(word) && word.ends_with(forbidden))) {
            return Err(format!("contains {forbidden}; leave it out, since the connector reads page by page itself"));
        }
    }
    match words.iter().find(|word| !word.is_empty()).map(String::as_str) {
        Some("SELECT" | "WITH") => Ok(query.get(..end).unwrap_or(query)),
        _ => Err("must begin with SELECT".to_owned()),
    }
}

/// Checks everything about a condition that can be checked without asking the server.
///
/// # Errors
/// A sentence describing the problem.
pub fn check_condition(condition: &str) -> Result<(), String> {
    let Scanned { words, end, outermost, commas } = scan(condition)?;
    match words.iter().map(String::as_str).find(|word| matches!(*word, "AS" | "WHERE")) {
        Some("AS") => return Err("contains AS; a condition cannot name anything".to_owned()),
        Some(_) => return Err("contains WHERE; write the condition alone".to_owned()),
        None => {}
    }
    if end < condition.len() {
        return Err("contains `;`; it must be one condition".to_owned());
    }
    if words.iter().all(String::is_empty) {
        return Err("has no condition in it".to_owned());
    }
    if commas == Some(outermost) {
        return Err("is a list; it must be one condition, such as `event = 'a' AND properties.b = 1`".to_owned());
    }
    Ok(())
}

/// What a text consists of.
struct Scanned {
    /// Words outside of quotes and comments, in upper case.
    words: Vec<String>,
    /// Where it ends, without a semicolon and what is behind it.
    end: usize,
    /// In how many brackets its outermost parts are, and its outermost commas if there are any.
    outermost: i32,
    commas: Option<i32>,
}

fn scan(query: &str) -> Result<Scanned, String> {
    let mut words: Vec<String> = Vec::new();
    let mut depth = 0_i32;
    let mut rest = query.chars().peekable();
    let mut word = String::new();
    let mut end = query.len();
    let (mut lists, mut outermost, mut commas) = (0_i32, i32::MAX, None::<i32>);
    while let Some(character) = rest.next() {
        if !character.is_whitespace() && !"()[]".contains(character) {
            outermost = outermost.min(depth + lists);
        }
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
                skip_line(&mut rest);
            }
            '/' if rest.peek() == Some(&'*') => skip_comment(&mut rest)?,
            '<' if rest.peek().is_some_and(|next| next.is_alphabetic() || matches!(next, '_' | '/')) => {
                return Err(
                    "contains `<` in front of a name, which could be a tag; put a space between them".to_owned()
                );
            }
            '(' => depth += 1,
            ')' => depth -= 1,
            '[' => lists += 1,
            ']' => lists -= 1,
            ',' => commas = Some(commas.unwrap_or(i32::MAX).min(depth + lists)),
            ';' => {
                let behind: String = rest.clone().collect();
                if !is_blank(&behind) {
                    return Err("contains `;`; it must be one query".to_owned());
                }
                end -= behind.len() + 1;
                rest = "".chars().peekable();
            }
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
    Ok(Scanned { words, end, outermost, commas })
}

/// Whether only comments and semicolons are left.
fn is_blank(text: &str) -> bool {
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '-' | '/' if rest.peek() == Some(&character) => skip_line(&mut rest),
            '/' if rest.peek() == Some(&'*') => {
                if skip_comment(&mut rest).is_err() {
                    return false;
                }
            }
            ';' => {}
            _ if character.is_whitespace() => {}
            _ => return false,
        }
    }
    true
}

fn skip_line(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while rest.next_if(|next| !matches!(next, '\n' | '\r')).is_some() {}
}

/// Skips a comment of which the first slash has been read.
fn skip_comment(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<(), String> {
    rest.next();
    let mut previous = ' ';
    for next in rest.by_ref() {
        if next == '/' && previous == '*' {
            return Ok(());
        }
        previous = next;
    }
    Err("has a comment without an end".to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_stay_in_their_parentheses_and_name_nothing() {
        for (condition, expected) in [
            ("", "no condition"),
            (" -- nothing", "no condition"),
            ("1) OR (1", "`)`"),
            ("(1", "`(`"),
            ("event = 'a", "'"),
            ("event = {x}", "`{`"),
            ("1 = 1;", "`;`"),
            ("1 AS timestamp", "AS"),
            ("WHERE 1 = 1", "WHERE"),
            ("1 /* ", "comment"),
            ("event = 'a', properties.b", "list"),
            ("((event = 'a', 1))", "list"),
            ("[1, (2)]", "list"),
        ] {
            let problem = check_condition(condition).unwrap_err();
            assert!(problem.contains(expected), "{condition}: {problem}");
        }
        for condition in [
            "properties.plan = 'pro' AND NOT (event LIKE '$%' OR distinct_id = ')')",
            "properties.`as` > 5 -- (paid",
            "(event, distinct_id) IN (('a', 'b'), ('c', 'd'))",
            "(has(['a', 'b'], event)) OR event = ','",
        ] {
            assert_eq!(check_condition(condition), Ok(()), "{condition}");
        }
    }

    #[test]
    fn limits_and_several_queries_are_refused() {
        for (query, expected) in [
            ("SELECT event FROM events LIMIT 5", "LIMIT"),
            ("select event from events limit 5 offset 6", "LIMIT"),
            ("SELECT 1 FROM (SELECT 2 FROM events OFFSET 1)", "OFFSET"),
            ("SELECT 1; SELECT 2", "`;`"),
            ("SELECT 1; -- one\nSELECT 2", "`;`"),
            ("SELECT 1; /* never", "`;`"),
            ("SELECT (1;", "`(`"),
            (";", "SELECT"),
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
            assert_eq!(check_text(query), Ok(query));
        }
        for end in [";", " ;; ", ";-- by day", "; /* by; day */ // (\n;\n"] {
            let query = format!("SELECT ';' -- ;\n{end}");
            assert_eq!(check_text(&query).unwrap().trim_end(), "SELECT ';' -- ;", "{query}");
        }
    }
}
