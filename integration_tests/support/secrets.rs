//! Everything that a program prints is searched for the secrets that the tests give it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// An API key whose characters change in every notation.
pub(crate) const AWKWARD_KEY: &str = r#"phx_pl4nted/"+\k%y"#;
/// A token that the destination sends.
pub(crate) const BEARER: &str = "pl4nted/bearer+t0ken";
/// Key of signatures, and its base64 as `signing_secret` has it.
pub(crate) const SIGNING_KEY: &str = "pl4nted signing k3y";
/// The end of the webhook's address.
pub(crate) const WEBHOOK: &str = "wh-sandbox-secret";
/// Value of a header of the user's.
pub(crate) const HEADER: &str = "pl4nted-header-value";
/// What properties are hashed with.
pub(crate) const HASH_KEY: &str = "pl4nted/hash k3y+";
/// What the proxy wants to hear.
pub(crate) const PROXY_PASSWORD: &str = "pl4nted@pr0xy:p/ssword";
/// What it hears when the user is mistaken.
pub(crate) const WRONG_PROXY_PASSWORD: &str = "pl4nted-wr0ng-password";

/// All secrets that tests may use.
const PLANTED: &[&str] = &[
    "phx_full",
    "phx_query",
    "phx_project",
    "phx_scoped",
    "phx_nothing",
    "phx_noquery",
    "phx_export",
    "phx_wrong",
    "phc_token",
    AWKWARD_KEY,
    BEARER,
    SIGNING_KEY,
    WEBHOOK,
    HEADER,
    HASH_KEY,
    PROXY_PASSWORD,
    WRONG_PROXY_PASSWORD,
    "wh_pl4nted-slash",
    "T0PL4NTED",
    "QPL4NTED",
    "plantedword",
    "pl4nted%20space",
    "/k9pl4",
    "pl4nted-part.of-it",
    // Parts of headers.
    "dXNlcm5hbWU6cGw0bnRlZHB3",
    "username:pl4ntedpw",
    "pl4ntedpw",
    "SESSPL4NTED",
    "KKKPL4NTED",
    // The part of a signed address that makes it one.
    "X-Amz-Signature",
];

/// Every notation in which a secret would still be one.
fn notations(secret: &str) -> BTreeSet<Vec<u8>> {
    let json = Value::from(secret).to_string();
    let percent = |keep: &str| -> String {
        let encoded = |character: char| match character {
            kept if kept.is_ascii_alphanumeric() || keep.contains(kept) => kept.to_string(),
            other => format!("%{:02X}", u32::from(other)),
        };
        secret.chars().map(encoded).collect()
    };
    let mut notations: BTreeSet<Vec<u8>> = [
        secret.to_owned(),
        json.trim_matches('"').to_owned(),
        percent("-._~"),
        percent("-._~/"),
        percent("-._~/:+@!$&'()*,;="),
        percent("").to_lowercase(),
        secret.bytes().map(|byte| format!("\\u{byte:04x}")).collect(),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect();
    // Where the secret begins inside a longer text decides its base64; the first and the last
    // characters depend on what is around.
    for (before, skip) in [(0, 0), (1, 2), (2, 3)] {
        let padded = [&vec![0; before], secret.as_bytes()].concat();
        let whole = padded.len() * 8 / 6;
        for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
            notations.insert(encoded.as_bytes()[skip..whole].to_vec());
        }
    }
    notations
}

static SEARCH: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let notations: BTreeSet<Vec<u8>> = PLANTED.iter().flat_map(|secret| notations(secret)).collect();
    AhoCorasick::new(notations).unwrap()
});

/// Searches a text that comes in pieces.
#[derive(Default)]
pub(crate) struct Search {
    /// The end of what came before, which could be the beginning of a secret.
    tail: Vec<u8>,
}

impl Search {
    /// Fails if this piece, together with what came before, contains a secret.
    pub(crate) fn piece(&mut self, piece: &[u8]) {
        // Alone first: it can be large, and copying it is not needed.
        assert_none(piece);
        let longest = SEARCH.max_pattern_len();
        self.tail.extend_from_slice(&piece[..piece.len().min(longest)]);
        assert_none(&self.tail);
        if piece.len() >= longest {
            self.tail = piece[piece.len() - longest..].to_vec();
        } else {
            let from = self.tail.len().saturating_sub(longest);
            self.tail.drain(..from);
        }
    }
}

/// Fails if the text contains a secret.
pub(crate) fn assert_none(text: &[u8]) {
    if let Some(found) = SEARCH.find(text) {
        let around = &text[found.start().saturating_sub(300)..text.len().min(found.end() + 100)];
        panic!("a secret was printed: {}", String::from_utf8_lossy(around));
    }
}

/// Fails if a test uses a secret that is not searched for.
pub(crate) fn assert_planted(secret: &str) {
    let known = SEARCH.is_match(secret);
    assert!(known, "list `{secret}` in support/secrets.rs, so that it is searched for");
}

#[test]
fn secrets_are_found_in_every_notation() {
    let found = |text: &str| std::panic::catch_unwind(|| assert_none(text.as_bytes())).is_err();
    let basic = STANDARD_NO_PAD.encode(format!("user:{PROXY_PASSWORD}"));
    for text in [
        "Bearer phx_full".to_owned(),
        serde_json::json!({"key": AWKWARD_KEY}).to_string(),
        format!("{:?}", format!("Basic {basic}")),
        url::form_urlencoded::byte_serialize(PROXY_PASSWORD.as_bytes()).collect(),
        STANDARD_NO_PAD.encode(format!("-{WEBHOOK}-")),
        URL_SAFE_NO_PAD.encode(format!("--{AWKWARD_KEY}--")),
        "https://bucket.example/file?X-Amz-Signature=0".to_owned(),
    ] {
        assert!(found(&text), "{text}");
    }
    assert!(!found("no secret here: phx_, api_key, [secret]"));
    let split = std::panic::catch_unwind(|| {
        let mut search = Search::default();
        for piece in ["nothing yet, p", "hx", "_fu", "ll, and more"] {
            search.piece(piece.as_bytes());
        }
    });
    assert!(split.is_err(), "a secret was missed that came in pieces");
}
