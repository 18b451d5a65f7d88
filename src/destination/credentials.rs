//! Tokens and secrets in the forms in which people paste them.
//!
//! What is plainly meant is taken; what cannot be right is named before a request is sent. Messages never
//! quote the secret.

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine as _};

use crate::error::Error;
use crate::secret::{SHORTEST, Secret};

const ANY_PADDING: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);
/// Quotation marks of keyboards and of text programs.
const QUOTATION_MARKS: [char; 8] = ['"', '\'', '`', '\u{201c}', '\u{201d}', '\u{201e}', '\u{2018}', '\u{2019}'];
/// Characters without a width, which web pages leave in what is copied from them.
const INVISIBLE: [char; 4] = ['\u{feff}', '\u{200b}', '\u{2060}', '\u{a0}'];

/// Names of schemes that stand in front of what proves who is asking.
const SCHEMES: [&str; 12] = [
    "apikey",
    "api-key",
    "aws4-hmac-sha256",
    "basic",
    "bearer",
    "digest",
    "geniekey",
    "negotiate",
    "oauth",
    "sharedaccesssignature",
    "signature",
    "token",
];

/// All that could be secret in a header's value, besides the whole: its words, what they set, and whom `Basic` names.
pub(super) fn parts_of_header(value: &str) -> Vec<String> {
    let mut words =
        value.split(|character: char| character.is_whitespace() || matches!(character, ';' | ',')).peekable();
    let scheme = words.next_if(|word| SCHEMES.iter().any(|scheme| scheme.eq_ignore_ascii_case(word)));
    let mut parts = Vec::new();
    for word in words {
        let set = word.split_once('=').map_or("", |(_, set)| set);
        // The signs of equality at the end of base64 are often left out.
        let bare = [word, set].map(|part| part.trim_matches(QUOTATION_MARKS).trim_end_matches('='));
        parts.extend([word, set].into_iter().chain(bare).map(str::to_owned));
        if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic"))
            && let Some(pair) = decoded(word)
        {
            let pair = String::from_utf8_lossy(&pair).into_owned();
            let (user, password) = pair.split_once(':').unwrap_or_default();
            parts.extend([user, password].map(str::to_owned));
            parts.push(pair);
        }
    }
    parts.retain(|part| part.len() >= SHORTEST);
    parts.sort();
    parts.dedup();
    parts
}

/// What a text is in base64, in either alphabet.
fn decoded(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

/// The text without quotation marks and what cannot be seen around it.
pub(super) fn unquoted(secret: &Secret) -> Secret {
    let is_around = |character: char| {
        character.is_whitespace() || QUOTATION_MARKS.contains(&character) || INVISIBLE.contains(&character)
    };
    Secret::new(secret.expose().trim_matches(is_around))
}

/// The token that goes behind `Bearer `.
///
/// # Errors
/// A config error when it cannot be a token.
pub(super) fn bearer_token(secret: &Secret) -> Result<Secret, Error> {
    let text = unquoted(secret);
    let mut token = text.expose();
    for word in ["authorization:", "bearer"] {
        while let Some(rest) = without_word(token, word) {
            token = rest;
        }
    }
    let token = unquoted(&Secret::new(token));
    let wrong = |what: &str| Err(Error::config(format!("`bearer_token` {what}; copy only the token")));
    match token.expose() {
        "" => wrong("is empty"),
        text if without_word(text, "basic").is_some() => Err(Error::config(
            "`bearer_token` begins with `Basic`; remove it, and add an `Authorization` header to `headers`",
        )),
        text if text.chars().any(|character| character.is_whitespace() || character.is_control()) => {
            wrong("contains a space or a line break")
        }
        text if !text.is_ascii() => {
            wrong("contains non-ASCII characters, such as the dots shown in place of a hidden token")
        }
        _ => Ok(token),
    }
}

/// The rest after a word, in any case, that is followed by a space or ends with a colon.
fn without_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (begin, rest) = text.split_at_checked(word.len())?;
    let is_separate = word.ends_with(':') || rest.starts_with([' ', '\t', '\r', '\n', ':']) || rest.is_empty();
    (begin.eq_ignore_ascii_case(word) && is_separate).then(|| rest.trim_start_matches([' ', '\t', '\r', '\n', ':']))
}

/// The key of a signing secret: the decoded base64 behind `whsec_`, or the text itself.
///
/// # Errors
/// A config error when it cannot be a secret.
pub(super) fn signing_key(secret: &Secret) -> Result<Vec<u8>, Error> {
    let text = unquoted(secret);
    let wrong = |what: &str| Err(Error::config(format!("`signing_secret` {what}")));
    // Supabase shows it with the version of the signature.
    let text = text.expose();
    let (version, rest) = match text.split_once(',') {
        Some((version @ ("v1" | "V1"), rest)) => (Some(version), rest.trim_start()),
        _ => (None, text),
    };
    let prefix = rest.get(..6).unwrap_or_default();
    if prefix.eq_ignore_ascii_case("whsec_") {
        let encoded: String = rest.chars().skip(6).filter(|character| !character.is_whitespace()).collect();
        // The bytes are as secret as their notation.
        let encoded = Secret::new(&encoded);
        if encoded.expose().contains("whsec_") {
            return wrong("contains two secrets; set the one that the receiver verifies");
        }
        return match decoded(encoded.expose()) {
            Some(key) if key.is_empty() => wrong("is only the beginning of a secret; copy all of it"),
            Some(key) => Ok(key),
            None => wrong("begins with `whsec_`, but the rest is not base64; copy it again"),
        };
    }
    match rest {
        "" => wrong("is empty; copy it again"),
        _ if version.is_some() => {
            wrong("begins with `v1,` like a signature; copy the secret, which begins with `whsec_`")
        }
        _ if prefix.starts_with("whsk_") || prefix.starts_with("whpk_") => {
            wrong("is a key for asymmetric signatures, which are not supported; use one that begins with `whsec_`")
        }
        _ if rest.chars().any(char::is_control) => wrong("contains a line break; copy it again"),
        _ => Ok(rest.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_taken_in_the_forms_in_which_they_are_pasted() {
        for pasted in [
            "t0k3n-1",
            " t0k3n-1\r\n",
            "\"t0k3n-1\"",
            "\u{201c}t0k3n-1\u{201d}",
            "\u{feff}t0k3n-1\u{200b}",
            "Bearer t0k3n-1",
            "bearer  t0k3n-1",
            "Bearer: t0k3n-1",
            "Bearer Bearer t0k3n-1",
            "Authorization: Bearer t0k3n-1",
            "'Authorization: Bearer t0k3n-1'",
            "Bearer \"t0k3n-1\"",
        ] {
            assert_eq!(bearer_token(&Secret::new(pasted)).unwrap().expose(), "t0k3n-1", "{pasted}");
        }
        assert_eq!(bearer_token(&Secret::new("bearer-t0k3n")).unwrap().expose(), "bearer-t0k3n");
        for wrong in [
            "Bearer",
            "\"\"",
            "t0k3n 1",
            "t0k\n3n-1",
            "Basic dXNlcjp0MGszbi0x",
            "t0k3\u{2026}",
            "\u{2022}\u{2022}\u{2022}",
        ] {
            let error = bearer_token(&Secret::new(wrong)).unwrap_err();
            assert!(error.message().starts_with("`bearer_token`") && !error.message().contains("t0k"), "{error}");
        }
    }

    #[test]
    fn headers_are_secret_part_by_part() {
        for (value, expected) in [
            (
                "Basic dXNlcm5hbWU6cGFzc3dvcmQxMjM=",
                vec![
                    "dXNlcm5hbWU6cGFzc3dvcmQxMjM",
                    "dXNlcm5hbWU6cGFzc3dvcmQxMjM=",
                    "password123",
                    "username",
                    "username:password123",
                ],
            ),
            ("bearer t0k3n-1", vec!["t0k3n-1"]),
            ("session=SESS112233; a=1;other=x", vec!["SESS112233", "other=x", "session=SESS112233"]),
            (
                r#"Digest a="b",key="KKK998877""#,
                vec!["KKK998877", "\"KKK998877\"", "key=\"KKK998877", "key=\"KKK998877\""],
            ),
            ("Basic", vec![]),
            ("Basic !", vec![]),
            ("short ones, 1;2", vec![]),
        ] {
            let mut expected = expected;
            expected.sort_unstable();
            assert_eq!(parts_of_header(value), expected, "{value}");
        }
    }

    #[test]
    fn signing_secrets_are_taken_in_the_forms_in_which_they_are_shown() {
        for pasted in [
            "whsec_c2VjcmV0ISE+Pw==",
            "whsec_c2VjcmV0ISE+Pw",
            "whsec_c2VjcmV0ISE-Pw",
            "WHSEC_c2VjcmV0ISE+Pw==",
            "v1,whsec_c2VjcmV0ISE+Pw==",
            "\"whsec_c2VjcmV0ISE+Pw==\"",
            "whsec_c2Vj\ncmV0ISE+Pw==",
            " whsec_c2VjcmV0ISE+Pw==\n",
            "secret!!>?",
            "'secret!!>?'",
        ] {
            assert_eq!(signing_key(&Secret::new(pasted)).unwrap(), b"secret!!>?", "{pasted}");
        }
        for wrong in [
            "whsec_",
            "whsec_!",
            "whsec_c2Vjc*mV0",
            "whsec_c2VjcmV0 whsec_c2VjcmV0",
            "v1,c2VjcmV0c2lnbmF0dXJl",
            "whsk_c2VjcmV0",
            "whpk_c2VjcmV0",
            "sec\nret",
            "''",
        ] {
            let error = signing_key(&Secret::new(wrong)).unwrap_err();
            assert!(error.message().starts_with("`signing_secret`") && !error.message().contains("c2V"), "{error}");
        }
    }
}
