//! Session persistence over real sockets (GEP-1619, specs/gateway-api.md 3; issue 3 item 1).

use std::collections::HashSet;
use std::process::Command;

use cairn_conformance::app::App;
use cairn_conformance::client::{self, Answer};
use cairn_conformance::lab::{Client, Lab, Port, Reach};
use cairn_conformance::workspace;
use http::Method;

fn route(weights: [u32; 2], session: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web, namespace: shop}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: web}}]
  rules:
  - backendRefs: [{{name: v1, port: 80, weight: {}}}, {{name: v2, port: 80, weight: {}}}]
    sessionPersistence: {{{session}}}
",
        weights[0], weights[1]
    )
}

/// `web` before three pods each of `v1` and `v2`.
async fn lab(session: &str) -> (Lab, Client) {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    for service in ["v1", "v2"] {
        lab.service(service, &[Port::new("http", 80)]);
        for pod in ["a", "b", "c"] {
            let name = format!("{service}-{pod}");
            // An application lives as long as the process here.
            let reach = Reach::Hbone;
            std::mem::forget(lab.pod(service, &name, reach, |at| App::http(&name, at)));
        }
    }
    lab.write("routes", &route([50, 50], session));
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    (lab, client)
}

async fn get(client: &Client, headers: &[(&str, &str)]) -> Answer {
    get_at(client, "/", headers).await
}

async fn get_at(client: &Client, path: &str, headers: &[(&str, &str)]) -> Answer {
    let to = client.to("web", 80);
    let answer = client::send(to, Method::GET, path, headers, b"").await;
    assert_eq!(answer.status(), 200);
    answer
}

fn cookie(answer: &Answer) -> (String, String) {
    let line = answer.headers()["set-cookie"].to_str().unwrap();
    let (pair, attributes) = line.split_once("; ").unwrap();
    (pair.to_owned(), attributes.to_owned())
}

/// The pods that so many requests of a session go to.
async fn pods(client: &Client, headers: &[(&str, &str)], requests: usize) -> HashSet<String> {
    let mut pods = HashSet::new();
    for _ in 0..requests {
        let answer = get(client, headers).await;
        assert!(!answer.headers().contains_key("set-cookie"), "it has one");
        pods.insert(client::echo(&answer).app);
    }
    pods
}

#[tokio::test]
async fn a_session_stays_at_its_pod_and_its_backend() {
    let (lab, client) = lab("sessionName: cart").await;
    let mut sessions = Vec::new();
    let of_v2 = |sessions: &[(String, String)]| {
        let found = sessions.iter().find(|(_, pod)| pod.starts_with("v2"));
        found.cloned()
    };
    while sessions.len() < 8 || of_v2(&sessions).is_none() {
        let first = get(&client, &[]).await;
        let (pair, attributes) = cookie(&first);
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict");
        assert!(pair.starts_with("cart=") && pair.len() == "cart=".len() + 48);
        sessions.push((pair, client::echo(&first).app));
    }
    for (pair, pod) in &sessions {
        let others = format!("cart=nonsense; x=1; {pair}");
        let went = pods(&client, &[("cookie", &others)], 6).await;
        assert_eq!(went, HashSet::from([pod.clone()]));
    }
    // A weight of 0 takes new sessions away, not those that are there (GEP-1619, "Traffic Splitting").
    lab.write("routes", &route([100, 0], "sessionName: cart"));
    lab.cairn()
        .metric_reaches("cairn_snapshot_version", &[], 2.0)
        .await;
    for _ in 0..12 {
        assert!(client::echo(&get(&client, &[]).await).app.starts_with("v1"));
    }
    let (pair, pod) = of_v2(&sessions).unwrap();
    let went = pods(&client, &[("cookie", &pair)], 6).await;
    assert_eq!(went, HashSet::from([pod]));
}

/// GEP-1619, "Two Routes Rules have Session Persistence to the Same Service": they do not share it, whatever
/// it is called. One cookie holds both.
#[tokio::test]
async fn two_rules_with_one_session_name_share_no_session() {
    let (lab, client) = lab("sessionName: unused").await;
    let rule = |path: &str| {
        format!(
            "  - matches: [{{path: {{value: /{path}}}}}]
    backendRefs: [{{name: v1, port: 80}}, {{name: v2, port: 80}}]
    sessionPersistence: {{sessionName: cart}}
"
        )
    };
    let head = route([1, 1], "");
    let (head, _) = head.split_once("  - ").unwrap();
    lab.write("routes", &format!("{head}{}{}", rule("a"), rule("b")));
    lab.cairn()
        .metric_reaches("cairn_snapshot_version", &[], 2.0)
        .await;
    let mut together = HashSet::new();
    for _ in 0..24 {
        let first = get_at(&client, "/a", &[]).await;
        let (of_a, _) = cookie(&first);
        let second = get_at(&client, "/b", &[("cookie", &of_a)]).await;
        let (both, _) = cookie(&second);
        let (a, b) = (client::echo(&first).app, client::echo(&second).app);
        for (path, pod) in [("/a", &a), ("/b", &b), ("/a", &a)] {
            let again = get_at(&client, path, &[("cookie", &both)]).await;
            assert_eq!(client::echo(&again).app, *pod, "{path}");
            assert!(!again.headers().contains_key("set-cookie"), "it has one");
        }
        together.insert(a == b);
    }
    assert!(
        together.contains(&false),
        "24 times the same of six pods by chance"
    );
}

#[tokio::test]
async fn explain_says_what_carries_a_session() {
    let (lab, _client) = lab("type: Header, sessionName: x-cart").await;
    let mut command = Command::new(workspace::cairn());
    command.arg("explain").arg("--config").arg(lab.config());
    let to = format!("{}:80", lab.virtual_ip("web"));
    command.args([
        "--from",
        "spiffe://cluster.local/ns/shop/sa/viewer",
        "--to",
        &to,
    ]);
    let said = command.output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let line = "a session keeps its endpoint, by its header x-cart";
    assert_eq!(said.matches(line).count(), 2, "of either backend: {said}");
}

#[tokio::test]
async fn a_session_whose_pod_is_gone_goes_on_elsewhere_in_its_backend() {
    let (mut lab, client) = lab("type: Header, sessionName: x-cart").await;
    let first = get(&client, &[]).await;
    let token = first.headers()["x-cart"].to_str().unwrap().to_owned();
    let pod = client::echo(&first).app;
    let went = pods(&client, &[("x-cart", &token)], 4).await;
    assert_eq!(went, HashSet::from([pod.clone()]));

    lab.remove_pod(&pod);
    lab.cairn()
        .metric_reaches("cairn_snapshot_version", &[], 2.0)
        .await;
    let moved = get(&client, &[("x-cart", &token)]).await;
    let new = moved.headers()["x-cart"].to_str().unwrap().to_owned();
    let now = client::echo(&moved).app;
    assert_ne!(now, pod);
    assert_eq!(now[..2], pod[..2], "the same version of the service");
    let went = pods(&client, &[("x-cart", &new)], 4).await;
    assert_eq!(went, HashSet::from([now]));
}

/// Who makes up a token gets to an endpoint of the route's backends, as without one.
#[tokio::test]
async fn a_token_that_nobody_gave_out_is_none() {
    let (_lab, client) = lab("sessionName: cart, absoluteTimeout: 1h").await;
    let real = cookie(&get(&client, &[]).await).0;
    let (kept, _) = real.split_at(real.len() - 16);
    let long_ago = format!("{kept}{:016x}", 1);
    for token in [
        "cart=127.0.0.1:80",
        &format!("cart={}", "f".repeat(48)),
        &long_ago,
    ] {
        let answer = get(&client, &[("cookie", token)]).await;
        let (new, _) = cookie(&answer);
        assert_ne!(new, token);
    }
}

#[tokio::test]
async fn a_permanent_cookie_says_how_long_it_lasts() {
    let session = "absoluteTimeout: 90s, idleTimeout: 60s, cookieConfig: {lifetimeType: Permanent}";
    let (_lab, client) = lab(session).await;
    let (pair, attributes) = cookie(&get(&client, &[]).await);
    assert!(pair.starts_with("cairn-session-"), "{pair}");
    assert_eq!(attributes, "Max-Age=90; Path=/; HttpOnly; SameSite=Strict");
}
