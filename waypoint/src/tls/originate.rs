//! TLS that a DestinationRule or a BackendTLSPolicy asks for towards endpoints, inside the tunnel or
//! instead of it (specs/istio-waypoint.md 4.7). Files are read when a configuration comes into force and
//! again when they change; a request never waits for one.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use cairn_config_schema::snapshot::{ClientCertificate, Snapshot, TlsOrigination, TlsTrust};
use rustc_hash::FxHashMap;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client};

use super::identity::provider;
use super::outside::{Named, OutsideServer};
use super::rotate::Fixed;
use super::web::system_roots;
use crate::telemetry::counters;

/// How long what no snapshot asks for any more is kept: no request holds older settings for so long
/// before it connects.
const UNUSED_TIMEOUT: Duration = Duration::from_secs(10);

/// What is to be spoken inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// Whatever a TCP client speaks: nothing is offered.
    Unsaid,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, which the endpoint must agree to.
    Http2,
}

/// TLS for one connection. Two are equal when they offer and accept the same: same files in the same
/// version, same name, same protocol.
#[derive(Clone)]
pub struct Originate {
    number: u64,
    name: ServerName<'static>,
    alpn: Alpn,
    /// Or why there can be none.
    config: Result<Arc<ClientConfig>, Arc<str>>,
}

impl PartialEq for Originate {
    fn eq(&self, other: &Self) -> bool {
        (self.number, self.alpn, &self.name) == (other.number, other.alpn, &other.name)
    }
}

impl Eq for Originate {}

impl Hash for Originate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
        self.alpn.hash(state);
    }
}

impl std::fmt::Debug for Originate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Originate({}, {:?}, {:?})",
            self.number, self.name, self.alpn
        )
    }
}

impl Originate {
    /// Why there can be no handshake, whoever is at the other end.
    pub fn unusable(&self) -> Option<Arc<str>> {
        self.config.as_ref().err().cloned()
    }

    /// A handshake over a stream to an endpoint.
    ///
    /// # Errors
    /// Whatever makes the other end not the one that is meant, or files that can not be used.
    pub async fn connect<S>(&self, stream: S) -> io::Result<client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self
            .config
            .as_ref()
            .map_err(|why| io::Error::other(why.to_string()))?;
        let connector = TlsConnector::from(config.clone());
        let tls = connector.connect(self.name.clone(), stream).await?;
        let agreed = tls.get_ref().1.alpn_protocol();
        match (self.alpn, agreed) {
            (Alpn::Http2, agreed) if agreed != Some(b"h2") => {
                Err(io::Error::other("the endpoint does not speak h2 (ALPN)"))
            }
            _ => Ok(tls),
        }
    }
}

/// What TLS is asked to be.
struct Asked<'a> {
    trust: &'a TlsTrust,
    client: &'a Option<ClientCertificate>,
    names: &'a [Arc<str>],
}

impl<'a> From<&'a TlsOrigination> for Asked<'a> {
    fn from(tls: &'a TlsOrigination) -> Self {
        Self {
            trust: &tls.trust,
            client: &tls.client,
            names: &tls.names,
        }
    }
}

/// The files of one origination as they are in force.
struct Loaded {
    /// Of all versions of all files: a version has it for itself.
    number: u64,
    /// What was read, to tell whether it changed.
    read: Vec<Result<Vec<u8>, String>>,
    configs: Result<[Arc<ClientConfig>; 3], Arc<str>>,
}

type Table = FxHashMap<Arc<TlsOrigination>, Arc<Loaded>>;

/// TLS towards endpoints, by what is asked for.
#[derive(Default)]
pub struct Originations {
    table: ArcSwap<Table>,
    /// What the newest snapshot asks for, and since when. Held by whoever writes the table.
    wanted: Mutex<Option<(HashSet<Arc<TlsOrigination>>, Instant)>>,
}

impl Originations {
    /// Reads what a snapshot asks for and was not read yet. To be called before the snapshot is in force;
    /// what earlier ones asked for stays for a while, for the one before is in force until then.
    pub fn prepare(&self, snapshot: &Snapshot) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        let settings = snapshot.cluster_settings.values();
        let asked: HashSet<_> = settings.filter_map(|s| s.tls.clone()).collect();
        for tls in &asked {
            if !table.contains_key(tls) {
                table.insert(tls.clone(), first(tls));
            }
        }
        self.table.store(Arc::new(table));
        *wanted = Some((asked, Instant::now()));
    }

    /// Looks at all files again: what changed is for connections to come. Files that can not be used
    /// leave the last good ones in force. Forgets what has not been asked for since a while before `now`.
    pub fn refresh(&self, now: Instant) {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        let mut changed = false;
        if let Some((asked, since)) = &*wanted
            && now.duration_since(*since) > UNUSED_TIMEOUT
        {
            let before = table.len();
            table.retain(|tls, _| asked.contains(tls));
            changed = table.len() != before;
        }
        for (tls, loaded) in &mut table {
            if let Some(next) = renewed(tls, loaded) {
                changed = true;
                *loaded = next;
            }
        }
        if changed {
            self.table.store(Arc::new(table));
        }
    }

    /// TLS as it is asked for. `host`: the host of the request, where nothing else names the server.
    pub fn get(&self, tls: &TlsOrigination, alpn: Alpn, host: Option<&str>) -> Originate {
        let table = self.table.load();
        let loaded = table.get(tls);
        let named = tls.server_name.as_deref().or(host);
        let name = named.and_then(|name| ServerName::try_from(name.to_owned()).ok());
        let (number, config) = match (loaded, &name) {
            (_, None) => (
                0,
                Err("there is no name to ask the endpoint for (sni)".into()),
            ),
            (None, _) => (0, Err("the files for TLS are not read yet".into())),
            (Some(loaded), Some(_)) => {
                let config = loaded.configs.as_ref().map_err(Clone::clone);
                let [unsaid, http1, http2] = match config {
                    Ok(configs) => configs,
                    Err(why) => {
                        return Originate {
                            number: loaded.number,
                            name: nobody(),
                            alpn,
                            config: Err(why),
                        };
                    }
                };
                let config = match alpn {
                    Alpn::Unsaid => unsaid,
                    Alpn::Http1 => http1,
                    Alpn::Http2 => http2,
                };
                (loaded.number, Ok(config.clone()))
            }
        };
        Originate {
            number,
            name: name.unwrap_or_else(nobody),
            alpn,
            config,
        }
    }
}

/// TLS to a server that no object of the configuration names: with a certificate for `host` from one of the
/// roots in a file, or of the system. `client`: files of a certificate to show, and of its key. They are read
/// now.
///
/// # Errors
/// When the host can have no certificate, or a file can not be used.
pub fn outside(
    roots: Option<Arc<str>>,
    client: Option<(Arc<str>, Arc<str>)>,
    alpn: Alpn,
    host: &str,
) -> io::Result<Originate> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let asked = Asked {
        trust: &roots.map_or(TlsTrust::System, TlsTrust::File),
        client: &client.map(|(chain, key)| ClientCertificate { chain, key }),
        names: &[],
    };
    let [unsaid, http1, http2] = configs(&asked, &read(&asked)).map_err(io::Error::other)?;
    let config = match alpn {
        Alpn::Unsaid => unsaid,
        Alpn::Http1 => http1,
        Alpn::Http2 => http2,
    };
    Ok(Originate {
        number: 0,
        name,
        alpn,
        config: Ok(config),
    })
}

/// A name for a connection that will not come to be.
fn nobody() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

fn first(tls: &TlsOrigination) -> Arc<Loaded> {
    let loaded = load(tls, read(&tls.into()));
    if let Err(why) = &loaded.configs {
        tracing::error!(object = %tls.origin, error = %why, "files for TLS can not be used: nothing is sent to what needs them");
        counters::TLS_FILES.inc("failure");
    }
    Arc::new(loaded)
}

/// What is in force after another look at the files. `None`: nothing changed.
fn renewed(tls: &TlsOrigination, loaded: &Loaded) -> Option<Arc<Loaded>> {
    let read = read(&tls.into());
    let same = read == loaded.read;
    // Whom the system trusts is in no file that is listed here, and may be there by now.
    let again = loaded.configs.is_err() && tls.trust == TlsTrust::System;
    if same && !again {
        return None;
    }
    let next = load(tls, read);
    match (&next.configs, &loaded.configs) {
        (Err(_), Err(_)) if same => None,
        (Err(why), Ok(configs)) => {
            tracing::error!(object = %tls.origin, error = %why, "files for TLS can not be used, the last good ones stay in force");
            counters::TLS_FILES.inc("failure");
            Some(Arc::new(Loaded {
                number: loaded.number,
                read: next.read,
                configs: Ok(configs.clone()),
            }))
        }
        (Err(_), Err(_)) => Some(Arc::new(next)),
        (Ok(_), _) => {
            tracing::info!(object = %tls.origin, "files for TLS changed, in force for new connections");
            counters::TLS_FILES.inc("success");
            Some(Arc::new(next))
        }
    }
}

fn files<'a>(tls: &Asked<'a>) -> Vec<&'a str> {
    let trust = match tls.trust {
        TlsTrust::File(path) => Some(&**path),
        _ => None,
    };
    let client = tls.client.iter().flat_map(|c| [&*c.chain, &*c.key]);
    trust.into_iter().chain(client).collect()
}

fn read(tls: &Asked<'_>) -> Vec<Result<Vec<u8>, String>> {
    let read = |path| std::fs::read(path).map_err(|error| format!("{path}: {error}"));
    files(tls).into_iter().map(read).collect()
}

fn load(tls: &TlsOrigination, read: Vec<Result<Vec<u8>, String>>) -> Loaded {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    Loaded {
        number: NUMBERS.fetch_add(1, Ordering::Relaxed),
        configs: configs(&tls.into(), &read).map_err(Into::into),
        read,
    }
}

fn configs(
    tls: &Asked<'_>,
    read: &[Result<Vec<u8>, String>],
) -> Result<[Arc<ClientConfig>; 3], String> {
    let mut contents = Vec::with_capacity(read.len());
    for file in read {
        contents.push(file.as_deref().map_err(Clone::clone)?);
    }
    let mut contents = contents.into_iter();
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|e| e.to_string())?
        .dangerous();
    let roots = match tls.trust {
        TlsTrust::Unverified => None,
        TlsTrust::System => Some(of_system()?),
        TlsTrust::File(path) => Some(store(contents.next().unwrap_or_default(), path)?),
        TlsTrust::Certificates(pem) => Some(store(pem.as_bytes(), "the CA certificates")?),
    };
    let expected = roots.map(|roots| Named {
        roots,
        names: tls.names.to_vec(),
    });
    let builder = builder.with_custom_certificate_verifier(Arc::new(OutsideServer {
        expected,
        provider: provider.clone(),
    }));
    let mut config = match tls.client {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let chain = contents.next().unwrap_or_default();
            let key = contents.next().unwrap_or_default();
            let certified = certified(files, chain, key, &provider)?;
            builder.with_client_cert_resolver(Arc::new(Fixed(certified)))
        }
    };
    // A session that is resumed would outlive the certificates it was agreed with.
    config.resumption = Resumption::disabled();
    let speaking = |protocols: &[&[u8]]| {
        let mut config = config.clone();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    };
    Ok([speaking(&[]), speaking(&[b"http/1.1"]), speaking(&[b"h2"])])
}

/// Whom the system trusts, read until that succeeds once.
fn of_system() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(roots.clone());
    }
    let read = system_roots().map_err(|e| e.to_string())?;
    Ok(ROOTS.get_or_init(|| Arc::new(read)).clone())
}

fn certificates(pem: &[u8], path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Err(error) => Err(format!("{path}: {error}")),
        Ok(found) if found.is_empty() => Err(format!("{path}: no certificate in it")),
        Ok(found) => Ok(found),
    }
}

fn store(pem: &[u8], path: &str) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for root in certificates(pem, path)? {
        roots.add(root).map_err(|e| format!("{path}: {e}"))?;
    }
    Ok(Arc::new(roots))
}

fn certified(
    files: &ClientCertificate,
    chain: &[u8],
    key: &[u8],
    provider: &rustls::crypto::CryptoProvider,
) -> Result<Arc<CertifiedKey>, String> {
    let chain = certificates(chain, &files.chain)?;
    let of_key = |e: &dyn std::fmt::Display| format!("{}: {e}", files.key);
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| of_key(&e))?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|e| of_key(&e))?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    use cairn_config_schema::origin::{Kind, ObjectKey, Origin};
    use cairn_config_schema::snapshot::{ClusterKey, ClusterSettings};

    use super::*;

    fn tls(name: &str) -> Arc<TlsOrigination> {
        Arc::new(TlsOrigination {
            trust: TlsTrust::Unverified,
            client: None,
            server_name: Some(name.into()),
            names: Vec::new(),
            origin: Origin {
                kind: Kind::DestinationRule,
                key: ObjectKey::new("shop", "out"),
            },
        })
    }

    fn asking_for(tls: &Arc<TlsOrigination>) -> Snapshot {
        let settings = ClusterSettings {
            tls: Some(tls.clone()),
            ..ClusterSettings::default()
        };
        let key = ClusterKey::new(ObjectKey::new("shop", "out"), 443);
        Snapshot {
            cluster_settings: [(key, Arc::new(settings))].into(),
            ..Snapshot::default()
        }
    }

    /// A snapshot is prepared before it is in force: requests of the one before must go on meanwhile.
    #[test]
    fn what_the_last_snapshot_asked_for_stays_while_it_is_in_force() {
        let originations = Originations::default();
        let (old, new) = (tls("old.example"), tls("new.example"));
        let unusable = |tls: &TlsOrigination| {
            let originate = originations.get(tls, Alpn::Http1, None);
            originate.unusable().is_some()
        };
        originations.prepare(&asking_for(&old));
        originations.prepare(&asking_for(&new));
        assert!(!unusable(&old) && !unusable(&new));
        originations.refresh(Instant::now());
        assert!(!unusable(&old), "not yet");
        originations.refresh(Instant::now() + UNUSED_TIMEOUT * 2);
        assert!(unusable(&old) && !unusable(&new));
    }
}
