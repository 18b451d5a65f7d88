//! The webhook's URL, which is also its password.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

use super::credentials::unquoted;
use crate::error::Error;
use crate::net::is_loopback;
use crate::secret::{Needle, SHORTEST, Secret, notations, redact_with, remember};

/// Longer parts of a URL are not words.
const LONGEST_WORD: usize = 16;

/// A URL of which only scheme and host can be printed.
#[derive(Clone)]
pub(super) struct WebhookUrl {
    url: Url,
    /// What could be secret in it and in the headers, in every notation.
    parts: Vec<Needle>,
}

impl WebhookUrl {
    /// Reads the URL and keeps its parts out of all output.
    ///
    /// # Errors
    /// A config error when it is none, or not encrypted. The text is a secret, so messages do not quote it.
    pub(super) fn new(text: &Secret, allow_http: bool) -> Result<Self, Error> {
        let text = unquoted(text);
        let url = Url::parse(text.expose().trim_start_matches('<').trim_end_matches('>')).map_err(|error| {
            Error::config(format!("`webhook_url` is not a valid URL ({error}); copy it from the webhook node"))
        })?;
        let parts = needles(&secrets(&url), is_word);
        match url.scheme() {
            "https" => Ok(Self { url, parts }),
            "http" if allow_http || is_loopback(&url) => Ok(Self { url, parts }),
            "http" => Err(Error::config("`webhook_url` is not encrypted; use https://, or set `allow_http` to true")),
            _ => Err(Error::config("`webhook_url` does not begin with https://; copy it from the webhook node")),
        }
    }

    /// Keeps parts of headers out of all output, too.
    pub(super) fn with_header_parts(mut self, parts: &[String]) -> Self {
        self.parts.extend(needles(parts, is_word_in_header));
        self
    }

    /// The URL itself, for the one place that sends requests to it.
    pub(super) fn expose(&self) -> &Url {
        &self.url
    }

    /// What the webhook says, without secrets. It may quote any part of its URL and of the headers, be it only
    /// a word.
    pub(super) fn redact(&self, text: &str) -> String {
        redact_with(text, &self.parts).into_owned()
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}/…", self.url.scheme(), self.url.host_str().unwrap_or_default())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// All that could be secret in a URL: as a whole and part by part, as it is and decoded.
fn secrets(url: &Url) -> Vec<String> {
    let (user, password) = (url.username(), url.password().unwrap_or_default());
    let query = url.query().unwrap_or_default();
    let pairs = query.split('&').flat_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or(("", pair));
        // Without a name, the value is all there is.
        [if value.is_empty() { name } else { "" }, value]
    });
    let whole = [url.path(), query, url.fragment().unwrap_or_default(), user, password];
    let encoded = whole.into_iter().chain(url.path().split('/')).chain(pairs);
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let forms = |part: &str| [part.to_owned(), decoded(part), decoded(&part.replace('+', " "))];
    let mut secrets: Vec<String> = encoded.flat_map(forms).collect();
    if url.has_authority() && !(user.is_empty() && password.is_empty()) {
        // Sent as base64.
        secrets.push(format!("{}:{}", decoded(user), decoded(password)));
    }
    secrets.retain(|secret| !secret.is_empty() && secret != "/");
    secrets.sort();
    secrets.dedup();
    secrets
}

/// Keeps secrets out of all output, and returns what to look for in what the webhook says.
fn needles(secrets: &[String], is_word: fn(&str) -> bool) -> Vec<Needle> {
    // Of all output, only what is no plain word: without the word `webhook`, no message could be read.
    secrets.iter().filter(|part| !is_word(part)).for_each(|part| remember(part));
    // What is short or a word counts only where it stands alone.
    let needle = |notation: String| Needle::new(&notation, notation.len() < SHORTEST || is_word(&notation));
    let notations = secrets.iter().flat_map(|part| notations(part)).filter(|notation| !notation.is_empty());
    notations.map(needle).collect()
}

/// `webhook` is an ordinary word, `wh1234` is none.
fn is_word(part: &str) -> bool {
    part.len() < LONGEST_WORD && part.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// In a header, `Europe` is one, too.
fn is_word_in_header(part: &str) -> bool {
    let mut characters = part.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic()) && is_word(characters.as_str())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;
    use crate::secret::{REDACTED, redact};

    fn url(text: &str) -> WebhookUrl {
        WebhookUrl::new(&Secret::new(text), false).unwrap()
    }

    #[test]
    fn every_part_that_is_quoted_is_redacted() {
        let url = url("https://us%65r:pa%20ss@e.com/hooks/T0AAA/run/abcdefg/k9/%C3%A9t%C3%A9/?token=Q1&v=1&flag#frag9");
        for part in [
            "hooks",
            "T0AAA",
            "run",
            "abcdefg",
            "k9",
            "%C3%A9t%C3%A9",
            "été",
            "Q1",
            "1",
            "flag",
            "frag9",
            "us%65r",
            "user",
            "pa%20ss",
            "pa ss",
            "/hooks/T0AAA/run/abcdefg/k9/%C3%A9t%C3%A9/",
            "token=Q1&v=1&flag",
            "pa+ss",
        ] {
            assert_eq!(url.redact(&format!("no <{part}>, sorry")), "no <[secret]>, sorry", "{part}");
        }
        let basic = STANDARD.encode("user:pa ss");
        assert!(!url.redact(&format!("Basic {basic}")).contains(basic.get(..6).unwrap()));
        for before in ["", "x", "xy"] {
            let quoted = URL_SAFE_NO_PAD.encode(format!("{before}abcdefg/"));
            assert!(url.redact(&quoted).contains(REDACTED), "{quoted}");
        }
        assert_eq!(url.redact("110 running abcdefghi"), "110 running abcdefghi", "words count where they stand alone");
    }

    #[test]
    fn other_output_stays_readable() {
        url("https://e.com/api/app/webhooks/wh_m4d3up/");
        assert_eq!(redact("webhooks: /webhooks/wh_m4d3up of the app"), "webhooks: /webhooks/[secret] of the app");
    }
}
