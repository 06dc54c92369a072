//! CORS: whether an origin is allowed, the answer to a preflight, and what goes into the answers of
//! endpoints (specs/gateway-api.md 1.4, "CORS"; the Fetch standard, 3.3). Refuses nothing: a browser
//! does, for want of these headers.

use cairn_config_schema::snapshot::{
    Cors, HostPattern, Names, OriginPattern, TextMatch, default_port,
};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue, ORIGIN,
    VARY,
};
use http::{HeaderMap, Method};

use crate::header_change::Headers;

const TRUE: HeaderValue = HeaderValue::from_static("true");
const STAR: HeaderValue = HeaderValue::from_static("*");

/// Whether a request only asks what a later one may do.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Whether a preflight is answered for the endpoint. One of another origin may be the endpoint's to answer,
/// and is then a request like any other.
pub fn answers(cors: &Cors, method: &Method, headers: &HeaderMap) -> bool {
    is_preflight(method, headers) && (!cors.forwards_unmatched || granted(cors, headers).is_some())
}

/// The origin of a request, if it is allowed.
pub fn granted(cors: &Cors, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let text = origin.to_str().ok()?;
    let allowed = cors.allow_origins.iter().any(|p| matches(p, text));
    allowed.then(|| origin.clone())
}

/// The headers of the answer to a preflight: none, if the origin is not allowed.
pub fn preflight(cors: &Cors, request: &HeaderMap) -> HeaderMap {
    let mut answer = HeaderMap::new();
    let Some(origin) = granted(cors, request) else {
        return answer;
    };
    allow_origin(cors, &origin, &mut answer);
    for (asked, allowed, names) in [
        (
            ACCESS_CONTROL_REQUEST_METHOD,
            ACCESS_CONTROL_ALLOW_METHODS,
            &cors.allow_methods,
        ),
        (
            ACCESS_CONTROL_REQUEST_HEADERS,
            ACCESS_CONTROL_ALLOW_HEADERS,
            &cors.allow_headers,
        ),
    ] {
        let Some(asked) = request.get(&asked) else {
            continue;
        };
        let value = match names {
            // With credentials a star is a name like any other.
            Names::Any if cors.allow_credentials => Some(asked.clone()),
            Names::Any => Some(STAR),
            Names::Listed(names) => listed(names),
        };
        answer.extend(value.map(|value| (allowed, value)));
    }
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age_s));
    answer
}

/// Changes the answer of an endpoint to a request of an allowed origin.
pub fn apply(cors: &Cors, origin: &HeaderValue, headers: &mut impl Headers) {
    let exposed = match &cors.expose_headers {
        Names::Listed(names) => listed(names),
        Names::Any if cors.allow_credentials => {
            let names: Vec<&str> = headers.names().map(HeaderName::as_str).collect();
            HeaderValue::try_from(names.join(", ")).ok()
        }
        Names::Any => Some(STAR),
    };
    if let Some(value) = exposed {
        headers.set(&ACCESS_CONTROL_EXPOSE_HEADERS, value);
    }
    let mut added = HeaderMap::new();
    allow_origin(cors, origin, &mut added);
    // The proxy's word counts: what the application says of it itself is for another front.
    headers.remove(&ACCESS_CONTROL_ALLOW_CREDENTIALS);
    for (name, value) in &added {
        match *name == VARY {
            true => headers.append(name, value.clone()),
            false => headers.set(name, value.clone()),
        }
    }
}

fn allow_origin(cors: &Cors, origin: &HeaderValue, answer: &mut HeaderMap) {
    // A star together with credentials is refused by browsers.
    let any = cors.allow_origins.contains(&OriginPattern::Any);
    if any && !cors.allow_credentials {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, STAR);
        return;
    }
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    answer.insert(VARY, HeaderValue::from_static("Origin"));
    if cors.allow_credentials {
        answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
}

fn listed(names: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(names)
        .ok()
        .filter(|names| !names.is_empty())
}

fn matches(pattern: &OriginPattern, origin: &str) -> bool {
    let (scheme, host, port) = match pattern {
        OriginPattern::Any => return true,
        OriginPattern::Text(TextMatch::Exact(text)) => return **text == *origin,
        OriginPattern::Text(TextMatch::Prefix(text)) => return origin.starts_with(&**text),
        OriginPattern::Text(TextMatch::Regex(pattern)) => return pattern.matches(origin),
        OriginPattern::Text(TextMatch::Present) => return true,
        OriginPattern::Of { scheme, host, port } => (scheme, host, port),
    };
    let Some((sent_scheme, rest)) = origin.split_once("://") else {
        return false;
    };
    let (sent_host, sent_port) = match rest.rsplit_once(':') {
        Some((host, port)) => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => return false,
        },
        None => (rest, default_port(&sent_scheme.to_ascii_lowercase())),
    };
    sent_scheme.eq_ignore_ascii_case(scheme)
        && (port.is_none() || *port == sent_port)
        && host_matches(host, sent_host)
}

fn host_matches(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(name) => host.eq_ignore_ascii_case(name),
        HostPattern::EndsWith(end) => {
            let (host, end) = (host.as_bytes(), end.as_bytes());
            host.len() > end.len()
                && host
                    .get(host.len() - end.len()..)
                    .is_some_and(|tail| tail.eq_ignore_ascii_case(end))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scheme: &str, host: HostPattern, port: Option<u16>) -> OriginPattern {
        OriginPattern::Of {
            scheme: scheme.into(),
            host,
            port,
        }
    }

    #[test]
    fn origins_are_compared_with_their_default_ports_and_in_any_case() {
        let exact = of("https", HostPattern::Exact("a.example".into()), Some(443));
        let wild = of("http", HostPattern::EndsWith(".a.example".into()), Some(80));
        let any_port = of("http", HostPattern::EndsWith("".into()), None);
        for (pattern, origin, expected) in [
            (&exact, "https://a.example", true),
            (&exact, "HTTPS://A.example:443", true),
            (&exact, "https://a.example:444", false),
            (&exact, "http://a.example:443", false),
            (&exact, "https://b.a.example", false),
            (&exact, "https://a.example:x", false),
            (&wild, "http://x.y.a.example", true),
            (&wild, "http://a.example", false),
            (&wild, "http://evil-a.example", false),
            (&any_port, "http://x:8080", true),
            (&any_port, "https://x", false),
            (&exact, "null", false),
            (&OriginPattern::Any, "null", true),
        ] {
            assert_eq!(matches(pattern, origin), expected, "{pattern:?} {origin}");
        }
    }

    fn asked(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    const ASKED: &[(&str, &str)] = &[
        ("origin", "https://a.example"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-a"),
    ];

    #[test]
    fn a_preflight_is_told_what_is_allowed_and_nothing_if_nothing_is() {
        let cors = Cors {
            allow_origins: vec![of(
                "https",
                HostPattern::Exact("a.example".into()),
                Some(443),
            )],
            allow_methods: Names::Listed("GET, HEAD, POST, PUT".into()),
            allow_headers: Names::Any,
            max_age_s: 5,
            ..Cors::default()
        };
        let answer = preflight(&cors, &asked(ASKED));
        assert_eq!(answer["access-control-allow-origin"], "https://a.example");
        assert_eq!(
            answer["access-control-allow-methods"],
            "GET, HEAD, POST, PUT"
        );
        assert_eq!(answer["access-control-allow-headers"], "*");
        assert_eq!(answer["access-control-max-age"], "5");
        assert_eq!(answer["vary"], "Origin");
        assert!(!answer.contains_key("access-control-allow-credentials"));
        // What was not asked for is not answered.
        let answer = preflight(&cors, &asked(&ASKED[..2]));
        assert!(!answer.contains_key("access-control-allow-headers"));
        let other = asked(&[("origin", "https://b.example"), ASKED[1]]);
        assert!(preflight(&cors, &other).is_empty());
    }

    #[test]
    fn a_preflight_of_another_origin_may_be_left_to_the_endpoint() {
        let here = Cors {
            allow_origins: vec![of("https", HostPattern::Exact("a.example".into()), None)],
            ..Cors::default()
        };
        let left = Cors {
            forwards_unmatched: true,
            ..here.clone()
        };
        let (own, other) = (
            asked(ASKED),
            asked(&[("origin", "https://b.example"), ASKED[1]]),
        );
        for (cors, headers, expected) in [
            (&here, &own, true),
            (&here, &other, true),
            (&left, &own, true),
            (&left, &other, false),
        ] {
            assert_eq!(answers(cors, &Method::OPTIONS, headers), expected);
            assert!(!answers(cors, &Method::GET, headers), "no preflight");
        }
    }

    #[test]
    fn with_credentials_there_is_never_a_star() {
        let cors = Cors {
            allow_origins: vec![OriginPattern::Any],
            allow_credentials: true,
            allow_methods: Names::Any,
            allow_headers: Names::Any,
            expose_headers: Names::Any,
            max_age_s: 5,
            forwards_unmatched: false,
        };
        let answer = preflight(&cors, &asked(ASKED));
        assert!(answer.values().all(|value| value != "*"), "{answer:?}");
        assert_eq!(answer["access-control-allow-credentials"], "true");
        assert_eq!(answer["access-control-allow-methods"], "PUT");
        let mut response = asked(&[("x-answer", "1"), ("vary", "Accept")]);
        apply(
            &cors,
            &HeaderValue::from_static("https://a.example"),
            &mut response,
        );
        assert_eq!(response["access-control-allow-origin"], "https://a.example");
        assert!(
            response["access-control-expose-headers"]
                .to_str()
                .unwrap()
                .contains("x-answer")
        );
        let vary: Vec<_> = response.get_all(VARY).iter().collect();
        assert_eq!(vary, ["Accept", "Origin"]);
        let open = Cors {
            allow_credentials: false,
            ..cors
        };
        assert_eq!(
            preflight(&open, &asked(ASKED))["access-control-allow-origin"],
            "*"
        );
    }
}
