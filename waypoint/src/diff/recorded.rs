//! Requests as a line of the access log tells them. What no line can tell is in `untold`.

use std::net::{IpAddr, SocketAddr};

use http::Method;
use http::header::{HOST, HeaderName, HeaderValue, USER_AGENT};
use serde::Deserialize;

use super::case::Case;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request of the access log.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was asked.
    pub case: Case,
    /// The verdict that was recorded: `allow` or `deny`.
    pub verdict: String,
}

/// Why a line is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unread {
    /// It is no line of Cairn's access log in JSON.
    NoAccessLog,
    /// The request ended before policy was asked.
    NoVerdict,
    /// The request itself could not be read.
    NoRequest,
}

impl Unread {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoAccessLog => "no line of Cairn's access log in JSON",
            Self::NoVerdict => "ended before policy was asked",
            Self::NoRequest => "without what would have to be asked",
        }
    }
}

/// The keys that matter; others may be there.
#[derive(Deserialize)]
struct Written {
    method: Option<String>,
    path: Option<String>,
    protocol: Option<String>,
    authority: Option<String>,
    x_forwarded_for: Option<String>,
    user_agent: Option<String>,
    source_principal: String,
    downstream_local_address: SocketAddr,
    downstream_remote_address: SocketAddr,
    verdict: Option<String>,
}

/// Reads one line.
///
/// # Errors
/// [`Unread`]: it can not be compared.
pub fn read_line(text: &str) -> Result<Line, Unread> {
    let written: Written = serde_json::from_str(text).map_err(|_| Unread::NoAccessLog)?;
    let verdict = written.verdict.clone().ok_or(Unread::NoVerdict)?;
    let case = case(&written).ok_or(Unread::NoRequest)?;
    Ok(Line { case, verdict })
}

fn case(written: &Written) -> Option<Case> {
    let ip: IpAddr = written.downstream_remote_address.ip().to_canonical();
    let tcp = written.protocol.is_none();
    let mut headers = Vec::new();
    // Whoever sent no x-request-id was given one: policy can see that there is one.
    let id = (!tcp).then(|| (X_REQUEST_ID, "(recorded)".to_owned()));
    let sent = [
        (HOST, &written.authority),
        (X_FORWARDED_FOR, &written.x_forwarded_for),
        (USER_AGENT, &written.user_agent),
    ];
    let sent = sent.into_iter().filter_map(|(n, v)| Some((n, v.clone()?)));
    for (name, value) in sent.chain(id) {
        headers.push((name, HeaderValue::from_str(&value).ok()?));
    }
    let (method, path) = match tcp {
        true => (Method::GET, String::new()),
        false => {
            let method = written.method.as_ref()?.parse().ok()?;
            (method, written.path.clone()?)
        }
    };
    Some(Case {
        from: written.source_principal.clone(),
        ip,
        to: written.downstream_local_address.to_string(),
        tcp,
        method,
        path,
        headers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"method":"GET","path":"/a?b=1","protocol":"HTTP/1.1","authority":"web.shop","x_forwarded_for":null,"user_agent":null,"source_principal":"spiffe://cluster.local/ns/shop/sa/web","downstream_local_address":"10.96.1.1:80","downstream_remote_address":"10.0.0.7:41000","verdict":"allow","snapshot":1}"#;

    #[test]
    fn a_line_is_read_as_far_as_it_tells_the_request() {
        let line = read_line(LINE).unwrap();
        assert_eq!(line.verdict, "allow");
        let case = line.case;
        assert_eq!((case.method.as_str(), &*case.path), ("GET", "/a?b=1"));
        assert_eq!(case.to, "10.96.1.1:80");
        assert_eq!(case.ip.to_string(), "10.0.0.7");
        assert_eq!(case.header_map().get(HOST).unwrap(), "web.shop");
        assert!(!case.tcp);
        let tcp = LINE
            .replace(r#""protocol":"HTTP/1.1""#, r#""protocol":null"#)
            .replace(
                r#""method":"GET","path":"/a?b=1""#,
                r#""method":null,"path":null"#,
            );
        assert!(read_line(&tcp).unwrap().case.tcp);
    }

    #[test]
    fn a_line_that_tells_no_request_is_said_to_be_so() {
        let error = |text: &str| read_line(text).unwrap_err();
        assert_eq!(error("nonsense"), Unread::NoAccessLog);
        assert_eq!(error("{}"), Unread::NoAccessLog);
        let early = LINE.replace(r#""verdict":"allow""#, r#""verdict":null"#);
        assert_eq!(error(&early), Unread::NoVerdict);
        let unread = LINE.replace(r#""method":"GET""#, r#""method":null"#);
        assert_eq!(error(&unread), Unread::NoRequest);
    }
}
