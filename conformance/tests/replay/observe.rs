//! What came back over the socket, and whether it is what the engine said.

use cairn_conformance::app::Echo;
use cairn_conformance::golden::engine::Judged;
use cairn_conformance::golden::format::Ask;
use http::StatusCode;

use crate::waypoint::Apps;

/// What became of an ask.
#[derive(Debug)]
#[allow(dead_code)] // what the variants hold is read by Debug alone, in messages
pub enum Observed {
    /// No tunnel: TLS did not let the peer in.
    NoTunnel(String),
    /// The CONNECT was refused.
    Refused(StatusCode),
    /// The CONNECT of a TCP stream was accepted.
    Accepted,
    /// An HTTP answer.
    Answer(Answer),
    /// Bytes that are not HTTP.
    Garbage(String),
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    request_id: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Observed {
    /// The `x-request-id` that the access log has, when this is an answer.
    pub fn request_id(&self) -> Option<String> {
        match self {
            Self::Answer(answer) => Some(answer.request_id.clone()),
            _ => None,
        }
    }
}

/// Reads an answer that ends with the stream. The body may be chunked; what is looked for in it is
/// JSON, so the chunk sizes around it do not matter.
pub fn parse(bytes: &[u8], request_id: String) -> Observed {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let garbage = || Observed::Garbage(text.clone());
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return garbage();
    };
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let Some(status) = status.and_then(|status| status.parse().ok()) else {
        return garbage();
    };
    let headers = lines.filter_map(|line| line.split_once(": "));
    Observed::Answer(Answer {
        status,
        headers: headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect(),
        body: body.to_owned(),
        request_id,
    })
}

/// What differs.
pub fn compare(judged: &Judged, ask: &Ask, observed: &Observed, apps: &Apps) -> Vec<String> {
    match observed {
        Observed::Answer(answer) if !ask.is_tcp() => compare_answer(judged, ask, answer, apps),
        // What becomes of it is seen by the end-to-end tests of routes of connections.
        Observed::Accepted if judged.opens_first => Vec::new(),
        Observed::Accepted if goes_nowhere(judged) => {
            vec!["accepted, expected to be refused".to_owned()]
        }
        // A TCP service without endpoints is refused too, with 503.
        Observed::Refused(StatusCode::UNAUTHORIZED) if judged.verdict == "deny" => Vec::new(),
        Observed::Refused(StatusCode::SERVICE_UNAVAILABLE) | Observed::Accepted
            if judged.verdict == "allow" && judged.protocol == "tcp" =>
        {
            Vec::new()
        }
        other => vec![format!("got {other:?}, expected {}", judged.answer)],
    }
}

fn goes_nowhere(judged: &Judged) -> bool {
    judged.shares.keys().eq(["refused"])
}

fn compare_answer(judged: &Judged, ask: &Ask, answer: &Answer, apps: &Apps) -> Vec<String> {
    let mut wrong = Vec::new();
    if judged.answer == "forward" {
        compare_forwarded(judged, ask, answer, apps, &mut wrong);
    } else if let Some(status) = judged.grpc {
        if answer.header("grpc-status") != Some(&status.to_string()) {
            wrong.push(format!("grpc-status is not {status}: {answer:?}"));
        }
    } else if answer.status.to_string() != judged.answer {
        wrong.push(format!("expected {}, got {answer:?}", judged.answer));
    }
    let location = answer.header("location").unwrap_or_default();
    if location != judged.location {
        wrong.push(format!(
            "location is {location}, expected {}",
            judged.location
        ));
    }
    wrong
}

fn compare_forwarded(
    judged: &Judged,
    ask: &Ask,
    answer: &Answer,
    apps: &Apps,
    wrong: &mut Vec<String>,
) {
    let clusters = judged.shares.keys();
    let endpoints = |cluster: &String| judged.endpoints.get(cluster).cloned().unwrap_or_default();
    let reachable: Vec<_> = clusters
        .flat_map(endpoints)
        .filter(|address| apps.is_running(address))
        .map(|address| address.to_string())
        .collect();
    let nowhere = judged.shares.contains_key(&answer.status.to_string());
    match answer.status {
        _ if nowhere => {}
        503 if reachable.is_empty() => {}
        200 if !reachable.is_empty() && ask.method_and_target().0 == http::Method::HEAD => {}
        200 if !reachable.is_empty() => {
            let json = answer.body.find('{').map(|at| &answer.body[at..]);
            let json = json.and_then(|t| t.rfind('}').map(|end| &t[..=end]));
            let echo: Echo = match serde_json::from_str(json.unwrap_or_default()) {
                Ok(echo) => echo,
                Err(error) => return wrong.push(format!("no echo ({error}): {answer:?}")),
            };
            if !reachable.contains(&echo.app) {
                wrong.push(format!(
                    "went to {}, expected one of {reachable:?}",
                    echo.app
                ));
            }
            compare_echo(judged, &echo, wrong);
        }
        _ => wrong.push(format!("expected to be forwarded, got {answer:?}")),
    }
}

fn compare_echo(judged: &Judged, echo: &Echo, wrong: &mut Vec<String>) {
    if echo.path != judged.path {
        wrong.push(format!("path is {}, expected {}", echo.path, judged.path));
    }
    // The engine knows neither the request id, nor which attempt it is, nor what frames the message.
    let set = [
        "x-request-id",
        "x-envoy-attempt-count",
        "content-length",
        "transfer-encoding",
        "connection",
    ];
    for name in judged.request_headers.keys() {
        let values: Vec<_> = judged
            .request_headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        let (expected, found) = (values.join(","), echo.header(name.as_str()));
        if !set.contains(&name.as_str()) && found.as_ref() != Some(&expected) {
            wrong.push(format!("{name} is {found:?}, expected {expected:?}"));
        }
    }
    for (name, value) in &echo.headers {
        let known = judged.request_headers.contains_key(name) || set.contains(&name.as_str());
        if !known {
            wrong.push(format!("the application also heard {name}: {value}"));
        }
    }
}
