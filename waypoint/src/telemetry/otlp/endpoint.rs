//! Where exports go, and in which form. Connects to nothing.

use std::sync::Arc;
use std::time::Duration;

use cairn_config_schema::snapshot::{Collector, OtlpProtocol, TagSource};
use http::Uri;
use http::header::{HeaderName, HeaderValue};

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Spans.
    Traces,
    /// The access log.
    Logs,
    /// Metrics.
    Metrics,
}

impl Signal {
    /// For metrics and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }

    /// In the names of variables.
    pub(super) fn variable(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Logs => "LOGS",
            Self::Metrics => "METRICS",
        }
    }

    /// Where a receiver of all signals takes this one.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Logs => "/v1/logs",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// The gRPC method that takes it.
    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }
}

/// How OTLP is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Protobuf in POSTs, over HTTP/1.1.
    Http,
    /// JSON in POSTs, over HTTP/1.1.
    Json,
}

/// Who vouches for a receiver, and who we are to it: files, read for each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// `None`: whom the system trusts.
    pub roots: Option<Arc<str>>,
    /// Certificate chain and key.
    pub client: Option<(Arc<str>, Arc<str>)>,
}

/// A receiver by its URL.
#[derive(Clone, PartialEq)]
pub struct Destination {
    /// Host without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS.
    pub tls: bool,
    /// How it is carried.
    pub protocol: Protocol,
    /// Of POSTs.
    pub path: String,
    /// Sent with each export; values may be secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long one export may take.
    pub timeout: Duration,
    /// For TLS.
    pub trust: Trust,
    /// Messages are compressed.
    pub gzip: bool,
}

/// Without its headers, which may be secrets.
impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

impl Destination {
    /// That of a provider of the mesh configuration; TLS, if any, is its DestinationRule's business.
    /// `variable`: variables of the environment, for headers.
    pub fn of_collector(collector: &Collector, variable: impl Fn(&str) -> Option<String>) -> Self {
        let key = &collector.cluster;
        let (protocol, path) = match &collector.protocol {
            OtlpProtocol::Grpc => (Protocol::Grpc, String::new()),
            OtlpProtocol::Http(path) => (Protocol::Http, path.to_string()),
        };
        let header = |(name, source): &(Arc<str>, TagSource)| {
            let value = match source {
                TagSource::Literal(text) => text.to_string(),
                TagSource::Environment(name, default) => {
                    variable(name).or_else(|| default.as_deref().map(str::to_owned))?
                }
                // Exports are not made for one request.
                TagSource::Header(..) => return None,
            };
            let name = HeaderName::try_from(&**name).ok()?;
            Some((name, HeaderValue::try_from(value).ok()?))
        };
        Self {
            host: format!("{}.{}", key.service.name, key.service.namespace),
            port: key.port,
            tls: false,
            protocol,
            path,
            headers: collector.headers.iter().filter_map(header).collect(),
            timeout: Duration::from_millis(collector.timeout_ms),
            trust: Trust::default(),
            gzip: false,
        }
    }

    /// Reads a URL. `base_of`: it is the one of all signals, to which this one adds its path. `insecure`: a
    /// URL of gRPC without scheme means no TLS.
    ///
    /// # Errors
    /// Why it can not be used, in words without what it says of users.
    pub fn parse(
        url: &str,
        protocol: Protocol,
        base_of: Option<Signal>,
        insecure: bool,
    ) -> Result<Self, String> {
        let expected = "expected a URL like http://HOST:PORT";
        let uri: Uri = url
            .parse()
            .map_err(|_| format!("this is no URL; {expected}"))?;
        let tls = match (uri.scheme_str(), protocol) {
            (Some("https"), _) => true,
            (Some("http"), _) => false,
            (None, Protocol::Grpc) => !insecure,
            _ => return Err(format!("neither http nor https; {expected}")),
        };
        let authority = uri
            .authority()
            .ok_or_else(|| format!("no host; {expected}"))?;
        if authority.as_str().contains('@') {
            return Err("a user in it; credentials go into headers".to_owned());
        }
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(format!("no host; {expected}"));
        }
        let port = match (protocol, tls) {
            _ if authority.port_u16().is_some() => authority.port_u16().unwrap_or_default(),
            (_, true) => 443,
            (Protocol::Grpc, false) => 4317,
            (Protocol::Http | Protocol::Json, false) => 80,
        };
        let path = uri.path().trim_end_matches('/');
        let path = match base_of {
            Some(signal) => format!("{path}{}", signal.path()),
            None => uri.path().to_owned(),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            tls,
            protocol,
            path,
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            trust: Trust::default(),
            gzip: false,
        })
    }
}
