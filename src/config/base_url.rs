//! The URL of a `PostHog` instance, in the many ways in which people write it.

use url::Url;

use crate::net::is_loopback;

/// URL of PostHog Cloud US, the default.
pub(super) const DEFAULT: &str = "https://us.posthog.com";

/// Turns what the user wrote into the root URL of the private API.
///
/// A missing scheme becomes https; trailing slashes, `/api` and everything after `/project/` in a
/// copied page URL are removed; `app.posthog.com` and the ingestion hosts become the host of the same
/// region, because redirects would cost the API key.
///
/// # Errors
/// A sentence describing the problem and what to write instead. It does not quote the text, which can be a
/// secret.
pub(super) fn normalise(text: &str, allow_http: bool) -> Result<Url, String> {
    let text = text.trim_matches(|character: char| character.is_whitespace() || matches!(character, '"' | '\'' | '`'));
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let mut url =
        Url::parse(&with_scheme).map_err(|error| format!("is not a valid URL ({error}); write it like {DEFAULT}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a user name or a password; only the API key is used to log in".to_owned());
    }
    match url.scheme() {
        "https" => {}
        "http" if allow_http || is_loopback(&url) => {}
        "http" => {
            return Err(
                "is not encrypted; write https://, or set `allow_http` to true to send the API key in the clear"
                    .to_owned(),
            );
        }
        _ => return Err(format!("does not begin with https://; write it like {DEFAULT}")),
    }
    let replacement = match url.host_str() {
        Some(
            "app.posthog.com"
            | "posthog.com"
            | "www.posthog.com"
            | "us.i.posthog.com"
            | "us-assets.i.posthog.com"
            | "i.posthog.com",
        ) => Some("us.posthog.com"),
        Some("eu.i.posthog.com" | "eu-assets.i.posthog.com") => Some("eu.posthog.com"),
        _ => None,
    };
    if let Some(host) = replacement {
        url.set_host(Some(host)).map_err(|error| error.to_string())?;
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/');
    let path = path.split("/project/").next().unwrap_or(path);
    let path = path.strip_suffix("/api").unwrap_or(path).to_owned();
    url.set_path(&format!("{}/", path.trim_end_matches('/')));
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_in_usual_notations_are_accepted() {
        for (text, expected) in [
            ("https://us.posthog.com", "https://us.posthog.com/"),
            ("https://eu.posthog.com/", "https://eu.posthog.com/"),
            ("https://app.posthog.com", "https://us.posthog.com/"),
            ("https://eu.i.posthog.com", "https://eu.posthog.com/"),
            ("eu.posthog.com/api/", "https://eu.posthog.com/"),
            ("https://us.posthog.com/project/12345/insights", "https://us.posthog.com/"),
            (" https://example.com/posthog/api ", "https://example.com/posthog/"),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000/"),
            ("http://localhost:8000/", "http://localhost:8000/"),
            ("\"https://eu.posthog.com\"\n", "https://eu.posthog.com/"),
        ] {
            assert_eq!(normalise(text, false).unwrap().as_str(), expected, "{text}");
        }
        assert_eq!(normalise("http://posthog.internal", true).unwrap().as_str(), "http://posthog.internal/");
    }

    #[test]
    fn urls_that_would_leak_the_key_are_rejected() {
        assert!(normalise("http://posthog.internal", false).unwrap_err().contains("allow_http"));
        assert!(normalise("ftp://example.com", false).unwrap_err().contains("https://"));
        assert!(normalise("https://user:pass@example.com", false).unwrap_err().contains("password"));
        assert!(normalise("", false).is_err());
        let error = normalise("https://user:s3cret@exa mple", false).unwrap_err();
        assert!(error.contains("not a valid URL") && !error.contains("s3cret"), "{error}");
    }
}
