//! Fetches one key set: HTTP or HTTPS, bounded in size, time and redirects, from addresses that are
//! looked at before they are connected to. Keeps nothing between two fetches.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use cairn_authz::jwt::{KeySet, KeySetError};
use cairn_config_schema::snapshot::RemoteKeys;
use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::guarded::forbidden;
use crate::limits::{JWKS_BYTES_MAX, JWKS_REDIRECTS_MAX};
use crate::tls::WebClient;

/// Why keys could not be fetched. `Display` says it in words, with the address where that helps.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No URL, or one that leads where keys are not fetched from.
    #[error("{} is not a URL that keys can be fetched from", shown(.0))]
    Url(String),
    /// The name is unknown.
    #[error("{} can not be looked up: {}", shown(.0), .1)]
    Lookup(String, std::io::Error),
    /// Every address of the name is one that keys are not fetched from.
    #[error("{} is {} ({}), from which keys are not fetched; see --jwks-allow-local", shown(.0), .1, .2)]
    Forbidden(String, &'static str, IpAddr),
    /// No connection.
    #[error("{} can not be connected to: {}", shown(.0), .1)]
    Connect(String, std::io::Error),
    /// Not HTTP.
    #[error("{} gave no answer: {}", shown(.0), .1)]
    Http(String, hyper::Error),
    /// Not 200.
    #[error("{} answered {}", shown(.0), .1)]
    Status(String, StatusCode),
    /// Redirected too often, from https to http, or to nowhere.
    #[error("{} redirects {}", shown(.0), .1)]
    Redirect(String, &'static str),
    /// Too large, or cut off.
    #[error("the answer of {} is larger than {JWKS_BYTES_MAX} bytes or ends early", shown(.0))]
    Body(String),
    /// Not in time.
    #[error("it took longer than {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The provider's configuration is none, or another's.
    #[error("{} is no OpenID configuration of this issuer: {}", shown(.0), .1)]
    Discovery(String, &'static str),
    /// Not a key set.
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

/// Characters of an address that an error names.
const SHOWN_MAX: usize = 200;

/// An address for an error. It may be from a provider's answer: it is escaped and cut, so that it can
/// write no line of a log and fill none.
fn shown(address: &str) -> String {
    let escaped = address.chars().take(SHOWN_MAX).flat_map(char::escape_debug);
    escaped.take(SHOWN_MAX).collect()
}

/// Fetches keys.
pub struct Fetcher {
    web: WebClient,
    names: Lookup,
    /// Loopback and link-local addresses, too: for labs, where everything is on one machine.
    allow_local: bool,
}

impl Fetcher {
    /// A fetcher that trusts the certificates the system trusts.
    pub fn new(allow_local: bool) -> Self {
        Self {
            web: WebClient::default(),
            names: Lookup::System,
            allow_local,
        }
    }

    /// The keys of a source, within a time.
    ///
    /// # Errors
    /// [`FetchError`] says why there are none.
    pub async fn fetch(&self, source: &RemoteKeys, within: Duration) -> Result<KeySet, FetchError> {
        let fetched = tokio::time::timeout(within, self.keys(source)).await;
        fetched.unwrap_or(Err(FetchError::Timeout(within)))
    }

    async fn keys(&self, source: &RemoteKeys) -> Result<KeySet, FetchError> {
        let text = match source.discovery {
            false => self.get(&source.url).await?,
            true => {
                let configuration = self.get(&source.url).await?;
                self.get(&jwks_uri(&source.url, &configuration)?).await?
            }
        };
        Ok(KeySet::parse(&text)?)
    }

    /// The body at a URL, redirects followed.
    async fn get(&self, url: &str) -> Result<String, FetchError> {
        let mut url = url.to_owned();
        for _ in 0..=JWKS_REDIRECTS_MAX {
            let uri: Uri = url.parse().map_err(|_| FetchError::Url(url.clone()))?;
            match self.get_once(&uri, &url).await? {
                Answer::Body(body) => return Ok(body),
                Answer::Moved(to) => {
                    let next = redirected(&uri, &to)
                        .ok_or_else(|| FetchError::Redirect(url.clone(), "to nowhere"))?;
                    if leaves_tls(&url, &next) {
                        return Err(FetchError::Redirect(url, "from https to http"));
                    }
                    url = next;
                }
            }
        }
        Err(FetchError::Redirect(url, "too often"))
    }

    async fn get_once(&self, uri: &Uri, url: &str) -> Result<Answer, FetchError> {
        let wrong = || FetchError::Url(url.to_owned());
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        let host = authority.host().trim_matches(['[', ']']);
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        let tcp = self.connect(host, port, url).await?;
        if https {
            let tls = self.web.connect(host, tcp).await;
            let tls = tls.map_err(|e| FetchError::Connect(url.to_owned(), e))?;
            exchange(tls, uri, url).await
        } else {
            exchange(tcp, uri, url).await
        }
    }

    /// Connects to an address that was looked at: the name is not looked up again.
    async fn connect(&self, host: &str, port: u16, url: &str) -> Result<TcpStream, FetchError> {
        let found = self.names.find(host, port).await;
        let found = found.map_err(|e| FetchError::Lookup(host.to_owned(), e))?;
        let mut last = FetchError::Lookup(host.to_owned(), std::io::ErrorKind::NotFound.into());
        for address in found {
            if let Some(why) = self.refuses(address) {
                last = FetchError::Forbidden(host.to_owned(), why, address.ip());
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(tcp) => return Ok(tcp),
                Err(error) => last = FetchError::Connect(url.to_owned(), error),
            }
        }
        Err(last)
    }

    fn refuses(&self, address: SocketAddr) -> Option<&'static str> {
        forbidden(address.ip(), self.allow_local)
    }
}

/// Who knows the addresses of names.
enum Lookup {
    /// The system's resolver.
    System,
    /// Says what is written here, and who asked.
    #[cfg(test)]
    Written(tests::Zone),
}

impl Lookup {
    async fn find(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        match self {
            Self::System => Ok(tokio::net::lookup_host((host, port)).await?.collect()),
            #[cfg(test)]
            Self::Written(zone) => zone.find(host, port),
        }
    }
}

enum Answer {
    Body(String),
    Moved(String),
}

async fn exchange<S>(stream: S, uri: &Uri, url: &str) -> Result<Answer, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let http = |error| FetchError::Http(url.to_owned(), error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(http)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("cairn/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Url(url.to_owned()))?;
    // Dropped with the answer, and with it the connection.
    let driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await.map_err(http)?;
    let status = response.status();
    if status.is_redirection() {
        let to = response.headers().get(LOCATION);
        let to = to.and_then(|to| to.to_str().ok());
        let to = to.ok_or_else(|| FetchError::Redirect(url.to_owned(), "to nowhere"))?;
        return Ok(Answer::Moved(to.to_owned()));
    }
    if status != StatusCode::OK {
        return Err(FetchError::Status(url.to_owned(), status));
    }
    let broken = || FetchError::Body(url.to_owned());
    let body = Limited::new(response.into_body(), JWKS_BYTES_MAX);
    let body = body.collect().await.map_err(|_| broken())?.to_bytes();
    drop(driver);
    let body = String::from_utf8(body.into()).map_err(|_| broken())?;
    Ok(Answer::Body(body))
}

/// Whether the way from one URL to the next has no TLS any more, so that anybody on it could give other keys.
/// `HTTPS` is `https` (RFC 3986 3.1).
fn leaves_tls(from: &str, to: &str) -> bool {
    let is_https = |url: &str| {
        let parsed = url.parse::<Uri>();
        parsed.is_ok_and(|url| url.scheme_str() == Some("https"))
    };
    is_https(from) && !is_https(to)
}

/// Where a Location leads: a URL, or an absolute path at the same place.
fn redirected(from: &Uri, to: &str) -> Option<String> {
    let is_url = |to: Uri| matches!(to.scheme_str(), Some("http" | "https"));
    if to.parse::<Uri>().is_ok_and(is_url) {
        return Some(to.to_owned());
    }
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    (to.starts_with('/') && !to.starts_with("//")).then(|| format!("{scheme}://{authority}{to}"))
}

/// `jwks_uri` of a provider's configuration, which must be that of the issuer that was asked
/// (OpenID Connect Discovery 4.3).
fn jwks_uri(url: &str, configuration: &str) -> Result<String, FetchError> {
    let wrong = |why| FetchError::Discovery(url.to_owned(), why);
    let parsed: serde_json::Value =
        serde_json::from_str(configuration).map_err(|_| wrong("it is not JSON"))?;
    let text = |name: &str| parsed.get(name).and_then(serde_json::Value::as_str);
    let asked = url.split("/.well-known/").next().unwrap_or_default();
    let issuer = text("issuer").ok_or_else(|| wrong("it has no `issuer`"))?;
    if issuer.trim_end_matches('/') != asked {
        return Err(wrong("its `issuer` is another"));
    }
    let keys = text("jwks_uri").ok_or_else(|| wrong("it has no `jwks_uri`"))?;
    if leaves_tls(url, keys) {
        return Err(wrong("its `jwks_uri` is not https"));
    }
    Ok(keys.to_owned())
}

#[cfg(test)]
mod tests;
