//! What is fetched from where, by names that these tests give their addresses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Addresses of names, and the names that were asked for, in this order.
#[derive(Default)]
pub(super) struct Zone {
    names: HashMap<&'static str, Vec<IpAddr>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Zone {
    fn of(names: &[(&'static str, &[&str])]) -> Self {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let names = names.iter();
        Self {
            names: names.map(|(name, at)| (*name, addresses(at))).collect(),
            asked: Arc::default(),
        }
    }

    pub(super) fn find(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(host.to_owned());
        let found = self.names.get(host).ok_or(std::io::ErrorKind::NotFound)?;
        Ok(found.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
    }

    /// A fetcher that knows these names and no others, and the names it asks for.
    fn fetcher(self, allow_local: bool) -> (Fetcher, Arc<Mutex<Vec<String>>>) {
        let asked = self.asked.clone();
        let names = Lookup::Written(self);
        let fetcher = Fetcher {
            names,
            ..Fetcher::new(allow_local)
        };
        (fetcher, asked)
    }
}

/// A provider on loopback that gives every request the same answer; how many connections it has taken.
async fn provider(answer: impl FnOnce(u16) -> String) -> (u16, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = answer(port);
    let taken = Arc::<Mutex<usize>>::default();
    let count = taken.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            *count.lock().unwrap() += 1;
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(client.read_u8().await.unwrap());
            }
            client.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (port, taken)
}

fn moved(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
}

fn says(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
}

const METADATA: [&str; 4] = [
    "169.254.169.254",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:100.100.100.200",
];

#[tokio::test(flavor = "current_thread")]
async fn a_name_of_a_metadata_address_is_not_fetched_from() {
    for address in METADATA {
        for allow_local in [false, true] {
            let zone = Zone::of(&[("keys.example", &[address])]);
            let (fetcher, asked) = zone.fetcher(allow_local);
            let error = fetcher.get("http://keys.example/").await.unwrap_err();
            let told = error.to_string();
            assert!(matches!(error, FetchError::Forbidden(..)), "{told}");
            assert!(
                told.contains("keys.example is a metadata address"),
                "{told}"
            );
            assert_eq!(*asked.lock().unwrap(), ["keys.example"]);
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn nobody_is_connected_to_at_an_address_that_is_refused() {
    let (port, taken) = provider(|_| says("{}")).await;
    let url = format!("http://keys.example:{port}/");
    let names: &[(&str, &[&str])] = &[("keys.example", &["127.0.0.1"])];
    let (fetcher, _) = Zone::of(names).fetcher(false);
    let error = fetcher.get(&url).await.unwrap_err();
    assert!(matches!(error, FetchError::Forbidden(..)), "{error}");
    // The connection of the second fetch is the first that the provider sees.
    let (fetcher, asked) = Zone::of(names).fetcher(true);
    assert_eq!(fetcher.get(&url).await.unwrap(), "{}");
    assert_eq!(*taken.lock().unwrap(), 1);
    // A name that was looked at is not looked up again, when it could lead elsewhere.
    assert_eq!(*asked.lock().unwrap(), ["keys.example"]);
}

#[tokio::test(flavor = "current_thread")]
async fn of_several_addresses_the_refused_ones_are_passed_over() {
    let (port, taken) = provider(|_| says("{}")).await;
    let addresses: &[&str] = &["169.254.169.254", "fd00:ec2::254", "127.0.0.1"];
    let (fetcher, _) = Zone::of(&[("keys.example", addresses)]).fetcher(true);
    let url = format!("http://keys.example:{port}/");
    assert_eq!(fetcher.get(&url).await.unwrap(), "{}");
    assert_eq!(*taken.lock().unwrap(), 1);
}

#[tokio::test(flavor = "current_thread")]
async fn a_redirect_leads_to_no_metadata_address() {
    for address in METADATA {
        let (port, _) = provider(|_| moved("http://inside.example/latest")).await;
        let zone = Zone::of(&[
            ("keys.example", &["127.0.0.1"]),
            ("inside.example", &[address]),
        ]);
        let (fetcher, asked) = zone.fetcher(true);
        let url = format!("http://keys.example:{port}/");
        let error = fetcher.get(&url).await.unwrap_err();
        let told = error.to_string();
        assert!(matches!(error, FetchError::Forbidden(..)), "{told}");
        assert!(
            told.contains("inside.example is a metadata address"),
            "{told}"
        );
        assert_eq!(*asked.lock().unwrap(), ["keys.example", "inside.example"]);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_discovered_address_of_keys_is_looked_at_too() {
    let configuration = |port: u16| {
        let keys = "\"jwks_uri\": \"http://inside.example/\"";
        says(&format!(
            "{{\"issuer\": \"http://keys.example:{port}\", {keys}}}"
        ))
    };
    let (port, _) = provider(configuration).await;
    let zone = Zone::of(&[
        ("keys.example", &["127.0.0.1"]),
        ("inside.example", &["169.254.169.254"]),
    ]);
    let (fetcher, _) = zone.fetcher(true);
    let source = RemoteKeys {
        url: format!("http://keys.example:{port}/.well-known/openid-configuration").into(),
        discovery: true,
    };
    let error = fetcher.keys(&source).await.unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains("inside.example is a metadata address"),
        "{told}"
    );
}

#[test]
fn a_redirect_is_a_url_or_a_path() {
    let from: Uri = "https://idp.example/a/b".parse().unwrap();
    let to = |to| redirected(&from, to);
    assert_eq!(to("/keys").as_deref(), Some("https://idp.example/keys"));
    assert_eq!(to("http://other/").as_deref(), Some("http://other/"));
    assert_eq!(to("HTTPS://other/").as_deref(), Some("HTTPS://other/"));
    assert_eq!(to("//other/keys"), None);
    assert_eq!(to("keys"), None);
    assert_eq!(to("file:///etc/passwd"), None);
}

/// RFC 3986 3.1: schemes are compared without their case.
#[test]
fn from_tls_nothing_leads_to_where_there_is_none() {
    for from in ["https://idp.example/", "HTTPS://idp.example/", "HttpS://a"] {
        for to in [
            "http://other/",
            "HTTP://other/",
            "Http://other/",
            "other",
            "",
        ] {
            assert!(leaves_tls(from, to), "{from} {to}");
        }
        for to in ["https://other/", "HTTPS://other/"] {
            assert!(!leaves_tls(from, to), "{from} {to}");
        }
    }
    assert!(!leaves_tls("HTTP://idp.example/", "http://other/"));
    let upper = "HTTPS://idp.example/.well-known/openid-configuration";
    let of = |keys: &str| {
        let issuer = "HTTPS://idp.example";
        jwks_uri(
            upper,
            &format!("{{\"issuer\":\"{issuer}\",\"jwks_uri\":\"{keys}\"}}"),
        )
    };
    assert!(of("https://idp.example/keys").is_ok());
    assert!(of("http://idp.example/keys").is_err());
}

#[test]
fn a_provider_speaks_for_its_own_issuer_only() {
    let url = "https://idp.example/realm/.well-known/openid-configuration";
    let of = |issuer: &str, keys: &str| {
        jwks_uri(
            url,
            &format!("{{\"issuer\":\"{issuer}\",\"jwks_uri\":\"{keys}\"}}"),
        )
    };
    let keys = "https://idp.example/keys";
    assert_eq!(of("https://idp.example/realm", keys).unwrap(), keys);
    assert_eq!(of("https://idp.example/realm/", keys).unwrap(), keys);
    assert!(of("https://other.example/realm", keys).is_err());
    assert!(of("https://idp.example/realm", "http://idp.example/keys").is_err());
    assert!(jwks_uri(url, "{}").is_err());
    assert!(jwks_uri(url, "<html>").is_err());
}

#[tokio::test(flavor = "current_thread")]
async fn an_address_of_a_provider_writes_no_log() {
    let url = format!(
        "https://idp.example/\n\u{1b}[2J\u{202e}{}",
        "a".repeat(10_000)
    );
    let error = Fetcher::new(false).get(&url).await.unwrap_err();
    assert!(matches!(error, FetchError::Url(_)), "{error:?}");
    let text = error.to_string();
    let begin = r"https://idp.example/\n\u{1b}[2J\u{202e}aaa";
    assert!(text.starts_with(begin) && text.len() < 300, "{text}");
}

#[tokio::test(flavor = "current_thread")]
async fn loopback_is_refused_however_it_is_written() {
    let fetcher = Fetcher::new(false);
    for url in [
        "http://127.0.0.1:1/",
        "http://localhost:1/",
        "http://[::1]:1/",
        "http://[::ffff:127.0.0.1]:1/",
        "http://0.0.0.0:1/",
        "http://169.254.169.254/latest/meta-data",
    ] {
        let error = fetcher.get(url).await.unwrap_err();
        assert!(matches!(error, FetchError::Forbidden(..)), "{url}: {error}");
    }
    let allowed = Fetcher::new(true).get("http://127.0.0.1:1/").await;
    assert!(matches!(allowed, Err(FetchError::Connect(..))));
}
