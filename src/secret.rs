//! Text that must not be printed.
//!
//! [`Secret`] keeps our own code from printing one. Others print them, too: a server that quotes the
//! request in its error page, or a library's trace. So every secret is remembered when it is made,
//! and `redact` removes it from all output of this process.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::{PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use crate::readings::Readings;

/// Shorter texts are no secrets, and occur in ordinary words.
pub(crate) const SHORTEST: usize = 6;
pub(crate) const REDACTED: &str = "[secret]";

/// All of them, in every notation.
static KNOWN: RwLock<Vec<Needle>> = RwLock::new(Vec::new());

/// A text that is to be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needle {
    /// In lower case, since servers also quote in capitals.
    text: Vec<u8>,
    /// Whether it is left out only where no letter or digit is next to it.
    must_stand_alone: bool,
}

impl Needle {
    pub(crate) fn new(text: &str, must_stand_alone: bool) -> Self {
        Self { text: text.as_bytes().to_ascii_lowercase(), must_stand_alone }
    }
}

/// Keeps a secret, in every notation, out of all output of this process.
pub(crate) fn remember(secret: &str) {
    if secret.len() < SHORTEST {
        return;
    }
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    for needle in notations(secret).iter().map(|notation| Needle::new(notation, false)) {
        if !known.contains(&needle) {
            known.push(needle);
        }
    }
}

/// A secret as it is, in JSON, in a form, in hexadecimal, and in base64 wherever it begins in the text that is
/// encoded. Notations of single characters are undone by [`Readings`].
pub(crate) fn notations(secret: &str) -> Vec<String> {
    let json = serde_json::Value::from(secret).to_string();
    let json = json.get(1..json.len() - 1).unwrap_or_default().to_owned();
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let hexadecimal = secret.bytes().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let mut notations = vec![secret.to_owned(), json, form, hexadecimal];
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
    redact_with(text, &[])
}

/// The same with more texts that are secret in this one.
pub(crate) fn redact_with<'t>(text: &'t str, more: &[Needle]) -> Cow<'t, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let readings = Readings::of(text);
    let mut places: Vec<Range<usize>> = Vec::new();
    for needle in known.iter().chain(more) {
        let found = readings.find(&needle.text).filter(|found| found.stands_alone || !needle.must_stand_alone);
        places.extend(found.map(|found| found.place));
    }
    if places.is_empty() {
        return Cow::Borrowed(text);
    }
    places.sort_by_key(|place| place.start);
    let (mut redacted, mut from) = (String::with_capacity(text.len()), 0);
    for place in places {
        // One secret can be a part of another, or overlap it.
        if place.start >= from {
            redacted.push_str(text.get(from..place.start).unwrap_or_default());
            redacted.push_str(REDACTED);
        }
        from = from.max(place.end);
    }
    redacted.push_str(text.get(from..).unwrap_or_default());
    Cow::Owned(redacted)
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
        for quoted in ["REDACT/&quot;me&#34;%2Bnow", "redact\\/\\u0022me%2522+Now", "7265646163742f226d65222b6e6f77"] {
            assert_eq!(redact(&format!("no {quoted}!")), "no [secret]!");
        }
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
