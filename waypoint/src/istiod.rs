//! A connection to istiod, or to whoever speaks its protocols: TLS with the mesh's roots, the pod's token.
//! What is asked over it is not known here (specs/istio-waypoint.md 3, 6.1).

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;
use serde::Deserialize;
use tokio::net::TcpStream;
use tonic::client::Grpc;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Status};

use crate::dead_peer::Noticed;
use crate::grpc::{self, Channel};
use crate::limits::{CA_ANSWER_BYTES_MAX, POD_TOKEN_BYTES_MAX};
use crate::tls::{Alpn, originate};

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Name or IP address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    /// Reads `HOST:PORT`; `https://` before it, which Istio allows, says nothing new.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected HOST:PORT, like istiod.istio-system.svc:15012".to_owned();
        let rest = text.strip_prefix("https://").unwrap_or(text);
        let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = match inner {
            Some(inner) => inner,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        let port = port.parse().ok().filter(|port| *port > 0);
        match port {
            Some(port) if !host.is_empty() && !host.contains('/') => Ok(Self {
                host: host.to_owned(),
                port,
            }),
            _ => Err(wrong()),
        }
    }
}

/// Where the control plane is and how it is spoken to.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// Host and port.
    pub address: Address,
    /// The name its certificate must have; `None`: the host.
    pub server_name: Option<String>,
    /// File with the roots that its certificate is verified with, read for each connection.
    pub roots: PathBuf,
    /// File with the pod's token, read for each call, for the kubelet renews it.
    pub token: PathBuf,
    /// Name of this cluster, which tells istiod whose tokens these are.
    pub cluster: AsciiMetadataValue,
}

/// Why the control plane could not be spoken to: whose fault it is, and what helps.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    /// There is no token that could be sent.
    #[error(
        "the token {path} can not be used: {reason}; the pod needs a projected service account token (audience istio-ca) there, or --ca-token another file"
    )]
    Token {
        /// Its file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The roots can not be used.
    #[error(
        "the roots {path} can not be used: {reason}; the pod needs the ConfigMap istio-ca-root-cert there, or --ca-roots another file"
    )]
    Roots {
        /// Their file.
        path: String,
        /// What is wrong with them.
        reason: String,
    },
    /// Nobody answers.
    #[error("{address} can not be reached: {error}")]
    Connect {
        /// Who was to be reached.
        address: Address,
        /// What the system said.
        error: io::Error,
    },
    /// Somebody answers who is not the control plane.
    #[error(
        "{address} is not who it should be: {error}; its certificate must be issued by a root in {roots} and have the name {name} (--ca-server-name)"
    )]
    Tls {
        /// Who was to be reached.
        address: Address,
        /// What is wrong with its certificate or protocol.
        error: io::Error,
        /// File with the roots.
        roots: String,
        /// The name that was expected.
        name: String,
    },
}

impl ControlPlane {
    /// The name that its certificate must have.
    pub fn name(&self) -> &str {
        self.server_name.as_deref().unwrap_or(&self.address.host)
    }

    /// The pod's token as it is now.
    ///
    /// # Errors
    /// [`ControlPlaneError::Token`].
    pub fn token(&self) -> Result<Token, ControlPlaneError> {
        let wrong = |reason: String| ControlPlaneError::Token {
            path: self.token.display().to_string(),
            reason,
        };
        let text = std::fs::read_to_string(&self.token).map_err(|e| wrong(e.to_string()))?;
        let text = text.trim();
        if text.is_empty() || text.len() > POD_TOKEN_BYTES_MAX {
            return Err(wrong(format!("it has {} bytes", text.len())));
        }
        let bearer = AsciiMetadataValue::try_from(format!("Bearer {text}"));
        let mut bearer = bearer.map_err(|_| wrong("it is no token".to_owned()))?;
        bearer.set_sensitive(true);
        Ok(Token {
            account: account(text),
            bearer,
        })
    }

    /// What goes with every call.
    pub fn metadata(&self, token: Token) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", token.bearer);
        metadata.insert("clusterid", self.cluster.clone());
        metadata
    }

    /// A new connection.
    ///
    /// # Errors
    /// [`ControlPlaneError`].
    pub async fn connect(&self) -> Result<Grpc<Channel>, ControlPlaneError> {
        let connect = |error| ControlPlaneError::Connect {
            address: self.address.clone(),
            error,
        };
        let tls = |error| ControlPlaneError::Tls {
            address: self.address.clone(),
            error,
            roots: self.roots.display().to_string(),
            name: self.name().to_owned(),
        };
        let roots = self.roots.display().to_string();
        let originate =
            originate::outside(Some(roots.clone().into()), None, Alpn::Http2, self.name());
        let originate = originate.map_err(|error| ControlPlaneError::Roots {
            path: roots,
            reason: error.to_string(),
        })?;
        let tcp = TcpStream::connect((&*self.address.host, self.address.port)).await;
        let tcp = tcp.map_err(connect)?;
        tcp.set_nodelay(true).map_err(connect)?;
        let tcp = Noticed::new(tcp);
        let stream = tcp.within(|tcp| originate.connect(tcp)).await;
        let stream = stream.map_err(tls)?;
        let header_bytes_max = CA_ANSWER_BYTES_MAX as u32;
        let sender = grpc::connect_with_pings(stream, header_bytes_max)
            .await
            .map_err(connect)?;
        let origin = Uri::builder()
            .scheme("https")
            .authority(self.address.to_string())
            .path_and_query("/")
            .build();
        let origin = origin.map_err(|error| connect(io::Error::other(error)))?;
        Ok(Grpc::with_origin(Channel(sender), origin))
    }
}

/// What a call came to that was not answered.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The token is not accepted; in the words of who was asked.
    #[error("the token is not accepted: {0}")]
    Unauthenticated(String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broke(String),
    /// It is not wanted.
    #[error("the answer is {0:?}: {1}")]
    Refused(Code, String),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        // Where a connection broke, the status says that it did, and its innermost cause says why.
        let causes = std::iter::successors(std::error::Error::source(&status), |e| e.source());
        let message = match causes.last().map(ToString::to_string) {
            Some(cause) if !status.message().contains(&cause) => {
                format!("{}: {cause}", status.message())
            }
            _ => status.message().to_owned(),
        };
        let message: String = message.chars().take(200).collect();
        let message = message.escape_debug().to_string();
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => Self::Unauthenticated(message),
            Code::Unavailable => Self::Broke(message),
            // A connection that broke is told by a status of tonic's own.
            Code::Unknown if std::error::Error::source(&status).is_some() => Self::Broke(message),
            code => Self::Refused(code, message),
        }
    }
}

/// The pod's token.
#[derive(Clone)]
pub struct Token {
    /// Namespace and service account that it says it is for. It is not verified here: that is for whom it
    /// is sent to, and an answer for somebody else is refused.
    pub account: Option<(String, String)>,
    bearer: AsciiMetadataValue,
}

impl fmt::Debug for Token {
    /// Without what must not be told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({:?})", self.account)
    }
}

/// Claims of a service account's token.
#[derive(Deserialize)]
struct Claims {
    sub: String,
}

/// Namespace and service account of a token; `None`: it is none of Kubernetes'.
fn account(token: &str) -> Option<(String, String)> {
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    let account = claims.sub.strip_prefix("system:serviceaccount:")?;
    let (namespace, name) = account.split_once(':')?;
    Some((namespace.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        let read = |text: &str| Address::from_str(text).map(|a| (a.host, a.port));
        let istiod = Ok(("istiod.istio-system.svc".to_owned(), 15012));
        assert_eq!(read("istiod.istio-system.svc:15012"), istiod);
        assert_eq!(read("https://istiod.istio-system.svc:15012"), istiod);
        assert_eq!(read("[::1]:15012"), Ok(("::1".to_owned(), 15012)));
        assert_eq!(
            Address::from_str("[::1]:15012").unwrap().to_string(),
            "[::1]:15012"
        );
        for wrong in [
            "istiod",
            "istiod:",
            ":15012",
            "istiod:0",
            "::1:15012",
            "a:70000",
            "a/b:1",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    /// What istiod says when it closes a connection is at the end of a chain of causes.
    #[test]
    fn why_a_connection_broke_is_told() {
        #[derive(Debug, thiserror::Error)]
        #[error("error reading a body")]
        struct Outer(#[source] io::Error);
        let cause = io::Error::other("too_many_pings");
        let broke = CallError::from(Status::from_error(Box::new(Outer(cause))));
        let words = "the connection broke: error reading a body: too_many_pings";
        assert_eq!(broke.to_string(), words);
        let refused = CallError::from(Status::internal("no"));
        assert_eq!(refused.to_string(), "the answer is Internal: no");
    }

    /// Header and signature are of no interest here.
    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_of_kubernetes_says_whose_it_is_and_others_do_not() {
        let of = |claims: &str| account(&token(claims));
        assert_eq!(
            of(r#"{"sub":"system:serviceaccount:shop:waypoint","aud":["istio-ca"]}"#),
            Some(("shop".into(), "waypoint".into()))
        );
        assert_eq!(of(r#"{"sub":"someone"}"#), None);
        assert_eq!(of("not json"), None);
        assert_eq!(account("opaque"), None);
    }

    #[test]
    fn what_is_sent_is_the_file_as_it_is_now_and_no_text_shows_it() {
        let folder = tempfile::tempdir().unwrap();
        let plane = ControlPlane {
            address: Address::from_str("istiod:15012").unwrap(),
            server_name: None,
            roots: folder.path().join("roots"),
            token: folder.path().join("token"),
            cluster: AsciiMetadataValue::from_static("Kubernetes"),
        };
        assert!(matches!(
            plane.token(),
            Err(ControlPlaneError::Token { .. })
        ));
        for text in ["first\n", "second"] {
            std::fs::write(&plane.token, text).unwrap();
            let token = plane.token().unwrap();
            assert!(!format!("{token:?}").contains(text.trim()));
            let metadata = plane.metadata(token);
            let bearer = format!("Bearer {}", text.trim());
            assert_eq!(metadata.get("authorization").unwrap(), &bearer);
            assert_eq!(metadata.get("clusterid").unwrap(), "Kubernetes");
            assert!(!format!("{metadata:?}").contains(text.trim()));
        }
        std::fs::write(&plane.token, " \n").unwrap();
        assert!(plane.token().is_err(), "an empty token is none");
    }
}
