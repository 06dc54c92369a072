//! What flows never show, and what they show only if told to (specs/policies.md 3.4, redaction): users and
//! passwords in URLs, tokens in queries, headers that nobody named.

use http::header::HeaderName;

use super::messages::HttpHeader;

/// What stands in place of what is not shown; Hubble's word.
pub const REDACTED: &str = "HUBBLE_REDACTED";

/// Query parameters that hold a token (RFC 6750 2.3; OpenID Connect).
const TOKEN_PARAMETERS: [&str; 4] = ["access_token", "id_token", "refresh_token", "token"];

/// What is shown.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    /// Leave queries out.
    pub queries: bool,
    /// Headers whose values are shown; of others that are recorded the name alone is.
    pub headers: Vec<HeaderName>,
}

impl Redaction {
    /// The URL of a request: authority and path as the client sent them.
    pub fn url(&self, authority: &str, path: &str) -> String {
        let mut url = String::with_capacity(8 + authority.len() + path.len());
        url.push_str("http://");
        match authority.rsplit_once('@') {
            // Refused with 400, and told all the same.
            Some((user, host)) => {
                let name = user.split(':').next().unwrap_or_default();
                url.push_str(name);
                url.push(':');
                url.push_str(REDACTED);
                url.push('@');
                url.push_str(host);
            }
            None => url.push_str(authority),
        }
        let Some((before, query)) = path.split_once('?') else {
            url.push_str(path);
            return url;
        };
        url.push_str(before);
        if !self.queries {
            let parameters = query.split('&').map(without_token);
            let mut separator = '?';
            for (name, value) in parameters {
                url.push(separator);
                url.push_str(name);
                url.push_str(value);
                separator = '&';
            }
        }
        url
    }

    /// A header.
    pub fn header(&self, name: HeaderName, value: &[u8]) -> HttpHeader {
        let value = match self.headers.contains(&name) {
            true => String::from_utf8_lossy(value).into_owned(),
            false => REDACTED.to_owned(),
        };
        HttpHeader {
            key: name.to_string(),
            value,
        }
    }
}

/// A parameter as it may be shown, in two pieces.
fn without_token(parameter: &str) -> (&str, &str) {
    let Some(end) = parameter.find('=') else {
        return (parameter, "");
    };
    let (name, _) = parameter.split_at(end);
    // A name can be written with escapes, too.
    let decoded = form_urlencoded::parse(name.as_bytes()).next();
    let is_token = decoded
        .is_some_and(|(name, _)| TOKEN_PARAMETERS.contains(&name.to_ascii_lowercase().as_str()));
    match is_token {
        true => (parameter.split_at(end + 1).0, REDACTED),
        false => (parameter, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// specs/policies.md 3.4: user-info password, optional query.
    #[test]
    fn urls_show_no_password_and_no_token() {
        let shown = Redaction::default();
        let url = |path| shown.url("shop:80", path);
        assert_eq!(url("/a/b"), "http://shop:80/a/b");
        assert_eq!(url("/a?b=1&c"), "http://shop:80/a?b=1&c");
        assert_eq!(
            url("/a?access_token=s3cret&b=1"),
            "http://shop:80/a?access_token=HUBBLE_REDACTED&b=1"
        );
        assert_eq!(
            url("/a?b=1&Access%5Ftoken=s3cret"),
            "http://shop:80/a?b=1&Access%5Ftoken=HUBBLE_REDACTED"
        );
        assert_eq!(
            shown.url("bob:s3cret@shop", "/"),
            "http://bob:HUBBLE_REDACTED@shop/"
        );
        let without = Redaction {
            queries: true,
            ..Redaction::default()
        };
        assert_eq!(without.url("shop", "/a?b=1"), "http://shop/a");
    }

    #[test]
    fn headers_that_nobody_named_show_their_name_alone() {
        let redaction = Redaction {
            headers: vec![http::header::USER_AGENT],
            ..Redaction::default()
        };
        let value = b"curl";
        assert_eq!(
            redaction.header(http::header::USER_AGENT, value).value,
            "curl"
        );
        assert_eq!(
            redaction.header(http::header::COOKIE, value).value,
            REDACTED
        );
    }
}
