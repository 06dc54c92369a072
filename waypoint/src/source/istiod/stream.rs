//! One stream of delta discovery: opened with the pod's token, asked for everything, answered for each answer.
//! What is told is not looked at here.
//!
//! Everything is asked for (`*`), and nothing on demand: who calls and where a service leads must be known before a
//! request comes, not after istiod was asked in the middle of it.

use std::collections::HashMap;
use std::convert::Infallible;

use futures::channel::mpsc;
use http::uri::PathAndQuery;
use tonic::{Code, Extensions, Request, Streaming};
use tonic_prost::ProstCodec;

use super::Asking;
use super::messages::{
    ADDRESS_TYPE, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Kind, METHOD, Node, Status,
    Struct, Value,
};
use crate::istiod::{CallError, ControlPlaneError};
use crate::limits::{XDS_FIRST_ANSWER_TIMEOUT, XDS_MESSAGE_BYTES_MAX};

/// Requests that wait for the connection to take them: one is answered by one.
const REQUESTS_WAITING: usize = 8;

/// Why there is no stream any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error(transparent)]
    Plane(#[from] ControlPlaneError),
    #[error(
        "istiod does not accept the token {path}: {message}; it must be for the audience istio-ca, not have expired, be of a cluster that istiod knows (--ca-cluster), and of the namespace and service account that the pod says (POD_NAMESPACE, SERVICE_ACCOUNT)"
    )]
    Unauthenticated { path: String, message: String },
    #[error("the stream to istiod ended: {0}")]
    Broke(String),
    #[error("istiod answered {0:?}: {1}")]
    Refused(Code, String),
    #[error("istiod has not answered within {} s", XDS_FIRST_ANSWER_TIMEOUT.as_secs())]
    Late,
}

impl StreamError {
    /// For metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Plane(ControlPlaneError::Token { .. }) | Self::Unauthenticated { .. } => "token",
            Self::Plane(ControlPlaneError::Roots { .. }) => "roots",
            Self::Plane(ControlPlaneError::Tls { .. }) => "tls",
            Self::Plane(ControlPlaneError::Connect { .. }) => "connect",
            Self::Broke(_) => "broke",
            Self::Refused(..) => "refused",
            Self::Late => "late",
        }
    }

    /// All that [`Self::reason`] may be.
    pub const REASONS: [&'static str; 7] = [
        "token", "roots", "tls", "connect", "broke", "refused", "late",
    ];
}

/// An open stream.
pub(super) struct Stream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    answers: Streaming<DeltaDiscoveryResponse>,
    token_path: String,
}

impl Stream {
    /// Opens one and waits for its first answer.
    pub async fn open(
        asking: &Asking,
        versions: HashMap<String, String>,
    ) -> Result<(Self, DeltaDiscoveryResponse), StreamError> {
        let first = async {
            let mut stream = Self::connect(asking, versions).await?;
            let answer = first_of_workloads(stream.next().await?)?;
            Ok((stream, answer))
        };
        let first = tokio::time::timeout(XDS_FIRST_ANSWER_TIMEOUT, first).await;
        first.unwrap_or(Err(StreamError::Late))
    }

    async fn connect(
        asking: &Asking,
        versions: HashMap<String, String>,
    ) -> Result<Self, StreamError> {
        let plane = &asking.plane;
        let token = plane.token()?;
        let token_path = plane.token.display().to_string();
        let node = asking
            .node
            .message(&token, plane.cluster.to_str().unwrap_or_default());
        let client = plane.connect().await?;
        let mut client = client.max_decoding_message_size(XDS_MESSAGE_BYTES_MAX);
        let (mut requests, waiting) = mpsc::channel(REQUESTS_WAITING);
        let hello = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: ADDRESS_TYPE.to_owned(),
            resource_names_subscribe: vec!["*".to_owned()],
            initial_resource_versions: versions,
            ..DeltaDiscoveryRequest::default()
        };
        let broke = |error: &dyn std::fmt::Display| StreamError::Broke(error.to_string());
        requests.try_send(hello).map_err(|error| broke(&error))?;
        client.ready().await.map_err(|error| broke(&error))?;
        let request = Request::from_parts(plane.metadata(token), Extensions::default(), waiting);
        let codec: ProstCodec<DeltaDiscoveryRequest, DeltaDiscoveryResponse> =
            ProstCodec::default();
        let method = PathAndQuery::from_static(METHOD);
        let answers = client.streaming(request, method, codec).await;
        let answers = answers.map_err(|status| error(status, &token_path))?;
        Ok(Self {
            requests,
            answers: answers.into_inner(),
            token_path,
        })
    }

    /// The next answer. May be dropped while it waits.
    pub async fn next(&mut self) -> Result<DeltaDiscoveryResponse, StreamError> {
        match self.answers.message().await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(StreamError::Broke("istiod closed it".to_owned())),
            Err(status) => Err(error(status, &self.token_path)),
        }
    }

    /// Says what became of an answer: taken, or why not, at least in part.
    pub fn answer(&mut self, nonce: String, refused: Option<String>) -> Result<(), StreamError> {
        let request = DeltaDiscoveryRequest {
            type_url: ADDRESS_TYPE.to_owned(),
            response_nonce: nonce,
            error_detail: refused.map(|message| Status {
                code: Code::InvalidArgument as i32,
                message,
            }),
            ..DeltaDiscoveryRequest::default()
        };
        // Full: istiod sends and does not read.
        let sent = self.requests.try_send(request);
        sent.map_err(|error| StreamError::Broke(format!("no answer can be sent: {error}")))
    }
}

/// The first answer on a stream, by which the waypoint gets ready and forgets what is not told any more: one of
/// another type tells nothing of workloads.
fn first_of_workloads(
    answer: DeltaDiscoveryResponse,
) -> Result<DeltaDiscoveryResponse, StreamError> {
    if answer.type_url == ADDRESS_TYPE {
        return Ok(answer);
    }
    let answered: String = answer.type_url.escape_debug().take(200).collect();
    let words = format!("istiod answered with {answered}, which was not asked for");
    Err(StreamError::Broke(words))
}

fn error(status: tonic::Status, token_path: &str) -> StreamError {
    match CallError::from(status) {
        CallError::Unauthenticated(message) => StreamError::Unauthenticated {
            path: token_path.to_owned(),
            message,
        },
        CallError::Broke(message) => StreamError::Broke(message),
        CallError::Refused(code, message) => StreamError::Refused(code, message),
    }
}

/// Who this waypoint says it is (specs/istio-waypoint.md 6.1).
#[derive(Clone, Debug, Default)]
pub struct NodeNames {
    /// `POD_NAME`.
    pub pod: Option<String>,
    /// `POD_NAMESPACE`; else the token's.
    pub namespace: Option<String>,
    /// `SERVICE_ACCOUNT`; else the token's.
    pub account: Option<String>,
    /// `POD_IP`, or `INSTANCE_IP`.
    pub ip: Option<String>,
    /// `GATEWAY_NAME`.
    pub gateway: Option<String>,
    /// The network of this waypoint.
    pub network: String,
    /// DNS suffix of services.
    pub domain: String,
}

impl NodeNames {
    fn message(&self, token: &crate::istiod::Token, cluster: &str) -> Node {
        let of_token = token.account.clone().unwrap_or_default();
        let namespace = self.namespace.as_ref().unwrap_or(&of_token.0);
        let account = self.account.as_ref().unwrap_or(&of_token.1);
        let gateway = self.gateway.as_ref().unwrap_or(account);
        let pod = self.pod.as_ref().unwrap_or(gateway);
        let ip = self.ip.as_deref().unwrap_or("127.0.0.1");
        let labels = [
            ("gateway.networking.k8s.io/gateway-name", gateway.as_str()),
            ("topology.istio.io/network", &self.network),
        ];
        let texts = [
            ("NAMESPACE", namespace.as_str()),
            ("SERVICE_ACCOUNT", account),
            ("CLUSTER_ID", cluster),
            ("NETWORK", &self.network),
        ];
        let mut metadata = structure(texts);
        let labels = Value {
            kind: Some(Kind::Struct(structure(labels))),
        };
        metadata.fields.insert("LABELS".to_owned(), labels);
        Node {
            id: format!(
                "waypoint~{ip}~{pod}.{namespace}~{namespace}.svc.{}",
                self.domain
            ),
            metadata: Some(metadata),
        }
    }
}

fn structure<const N: usize>(texts: [(&str, &str); N]) -> Struct {
    let told = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let value = |text: &str| Value {
        kind: Some(Kind::Text(text.to_owned())),
    };
    Struct {
        fields: told
            .map(|(name, text)| (name.to_owned(), value(text)))
            .collect(),
    }
}

/// What never comes back: a stream is followed until it ends.
pub(super) type Ended = Result<Infallible, StreamError>;

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the waypoint would be ready without having been told of anything.
    #[test]
    fn an_answer_of_another_type_is_no_first_answer() {
        let answer = |type_url: &str| DeltaDiscoveryResponse {
            type_url: type_url.to_owned(),
            ..DeltaDiscoveryResponse::default()
        };
        assert!(first_of_workloads(answer(ADDRESS_TYPE)).is_ok());
        let error = first_of_workloads(answer("other")).unwrap_err();
        assert_eq!(error.reason(), "broke");
        assert_eq!(
            error.to_string(),
            "the stream to istiod ended: istiod answered with other, which was not asked for"
        );
    }
}
