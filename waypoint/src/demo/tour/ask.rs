//! One request of the tour and what came of it: the answer, and its line in the access log.

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use serde_json::Value;

use crate::client::HttpClient;

/// Sends one request for `web.shop`.
pub(super) async fn send(
    http: &mut HttpClient,
    method: Method,
    path: &str,
    headers: HeaderMap,
    id: &str,
) -> anyhow::Result<Response<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.method_mut() = method;
    *request.headers_mut() = headers;
    *request.uri_mut() = match http {
        HttpClient::Http1(_) => {
            let host = HeaderValue::from_static("web.shop");
            request.headers_mut().insert(HOST, host);
            path.parse()?
        }
        HttpClient::Http2(_) => {
            let uri = Uri::builder().scheme("http").authority("web.shop");
            uri.path_and_query(path).build()?
        }
    };
    let header = HeaderName::from_static("x-request-id");
    request
        .headers_mut()
        .insert(header, HeaderValue::from_str(id)?);
    Ok(http.fetch(request).await?)
}

/// An answer and its line in the access log.
pub(super) struct Seen {
    pub(super) response: Response<Bytes>,
    pub(super) log: Value,
}

impl Seen {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(super) fn body(&self) -> String {
        String::from_utf8_lossy(self.response.body()).into_owned()
    }

    /// The application that answered.
    pub(super) fn app(&self) -> String {
        self.body().lines().next().unwrap_or_default().to_owned()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.response.headers().get(name);
        value.and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    pub(super) fn logged(&self, key: &str) -> &str {
        self.log
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Status and what explains it.
    pub(super) fn words(&self) -> String {
        // An allowing policy does not explain a 404.
        let policy = match self.logged("verdict") {
            "deny" => self.logged("policy"),
            _ => "",
        };
        let reason = match (policy, self.logged("reason")) {
            ("", "") => return format!("{} from {}", self.status(), self.app()),
            ("", reason) => reason.to_owned(),
            (policy, "") => policy.to_owned(),
            (policy, reason) => format!("{policy}: {reason}"),
        };
        match self.response.status() {
            StatusCode::OK if self.header("grpc-status").is_empty() => {
                format!("200 from {}", self.app())
            }
            StatusCode::OK => format!("grpc-status {}: {reason}", self.header("grpc-status")),
            status => format!("{}: {reason}", status.as_u16()),
        }
    }
}
