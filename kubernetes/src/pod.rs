//! One GET of a pod's HTTP port through the API server's proxy (`pods/proxy`): whoever may do that need not be in the
//! cluster. The API server dials the pod's address itself; no kubelet takes part, as in a port-forward it would.

use cairn_config_schema::origin::ObjectKey;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use kube_client::Client;
use kube_client::client::Body;
use serde_json::Value;

use crate::limits::{POD_ANSWER_BYTES_MAX, POD_ANSWER_TIMEOUT};
use crate::objects::text;

/// Port of readiness and of what is acknowledged, of waypoints and agents (specs/istio-waypoint.md 1.6).
pub const STATUS_PORT: u16 = 15021;
/// Port of their metrics.
pub const METRICS_PORT: u16 = 15020;

/// What a pod answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its text.
    pub text: String,
}

/// Longest text of a pod's that people are shown, in characters.
const SHOWN_MAX: usize = 500;

/// What a pod says, as people may be shown it: on one line, not too long, and without what moves a terminal's cursor.
/// Who may run a pod may have it say anything.
pub fn shown(text: &str) -> String {
    let plain = text.trim().chars().take(SHOWN_MAX);
    plain
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Asks a pod, and waits no longer than [`POD_ANSWER_TIMEOUT`].
///
/// # Errors
/// In words, when the API server refuses or can not reach the pod, or the pod does not answer in time or with too
/// much. Another status than 200 of the pod's own is an answer.
pub async fn get(
    client: &Client,
    pod: &ObjectKey,
    port: u16,
    path: &str,
) -> Result<Answer, String> {
    let asked = tokio::time::timeout(POD_ANSWER_TIMEOUT, ask(client, pod, port, path)).await;
    let why = match asked {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(why)) => why,
        Err(_) => format!("no answer within {} s", POD_ANSWER_TIMEOUT.as_secs()),
    };
    Err(format!("ask Pod {pod} at port {port}: {why}"))
}

async fn ask(client: &Client, pod: &ObjectKey, port: u16, path: &str) -> Result<Answer, String> {
    let url = format!(
        "/api/v1/namespaces/{}/pods/{}:{port}/proxy{path}",
        pod.namespace, pod.name
    );
    let request = Request::get(url).body(Body::empty());
    let request = request.map_err(|error| error.to_string())?;
    let response = client.send(request).await;
    let response = response.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = Limited::new(response.into_body(), POD_ANSWER_BYTES_MAX);
    let body = body.collect().await.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    match refusal(status, &text) {
        Some(why) => Err(why),
        None => Ok(Answer { status, text }),
    }
}

/// What the API server itself said in place of the pod: a Status, which no waypoint answers.
fn refusal(status: StatusCode, body: &str) -> Option<String> {
    if status.is_success() {
        return None;
    }
    let said: Value = serde_json::from_str(body).ok()?;
    if text(&said, "/kind") != Some("Status") {
        return None;
    }
    let words = text(&said, "/message").unwrap_or("refused").to_owned();
    Some(match status {
        StatusCode::FORBIDDEN => format!(
            "{words} (a Role or ClusterRole has to allow it; see docs/kubernetes.md, rights)"
        ),
        _ => words,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_says_is_told_from_what_the_pod_says() {
        let status = r#"{"kind":"Status","apiVersion":"v1","message":"error trying to reach service: refused","code":503}"#;
        let of = |code: u16, body: &str| refusal(StatusCode::from_u16(code).unwrap(), body);
        assert_eq!(
            of(503, status).as_deref(),
            Some("error trying to reach service: refused")
        );
        assert!(of(403, status).unwrap().contains("docs/kubernetes.md"));
        assert_eq!(of(503, "not ready:\ncertificate\n"), None);
        assert_eq!(of(200, status), None);
    }
}
