//! What no program may ever print, in whatever spelling.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// Keys of PostHog, the webhook's address, its token and signing secret, passwords of proxies.
const PLANTED: &[&str] = &[
    "phx_full",
    "phx_query",
    "phx_scoped",
    "phx_nothing",
    "phx_noquery",
    "phx_export",
    "phx_wrong",
    "phc_token",
    "wh-sandbox-secret",
    "t0ken",
    "c2lnbmluZw",
    "pr0xy-secret",
    "wr0ng-secret",
    // Whoever has a signed address can read the file.
    "X-Amz-Signature=",
];

/// Fails when a secret stands in what a program has printed.
pub(crate) fn assert_none(printed: &[u8]) {
    let printed = String::from_utf8_lossy(printed);
    for secret in PLANTED {
        for spelling in spellings(secret) {
            assert!(!printed.contains(&spelling), "the secret {secret} was printed as {spelling}: {printed}");
        }
    }
}

/// A secret as it is, percent-encoded, as JSON escapes, and in base64 at each offset.
fn spellings(secret: &str) -> Vec<String> {
    let encode = |format: fn(u8) -> String| secret.bytes().map(format).collect::<String>();
    let escaped =
        encode(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    let mut spellings =
        vec![secret.to_owned(), encode(|byte| format!("%{byte:02X}")), encode(|byte| format!("\\u{byte:04x}"))];
    if escaped != secret {
        spellings.push(escaped);
    }
    for before in ["", "x", "xx"] {
        for engine in [&STANDARD, &URL_SAFE_NO_PAD] {
            let text = engine.encode(format!("{before}{secret}"));
            // Only these characters depend on nothing but the secret.
            let (begin, end) = ((before.len() * 8).div_ceil(6), (before.len() + secret.len()) * 8 / 6);
            spellings.push(text.chars().take(end).skip(begin).collect());
        }
    }
    spellings
}

#[test]
fn every_spelling_is_found() {
    for text in
        ["a phx_full b", "phx%5Ffull", "%70%68%78%5F%66%75%6C%6C", &STANDARD.encode("Bearer wh-sandbox-secret!")]
    {
        assert!(std::panic::catch_unwind(|| assert_none(text.as_bytes())).is_err(), "{text}");
    }
    assert_none(b"phx_f phx_... c2lnbm wh-sandbox");
}
