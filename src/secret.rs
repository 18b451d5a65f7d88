//! Text that must not be printed.
//!
//! [`Secret`] keeps our own code from printing one. Others print them, too: a server that quotes the
//! request in its error page, or a library's trace. So every secret is remembered when it is made,
//! and `redact` removes it from all output of this process.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

/// Shorter texts are no secrets, and occur in ordinary words.
const SHORTEST: usize = 6;
pub(crate) const REDACTED: &str = "[secret]";

/// Longest first, since one can be part of another.
static KNOWN: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Keeps a secret, in every notation, out of all output of this process.
pub(crate) fn remember(secret: &str) {
    if secret.len() < SHORTEST {
        return;
    }
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    for notation in notations(secret) {
        if !known.contains(&notation) {
            known.push(notation);
        }
    }
    known.sort_by_key(|notation| Reverse(notation.len()));
}

/// A secret as it is, in JSON, in a form, and in base64 wherever it begins in the text that is encoded.
pub(crate) fn notations(secret: &str) -> Vec<String> {
    let json = serde_json::Value::from(secret).to_string();
    let json = json.get(1..json.len() - 1).unwrap_or_default().to_owned();
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let mut notations = vec![secret.to_owned(), json, form];
    // Characters of base64 that depend on what is around the secret are left out.
    for (before, skipped) in [(0, 0), (1, 2), (2, 3)] {
        let placed = [&vec![0; before], secret.as_bytes()].concat();
        let whole = placed.len() * 8 / 6;
        for encoded in [STANDARD_NO_PAD.encode(&placed), URL_SAFE_NO_PAD.encode(&placed)] {
            notations.extend(encoded.get(skipped..whole).map(str::to_owned));
        }
    }
    notations
}

/// The text with `[secret]` in place of every secret that is known.
pub(crate) fn redact(text: &str) -> Cow<'_, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let contained = known.iter().filter(|secret| text.contains(secret.as_str()));
    contained.fold(Cow::Borrowed(text), |text, secret| Cow::Owned(text.replace(secret.as_str(), REDACTED)))
}

/// A secret. `Debug` shows that there is one, nothing shows which; a form hides what is typed.
#[derive(Clone, PartialEq, Eq, JsonSchema)]
#[schemars(description = "", extend("airbyte_secret" = true))]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret; white space around it is a copy and paste accident and is removed.
    pub fn new(text: &str) -> Self {
        let text = text.trim();
        remember(text);
        Self(text.to_owned())
    }

    /// The secret itself, for the one place that has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The usual message of a type mismatch would quote the value.
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self::new(&text)),
            _ => Err(de::Error::custom("must be a text")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_redacted_in_every_notation() {
        let secret = Secret::new(r#" redact/"me"+now "#);
        let text = format!("{} {:?} redact%2F%22me%22%2Bnow {secret:?}", secret.expose(), secret.expose());
        assert_eq!(redact(&text), r#"[secret] "[secret]" [secret] [secret]"#);
        Secret::new("redact");
        assert_eq!(redact(r#"redact/"me"+now"#), "[secret]", "the longer one goes first");
        Secret::new("short");
        assert_eq!(redact("short texts stay"), "short texts stay");
    }

    #[test]
    fn secrets_are_redacted_in_base64_wherever_they_begin() {
        Secret::new("redact~these?");
        for before in ["", "u", "us", "user:", "user::"] {
            let text = format!("{before}redact~these? and more");
            for encoded in [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                assert!(redact(&encoded).contains(REDACTED), "{encoded}");
            }
        }
    }
}
