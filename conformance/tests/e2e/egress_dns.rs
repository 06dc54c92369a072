//! Names of endpoints: looked up, followed, kept, and never leading where they must not
//! (specs/istio-waypoint.md 4.2; docs/egress.md).

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use cairn_conformance::app::App;
use cairn_conformance::client::{self, Connection};
use cairn_conformance::dns::{Dns, Says};
use cairn_conformance::lab::{Client, Lab};
use cairn_conformance::process::until;
use http_body_util::Full;

use crate::egress::{client_to, entry, get};

const HOST: &str = "api.example.com";
const AUTHORITY: &str = "api.example.com:80";

struct Outside {
    lab: Lab,
    dns: Dns,
    client: Client,
}

/// A waypoint that asks a DNS server of the test's own for `api.example.com`, and a client.
async fn outside(
    port: u16,
    resolution: &str,
    flags: &[&str],
    prepare: impl FnOnce(&Dns),
) -> Outside {
    let mut lab = Lab::new();
    let dns = Dns::start(lab.client_address()).await;
    prepare(&dns);
    let ports = format!("ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}]");
    lab.write(
        "out",
        &entry(
            "out",
            &format!("hosts: [{HOST}], resolution: {resolution}, {ports}"),
        ),
    );
    let server = dns.address.to_string();
    lab.start_with(&[&["--dns-server", &server], flags].concat())
        .await;
    let client = client_to(&lab, &[AUTHORITY]).await;
    Outside { lab, dns, client }
}

impl Outside {
    /// Who answers, or with which status nobody does.
    async fn who(&self) -> String {
        let answer = get(&self.client, AUTHORITY, HOST, "/")
            .await
            .expect("an answer");
        match answer.status().as_u16() {
            200 => client::echo(&answer).app,
            status => status.to_string(),
        }
    }

    async fn answers(&self, who: &str) {
        until(&format!("{who} answers"), async || self.who().await == who).await;
    }

    async fn reason(&self, words: &str) {
        let has = |line: &serde_json::Value| {
            line["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains(words))
        };
        self.lab.cairn().logged(words, has).await;
    }
}

/// Two applications at one port of two addresses.
fn pair(lab_address: SocketAddr) -> (App, App) {
    let IpAddr::V4(ip) = lab_address.ip() else {
        panic!("IPv4")
    };
    let [a, b, c, d] = ip.octets();
    let other = IpAddr::from([a, b, c, d.wrapping_add(100)]);
    let second = SocketAddr::new(other, lab_address.port());
    (App::http("first", lab_address), App::http("second", second))
}

#[tokio::test]
async fn a_name_is_followed_as_its_answer_changes_and_kept_while_nobody_answers() {
    let (first, second) = pair(Lab::new().free_address());
    let (one, two) = (first.address.ip(), second.address.ip());
    let outside = outside(first.address.port(), "DNS", &["--dns-allow-local"], |dns| {
        dns.leads(HOST, &[one]);
    })
    .await;
    outside.answers("first").await;
    let asked = outside.dns.asked(HOST);
    for _ in 0..50 {
        assert_eq!(outside.who().await, "first");
    }
    // Requests do not ask: only the end of the answer's second does, once for each address family.
    assert!(
        outside.dns.asked(HOST) < asked + 25,
        "{}",
        outside.dns.asked(HOST)
    );

    outside.dns.leads(HOST, &[two]);
    outside.answers("second").await;

    outside.dns.says(HOST, Says::Failure);
    let failures = ["result=\"failure\""];
    outside
        .lab
        .cairn()
        .metric_reaches("cairn_dns_lookups_total", &failures, 2.0)
        .await;
    assert_eq!(outside.who().await, "second");

    outside.dns.says(HOST, Says::Unknown);
    outside.answers("503").await;
    outside.reason("there is no such name (NXDOMAIN)").await;

    outside.dns.leads(HOST, &[one, two]);
    outside.answers("first").await;
    outside.answers("second").await;
}

#[tokio::test]
async fn of_a_round_robin_answer_the_first_address_counts() {
    let (first, second) = pair(Lab::new().free_address());
    let both = [first.address.ip(), second.address.ip()];
    let outside = outside(
        first.address.port(),
        "DNS_ROUND_ROBIN",
        &["--dns-allow-local"],
        |dns| {
            dns.leads(HOST, &both);
        },
    )
    .await;
    outside.answers("first").await;
    for _ in 0..20 {
        assert_eq!(outside.who().await, "first");
    }
    assert_eq!(second.requests(), 0);
}

/// specs/policies.md 5, SSRF; a host whose answer changes after it was checked.
#[tokio::test]
async fn no_answer_leads_to_the_machine_itself_or_to_metadata() {
    let app = App::http("own", Lab::new().free_address());
    let ip = app.address.ip();
    let guarded = outside(app.address.port(), "DNS", &[], |dns| dns.leads(HOST, &[ip])).await;
    guarded.answers("503").await;
    guarded
        .reason("a loopback address, where nothing is sent by name")
        .await;
    assert_eq!(app.connections(), 0);

    let lenient = outside(app.address.port(), "DNS", &["--dns-allow-local"], |dns| {
        dns.leads(HOST, &[ip]);
    })
    .await;
    lenient.answers("own").await;
    lenient
        .dns
        .leads(HOST, &["169.254.169.254".parse().unwrap()]);
    lenient.answers("503").await;
    lenient.reason("169.254.169.254, a metadata address").await;
    let forbidden = ["result=\"forbidden\""];
    assert!(
        lenient
            .lab
            .cairn()
            .metric("cairn_dns_lookups_total", &forbidden)
            .await
            >= 1.0
    );
}

/// An answer that does not fit into a datagram is asked for again over TCP, and cut to the limit.
#[tokio::test]
async fn of_a_thousand_addresses_some_are_used() {
    let port = Lab::new().free_address().port();
    let app = App::http("anywhere", SocketAddr::from(([0, 0, 0, 0], port)));
    let many: Vec<IpAddr> = (0..1_000u32)
        .map(|n| IpAddr::from([127, 77, (n / 250) as u8, (n % 250) as u8 + 1]))
        .collect();
    let outside = outside(port, "DNS", &["--dns-allow-local"], |dns| {
        dns.leads(HOST, &many)
    })
    .await;
    outside.answers("anywhere").await;
    for _ in 0..20 {
        assert_eq!(outside.who().await, "anywhere");
    }
    let page =
        client::text(&client::get_as("localhost", outside.lab.cairn().admin, "/clusters").await);
    let listed = page.matches("127.77.").count();
    assert!(
        (256..1_000).contains(&listed),
        "{listed} of {}",
        app.connections()
    );
}

#[tokio::test]
async fn inside_of_a_wildcard_the_request_says_where_it_goes() {
    let (first, second) = pair(Lab::new().free_address());
    let mut lab = Lab::new();
    let dns = Dns::start(lab.client_address()).await;
    dns.leads("a.example.org", &[first.address.ip()]);
    dns.leads("b.example.org", &[second.address.ip()]);
    let port = first.address.port();
    lab.write("out", &entry("out", &format!("hosts: ['*.example.org'], addresses: [240.0.0.9], resolution: DYNAMIC_DNS, ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}]")));
    let server = dns.address.to_string();
    lab.start_with(&["--dns-server", &server, "--dns-allow-local"])
        .await;
    let authority = "240.0.0.9:80";
    let client = client_to(&lab, &[authority]).await;
    for (host, app) in [
        ("a.example.org", "first"),
        ("B.Example.org:80", "second"),
        ("a.example.org.", "first"),
    ] {
        let answer = get(&client, authority, host, "/").await.unwrap();
        assert_eq!(answer.status(), 200, "{host}");
        assert_eq!(client::echo(&answer).app, app, "{host}");
    }
    // HTTP/2 has the host in its URI alone.
    let mut http2 = Connection::http2(client.to(authority, 0)).await;
    for (host, app) in [("a.example.org", "first"), ("b.example.org", "second")] {
        let request = http::Request::get(format!("http://{host}/"));
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let answer = http2.send(request).await.unwrap();
        assert_eq!(client::echo(&answer).app, app, "HTTP/2 {host}");
    }
    // More names that do not exist than there is room for take no place of those that do.
    let mut made_up = Connection::http2(client.to(authority, 0)).await;
    for n in 0..1_100 {
        let request = http::Request::get(format!("http://n{n}.example.org/"));
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let answer = made_up.send(request).await.unwrap();
        assert_eq!(answer.status(), 503, "{n}");
    }
    dns.leads("c.example.org", &[first.address.ip()]);
    for host in ["a.example.org", "c.example.org"] {
        let answer = get(&client, authority, host, "/").await.unwrap();
        assert_eq!(answer.status(), 200, "{host}");
    }
    for (host, status) in [
        ("example.org", 404),
        ("a.example.com", 404),
        ("evilexample.org", 404),
        ("169.254.169.254", 404),
        ("gone.example.org", 503),
    ] {
        let answer = get(&client, authority, host, "/").await.unwrap();
        assert_eq!(answer.status(), status, "{host}");
    }
    let reason = |words: &'static str| {
        move |line: &serde_json::Value| line["reason"].as_str().is_some_and(|r| r.contains(words))
    };
    lab.cairn()
        .logged(
            "outside",
            reason("host 'example.org' is not inside of *.example.org"),
        )
        .await;
    lab.cairn()
        .logged(
            "unknown",
            reason("DNS: gone.example.org: there is no such name"),
        )
        .await;
}
