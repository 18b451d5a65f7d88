//! Text for people, also where a server wrote it.
//!
//! Messages quote servers, and a terminal obeys what it is sent: control characters move the cursor, set
//! the title or the clipboard, and others turn the direction of a text around. Nothing of that leaves
//! this program, and no server makes a message long enough to bury the others.

use crate::secret::redact;

/// Longer messages are cut, in characters.
const LONGEST: usize = 8_000;

/// The text without secrets, in one line, with `\u{fffd}` in place of what a terminal could obey.
pub(crate) fn plain(text: &str) -> String {
    // Cut in two, a secret would not be recognised any more.
    let text = redact(text);
    let mut characters = text.chars();
    let mut plain: String = characters.by_ref().take(LONGEST).map(shown).collect();
    if characters.next().is_some() {
        plain.push_str(" …");
    }
    plain
}

fn shown(character: char) -> char {
    match character {
        '\t' | '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
        _ if character.is_control() || turns_text_around(character) => char::REPLACEMENT_CHARACTER,
        _ => character,
    }
}

/// Marks, embeddings, overrides and isolates of the bidirectional algorithm.
fn turns_text_around(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_find_nothing_to_obey() {
        let hostile = "a\u{1b}]0;t\u{7}b\u{9b}2Jc\u{7f}d\u{202e}e\u{2066}f\r\n\tg\u{85}h\u{2028}i";
        assert_eq!(plain(hostile), "a�]0;t�b�2Jc�d�e�f   g h i");
        assert_eq!(plain("Zoë 🦔 «…»"), "Zoë 🦔 «…»");
        for character in '\0'..=char::MAX {
            let shown = shown(character);
            assert!(!shown.is_control() && !turns_text_around(shown), "{character:?}");
        }
    }

    #[test]
    fn long_texts_are_cut_after_secrets_are_removed() {
        crate::secret::Secret::new("pl41n-secret");
        let text = format!("{}pl41n-secret and more", "é".repeat(LONGEST - 3));
        assert_eq!(plain(&text), format!("{}[se …", "é".repeat(LONGEST - 3)));
        assert_eq!(plain(&"x".repeat(LONGEST)).len(), LONGEST);
    }
}
