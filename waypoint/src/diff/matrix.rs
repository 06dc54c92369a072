//! A matrix of requests from the rules of both configurations: every value that a rule names and what
//! is beside its boundary, in all combinations, or, where these are too many, evenly chosen ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use cairn_config_schema::snapshot::{
    AppProtocol, Binding, ClusterKey, ServicePort, Snapshot, Workload,
};
use http::Method;
use http::header::{HOST, HeaderName, HeaderValue};

use super::case::Case;
use super::terms::{NOBODY, Terms};

/// Workloads that are asked as clients, of each configuration.
const WORKLOADS_MAX: usize = 200;

/// Requests, made as they are asked for.
pub struct Matrix {
    ports: Vec<PortCases>,
    /// Combinations there are.
    pub combinations: u128,
    /// Combinations that are asked.
    pub asked: usize,
}

/// A client: identity and address.
type Client = (String, IpAddr);

/// What both configurations say of one port.
#[derive(Default)]
struct Port {
    terms: Terms,
    hosts: BTreeSet<String>,
    /// Whether either declares anything but TCP.
    may_be_http: bool,
}

/// What requests to one port vary in.
struct PortCases {
    to: SocketAddr,
    /// Whether no HTTP is spoken there under either configuration. Where one of them has HTTP there, each is asked in
    /// what the port declares.
    streams: bool,
    clients: Vec<Client>,
    hosts: Vec<String>,
    methods: Vec<Method>,
    paths: Vec<String>,
    /// `None`: without any of them.
    headers: Vec<Option<(HeaderName, HeaderValue)>>,
    asked: usize,
}

impl Matrix {
    /// At most `most` requests to the ports that either configuration serves.
    pub fn new(old: &Snapshot, new: &Snapshot, most: usize) -> Self {
        let clients = workloads(old).chain(workloads(new));
        let clients: BTreeSet<Client> = clients.collect();
        let mut ports: BTreeMap<SocketAddr, Port> = BTreeMap::new();
        for snapshot in [old, new] {
            for (at, host, key, port) in served(snapshot) {
                let found = ports.entry(at).or_default();
                found.terms.add_port(snapshot, &key, port);
                found.hosts.insert(host);
                found.may_be_http |= port.protocol != AppProtocol::Tcp;
            }
        }
        let mut ports: Vec<PortCases> = ports
            .into_iter()
            .map(|(to, found)| PortCases::new(to, found, &clients))
            .collect();
        let combinations = ports.iter().map(PortCases::combinations).sum();
        share(&mut ports, most);
        Self {
            asked: ports.iter().map(|port| port.asked).sum(),
            combinations,
            ports,
        }
    }

    /// The requests.
    pub fn cases(&self) -> impl Iterator<Item = Case> {
        let ports = self.ports.iter();
        ports.flat_map(|port| (0..port.asked).map(|number| port.case(number)))
    }
}

/// Gives each port its share of what may be asked; what one does not need is left to others.
fn share(ports: &mut [PortCases], most: usize) {
    let mut by_size: Vec<&mut PortCases> = ports.iter_mut().collect();
    by_size.sort_by_key(|port| port.combinations());
    let mut left = most;
    let count = by_size.len();
    for (index, port) in by_size.into_iter().enumerate() {
        let share = left / (count - index).max(1);
        let all = usize::try_from(port.combinations()).unwrap_or(usize::MAX);
        port.asked = all.min(share);
        left -= port.asked;
    }
}

fn workloads(snapshot: &Snapshot) -> impl Iterator<Item = Client> {
    let all: BTreeMap<_, &Workload> = (snapshot.workloads.values())
        .map(|workload| (&workload.key, &**workload))
        .collect();
    let address = |w: &Workload| w.addresses.first().copied().unwrap_or(nowhere());
    let clients = all.into_values().take(WORKLOADS_MAX);
    clients.map(move |w| (w.identity.uri().to_owned(), address(w)))
}

fn nowhere() -> IpAddr {
    IpAddr::V4(Ipv4Addr::UNSPECIFIED)
}

/// Every address and port that is served, with the host that a client would send.
fn served(
    snapshot: &Snapshot,
) -> impl Iterator<Item = (SocketAddr, String, ClusterKey, &ServicePort)> {
    let services = snapshot.services.values();
    let services = services.filter(|s| s.binding == Binding::Served);
    services.flat_map(|service| {
        let first = service.addresses.first().copied();
        let ports = first
            .into_iter()
            .flat_map(|ip| service.ports.iter().map(move |p| (ip, p)));
        ports.map(|(ip, port)| {
            let key = ClusterKey::new(service.key.clone(), port.number);
            let host = format!("{}.{}", service.key.name, service.key.namespace);
            let host = match port.number {
                80 => host,
                number => format!("{host}:{number}"),
            };
            (SocketAddr::new(ip, port.number), host, key, port)
        })
    })
}

impl PortCases {
    fn new(to: SocketAddr, port: Port, workloads: &BTreeSet<Client>) -> Self {
        let Port {
            terms,
            hosts: own_hosts,
            may_be_http,
        } = port;
        let stranger = format!("spiffe://cluster.local/ns/{NOBODY}/sa/{NOBODY}");
        let named = terms.principals.iter();
        let named = named.map(|principal| (format!("spiffe://{principal}"), nowhere()));
        let placed = terms.addresses.iter().map(|ip| (stranger.clone(), *ip));
        let mut clients: Vec<Client> = vec![(stranger.clone(), nowhere())];
        clients.extend(named.chain(placed).chain(workloads.iter().cloned()));
        // One that nobody could have is refused at the handshake under both.
        clients.retain(|(uri, _)| cairn_config_schema::identity::Identity::parse(uri).is_ok());
        let mut methods: Vec<Method> = (terms.methods.iter())
            .filter_map(|method| method.parse().ok())
            .collect();
        // One that no rule names.
        let usual = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
        let other = usual.into_iter().find(|method| !methods.contains(method));
        methods.extend(other);
        let mut paths: BTreeSet<String> = terms.paths;
        paths.extend(["/".to_owned(), format!("/{NOBODY}")]);
        let headers = terms.headers.iter().filter_map(|(name, value)| {
            let name: HeaderName = name.parse().ok()?;
            Some(Some((name, HeaderValue::from_str(value).ok()?)))
        });
        let hosts = own_hosts.into_iter().chain(terms.hosts);
        let hosts: BTreeSet<String> = hosts.collect();
        Self {
            to,
            streams: !may_be_http,
            clients,
            hosts: hosts.into_iter().collect(),
            methods,
            paths: paths.into_iter().collect(),
            headers: [None].into_iter().chain(headers).collect(),
            asked: 0,
        }
    }

    fn sizes(&self) -> [usize; 5] {
        match self.streams {
            true => [self.clients.len(), 1, 1, 1, 1],
            false => [
                self.clients.len(),
                self.hosts.len(),
                self.methods.len(),
                self.paths.len(),
                self.headers.len(),
            ],
        }
    }

    fn combinations(&self) -> u128 {
        let sizes = self.sizes().map(|size| size as u128);
        sizes.iter().product()
    }

    /// A combination by its number: all of them in order, or, of too many, at even distances with
    /// every value of every kind among them.
    fn case(&self, number: usize) -> Case {
        let total = self.combinations();
        let mut at = match total <= self.asked as u128 {
            true => number as u128,
            false => spread(number as u128, total, self.asked as u128),
        };
        let mut pick = |size: usize| {
            let size = size.max(1) as u128;
            let index = at % size;
            at /= size;
            usize::try_from(index).unwrap_or_default()
        };
        let [clients, hosts, methods, paths, headers] = self.sizes().map(&mut pick);
        let (from, ip) = match self.clients.get(clients) {
            Some((from, ip)) => (from.clone(), *ip),
            None => (String::new(), nowhere()),
        };
        let host = self
            .hosts
            .get(hosts)
            .and_then(|h| HeaderValue::from_str(h).ok());
        let host = host.filter(|_| !self.streams).map(|host| (HOST, host));
        let header = self.headers.get(headers).cloned().flatten();
        let header = header.filter(|_| !self.streams);
        let path = self.paths.get(paths).filter(|_| !self.streams);
        Case {
            from,
            ip,
            to: self.to.to_string(),
            tcp: self.streams,
            method: self.methods.get(methods).cloned().unwrap_or_default(),
            path: path.cloned().unwrap_or_default(),
            headers: host.into_iter().chain(header).collect(),
        }
    }
}

/// The number of the combination that is asked as number `at` of `asked`: equal distances, each with a
/// scatter of its own, so that no value is left out for its place.
fn spread(at: u128, total: u128, asked: u128) -> u128 {
    let distance = total / asked.max(1);
    let scatter = at.wrapping_mul(0x9E37_79B9_7F4A_7C15) % distance.max(1);
    (at * distance + scatter) % total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(paths: usize) -> PortCases {
        let mut terms = Terms::default();
        terms.paths.extend((0..paths).map(|n| format!("/{n:04}")));
        let port = Port {
            terms,
            hosts: BTreeSet::from(["web.shop".to_owned()]),
            may_be_http: true,
        };
        let mut cases = PortCases::new("10.0.0.1:80".parse().unwrap(), port, &BTreeSet::new());
        cases.asked = usize::try_from(cases.combinations()).unwrap();
        cases
    }

    #[test]
    fn all_combinations_are_asked_once_if_there_is_room() {
        let port = port(10);
        let cases: BTreeSet<String> = (0..port.asked).map(|n| port.case(n).to_string()).collect();
        assert_eq!(cases.len() as u128, port.combinations());
    }

    #[test]
    fn of_too_many_the_chosen_ones_are_spread_over_all_values() {
        let mut port = port(1_000);
        port.asked = 500;
        let paths: BTreeSet<String> = (0..port.asked).map(|n| port.case(n).path).collect();
        assert!(paths.len() > 400, "{} paths", paths.len());
        assert!(paths.iter().next_back().unwrap() > &"/0900".to_owned());
    }

    #[test]
    fn what_a_small_port_does_not_need_is_left_to_others() {
        let mut ports = [port(1_000), port(0)];
        share(&mut ports, 100);
        let needed = usize::try_from(ports[1].combinations()).unwrap();
        assert_eq!([ports[0].asked, ports[1].asked], [100 - needed, needed]);
    }
}
