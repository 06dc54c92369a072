//! Hosts outside the mesh: ServiceEntries in front of real programs (specs/istio-waypoint.md 2.6, 4.2;
//! issue 3 item 2).

use bytes::Bytes;
use cairn_conformance::app::App;
use cairn_conformance::client::{self, Answer, Connection};
use cairn_conformance::lab::{Client, Lab};
use http_body_util::Full;

/// A ServiceEntry of the laboratory's namespace.
pub fn entry(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}"
    )
}

/// A client with an entrance for each authority, each under its own name at port 0.
pub async fn client_to(lab: &Lab, authorities: &[&str]) -> Client {
    let entrances = authorities
        .iter()
        .map(|a| (((*a).to_owned(), 0), (*a).to_owned()));
    lab.client_of("shop/viewer", lab.cairn().hbone, "shop/waypoint", entrances)
        .await
}

/// `GET path` of a host through an entrance.
pub async fn get(client: &Client, authority: &str, host: &str, path: &str) -> Option<Answer> {
    let request = http::Request::builder().uri(path).header("host", host);
    let request = request.body(Full::new(Bytes::new())).unwrap();
    let mut connection = Connection::http1(client.to(authority, 0)).await;
    connection.send(request).await.ok()
}

#[tokio::test]
async fn a_declared_host_is_reached_by_address_and_by_name_and_no_other_is() {
    let mut lab = Lab::new();
    let outside = App::http("outside", lab.free_address());
    let (ip, port) = (outside.address.ip(), outside.address.port());
    lab.write(
        "out",
        &entry(
            "out",
            &format!(
                "hosts: [api.example.com], addresses: [240.0.0.1], resolution: STATIC, \
                 ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}], endpoints: [{{address: {ip}}}]"
            ),
        ),
    );
    lab.write(
        "policy",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: get, namespace: shop}\nspec: {targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: out}], rules: [{to: [{operation: {paths: [/open]}}]}]}",
    );
    lab.start().await;
    let own = format!("{ip}:{port}");
    let authorities = [
        "240.0.0.1:80",
        "api.example.com:80",
        "other.example.com:80",
        "240.0.0.1:81",
        own.as_str(),
    ];
    let client = client_to(&lab, &authorities).await;
    for authority in ["240.0.0.1:80", "api.example.com:80"] {
        let answer = get(&client, authority, "api.example.com", "/open")
            .await
            .unwrap();
        assert_eq!(client::echo(&answer).app, "outside", "{authority}");
        let answer = get(&client, authority, "api.example.com", "/closed")
            .await
            .unwrap();
        assert_eq!(answer.status(), 403, "{authority}");
    }
    // Not even the endpoint's own address, which nobody declared as one to be dialled.
    for authority in ["other.example.com:80", "240.0.0.1:81", own.as_str()] {
        assert!(
            get(&client, authority, "api.example.com", "/open")
                .await
                .is_none(),
            "{authority}"
        );
    }
    assert_eq!(outside.requests(), 2);
}

#[tokio::test]
async fn what_is_dialled_in_a_block_is_where_it_goes_and_bytes_are_counted() {
    let mut lab = Lab::new();
    let outside = App::http("outside", lab.free_address());
    let (ip, port) = (outside.address.ip(), outside.address.port());
    lab.write(
        "out",
        &entry("out", &format!("hosts: [any.example.com], addresses: ['{ip}', 127.0.0.0/8], ports: [{{number: {port}, name: tcp, protocol: TCP}}]")),
    );
    lab.start().await;
    let (declared, elsewhere) = (format!("{ip}:{port}"), format!("127.0.0.9:{port}"));
    let client = client_to(&lab, &[&declared, &elsewhere]).await;
    let answer = get(&client, &declared, "any.example.com", "/")
        .await
        .unwrap();
    assert_eq!(client::echo(&answer).app, "outside");
    // Loopback is for nobody, unless it is declared address by address.
    assert!(
        get(&client, &elsewhere, "any.example.com", "/")
            .await
            .is_none()
    );
    drop(answer);
    let series = "istio_tcp_sent_bytes_total";
    let labels = [
        "destination_service=\"any.example.com\"",
        "destination_service_name=\"any.example.com\"",
        "destination_service_namespace=\"shop\"",
    ];
    lab.cairn().metric_reaches(series, &labels, 100.0).await;
}

/// `resolution: NONE` with HTTP: each request goes where its client dialled.
#[tokio::test]
async fn requests_go_to_the_address_that_was_dialled() {
    let mut lab = Lab::new();
    let first = lab.free_address();
    let second = std::net::SocketAddr::new(lab.free_address().ip(), first.port());
    let (one, two) = (App::http("one", first), App::http("two", second));
    let (a, b, port) = (first.ip(), second.ip(), first.port());
    lab.write(
        "out",
        &entry("out", &format!("hosts: [any.example.com], addresses: ['{a}', '{b}'], ports: [{{number: {port}, name: http, protocol: HTTP}}]")),
    );
    lab.start().await;
    let authorities = [first.to_string(), second.to_string()];
    let client = client_to(&lab, &[&authorities[0], &authorities[1]]).await;
    for _ in 0..5 {
        for (authority, app) in authorities.iter().zip(["one", "two"]) {
            let answer = get(&client, authority, "any.example.com", "/").await;
            assert_eq!(client::echo(&answer.unwrap()).app, app);
        }
    }
    assert_eq!((one.requests(), two.requests()), (5, 5));
}

#[tokio::test]
async fn a_host_that_is_not_exported_to_the_caller_is_not_there_for_it() {
    let mut lab = Lab::new();
    let outside = App::http("outside", lab.free_address());
    let (ip, port) = (outside.address.ip(), outside.address.port());
    lab.write(
        "out",
        &entry("out", &format!("hosts: [api.example.com], resolution: STATIC, exportTo: ['.'], ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}], endpoints: [{{address: {ip}}}]")),
    );
    lab.start().await;
    let authority = "api.example.com:80";
    let client = client_to(&lab, &[authority]).await;
    assert_eq!(
        get(&client, authority, "api.example.com", "/")
            .await
            .unwrap()
            .status(),
        200
    );
    let entrances = [((authority.to_owned(), 0), authority.to_owned())];
    let other = lab
        .client_of("bank/teller", lab.cairn().hbone, "shop/waypoint", entrances)
        .await;
    assert!(
        get(&other, authority, "api.example.com", "/")
            .await
            .is_none()
    );
}
