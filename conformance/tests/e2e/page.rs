//! The page at the admin address, in headless Chromium: it shows flows soon after they happened, the map of
//! what was really asked, and the data path's own answers.

use std::time::{Duration, Instant};

use cairn_conformance::app::App;
use cairn_conformance::browser::Browser;
use cairn_conformance::client;
use cairn_conformance::lab::{Lab, Port, Reach};
use cairn_conformance::workspace;
use serde_json::{Value, json};

use crate::manifests::DENY_ADMIN;

const MESH: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop, annotations: {istio.io/dry-run: \"true\"}}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}]
  action: DENY
  rules: [{to: [{operation: {paths: [\"/fine*\"]}}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: canary, namespace: shop}
spec:
  parentRefs: [{group: \"\", kind: Service, name: web}]
  rules:
  - backendRefs:
    - {name: web, port: 80, weight: 9}
    - {name: web-next, port: 80, weight: 1}
";

struct Open {
    lab: Lab,
    browser: Browser,
    page: String,
    _apps: [App; 2],
}

async fn open() -> Open {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    lab.service("web-next", &[Port::new("http", 80)]);
    let apps = ["web", "web-next"].map(|name| {
        let pod = format!("{name}-a");
        lab.pod(name, &pod, Reach::Hbone, |at| App::http(name, at))
    });
    // Nobody asks it.
    lab.service("idle", &[Port::new("http", 80)]);
    lab.pod_at("idle", "idle-a", Reach::Hbone, lab.free_address());
    lab.write("policy", DENY_ADMIN);
    lab.write("more", MESH);
    lab.start().await;
    let browser = Browser::start(lab.folder(), 1200, 800).await;
    let page = format!("http://{}/", lab.cairn().admin);
    Open {
        lab,
        browser,
        page,
        _apps: apps,
    }
}

/// Keeps a screenshot for docs/ when SCREENSHOTS=1 says so.
async fn keep(browser: &mut Browser, name: &str) {
    let picture = browser.screenshot().await;
    assert!(picture.len() > 5_000, "{name} is empty");
    if std::env::var("SCREENSHOTS").is_ok_and(|on| on == "1") {
        let folder = workspace::root().join("docs/pictures");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), picture).unwrap();
    }
}

#[tokio::test]
async fn flows_appear_within_two_seconds_and_can_be_filtered() {
    let mut it = open().await;
    it.browser.open(&it.page).await;
    let client = it.lab.client("shop/viewer").await;
    client::get(client.to("web", 80), "/fine").await;
    let began = Instant::now();
    let has = |text: &str| {
        format!(
            "document.querySelector('#flow-list').textContent.includes({})",
            json!(text)
        )
    };
    it.browser.until(&has("GET http://web.shop/fine")).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");

    client::get(client.to("web", 80), "/admin").await;
    it.browser
        .until(&has("AuthorizationPolicy shop/no-admin"))
        .await;
    keep(&mut it.browser, "flows").await;

    // What comes from clients is text, whatever it says.
    let evil = "document.querySelector('#flow-list').prepend(flowRow({time: '2026-11-04T12:00:00Z', \
        verdict: 'FORWARDED', source: {pod_name: '<b>', namespace: 'n'}, \
        Summary: '<img src=x onerror=\\'document.title=1\\'>'}))";
    it.browser.eval(evil).await;
    it.browser.until(&has("<img src=x")).await;
    let images = "document.querySelectorAll('#flow-list img').length";
    assert_eq!(it.browser.eval(images).await, 0);
    assert_eq!(it.browser.eval("document.title").await, "Cairn");

    let filter = "document.querySelector('[name=verdict]').value = 'DROPPED';
        document.querySelector('#flow-filters button').click()";
    it.browser.eval(filter).await;
    let only = "(() => { const rows = [...document.querySelectorAll('#flow-list li')];
        return rows.length === 2 && rows.every((row) => row.textContent.includes('DROPPED')); })()";
    it.browser.until(only).await;

    // On a phone nothing is wider than the screen.
    it.browser.resize(360, 740).await;
    let fits = "document.documentElement.scrollWidth <= 360";
    for part in [
        "flows",
        "map",
        "routes",
        "policies",
        "explain",
        "diagnostics",
    ] {
        it.browser.eval(&format!("location.hash = '{part}'")).await;
        it.browser
            .until(&format!("!document.getElementById('{part}').hidden"))
            .await;
        it.browser.until(fits).await;
    }
    it.browser.eval("location.hash = 'flows'").await;
    it.browser
        .until("!document.getElementById('flows').hidden")
        .await;
    keep(&mut it.browser, "flows-phone").await;
    it.browser.eval("location.hash = 'map'").await;
    it.browser
        .until("document.querySelectorAll('#graph path').length > 0")
        .await;
    keep(&mut it.browser, "map-phone").await;
}

/// An answer to what was asked before the filters changed must not be shown among what is asked now.
#[tokio::test]
async fn a_late_answer_is_not_shown_under_other_filters() {
    let mut it = open().await;
    it.browser.open(&it.page).await;
    let client = it.lab.client("shop/viewer").await;
    client::get(client.to("web", 80), "/fine").await;
    let text = "document.querySelector('#flow-list').textContent";
    it.browser.until(&format!("{text}.includes('/fine')")).await;
    // The next question of the page leaves only when it is let go.
    let hold = "(() => { const ask = window.fetch; window.held = []; window.answered = 0;
        window.fetch = (...of) => held.length ? ask(...of) : new Promise((answer) => held.push(async () => {
            const late = await ask(...of); answer(late); answered += 1; })); })()";
    it.browser.eval(hold).await;
    it.browser.until("held.length === 1").await;
    client::get(client.to("web", 80), "/admin").await;
    client::get(client.to("web", 80), "/fine").await;
    let apply = "document.querySelector('[name=verdict]').value = 'DROPPED';
        document.querySelector('#flow-filters button').click()";
    it.browser.eval(apply).await;
    let dropped = |rows: usize| {
        format!(
            "(() => {{ const rows = [...document.querySelectorAll('#flow-list li')];
            return rows.length === {rows} && rows.every((row) => row.textContent.includes('DROPPED')); }})()"
        )
    };
    it.browser.until(&dropped(2)).await;
    it.browser.eval("held[0]()").await;
    it.browser.until("answered === 1").await;
    // The page goes on after the late answer, from where it was.
    client::get(client.to("web", 80), "/admin").await;
    it.browser.until(&dropped(4)).await;
}

#[tokio::test]
async fn the_map_has_who_asked_whom() {
    let mut it = open().await;
    let viewer = it.lab.client("shop/viewer").await;
    let partner = it.lab.client("partner/sync").await;
    for _ in 0..40 {
        client::get(viewer.to("web", 80), "/fine").await;
    }
    client::get(partner.to("web", 80), "/admin").await;
    it.browser.open(&format!("{}#map", it.page)).await;
    it.browser
        .until("document.querySelectorAll('#graph path').length >= 3")
        .await;
    let nodes = "[...document.querySelectorAll('#graph g')].map((g) => `${g.dataset.kind} ${g.dataset.node}`).sort()";
    let nodes: Vec<String> = serde_json::from_value(it.browser.eval(nodes).await).unwrap();
    assert!(
        nodes.contains(&"client partner/sync".to_owned()),
        "{nodes:?}"
    );
    assert!(
        nodes.contains(&"client shop/viewer".to_owned()),
        "{nodes:?}"
    );
    assert!(nodes.contains(&"service shop/web".to_owned()), "{nodes:?}");
    assert!(
        nodes.contains(&"workload shop/web-a".to_owned()),
        "{nodes:?}"
    );
    let denied =
        "document.querySelector('#graph path[data-from=\"partner/sync\"]').getAttribute('class')";
    assert_eq!(it.browser.eval(denied).await, "denied");
    let map = it
        .lab
        .cairn()
        .admin_shows("/api/map", |map| map["edges"].is_array())
        .await;
    let edges = map["edges"].as_array().unwrap();
    let from = |name: &'static str| edges.iter().filter(move |e| e["from"]["name"] == name);
    // The route sends them to two services.
    let requests: u64 = from("shop/viewer")
        .filter_map(|e| e["requests"].as_u64())
        .sum();
    assert_eq!(requests, 40, "{map}");
    let denied: Vec<&Value> = from("partner/sync").map(|e| &e["denied"]).collect();
    assert_eq!(denied, [&json!(1)], "{map}");
    assert!(
        from("shop/viewer").all(|e| e["p99_ms"].as_f64() > Some(0.0)),
        "{map}"
    );
    // Nobody without traffic is on it, though it is a service as good as the others.
    let dump = it.lab.cairn().config_dump().await;
    assert!(dump["services"].to_string().contains("\"idle\""));
    assert!(!nodes.iter().any(|node| node.contains("idle")), "{nodes:?}");
    assert!(!map.to_string().contains("idle"), "{map}");
    keep(&mut it.browser, "map").await;
}

#[tokio::test]
async fn explain_routes_and_policies_say_what_the_data_path_does() {
    let mut it = open().await;
    let viewer = it.lab.client("shop/viewer").await;
    for (path, passes) in [("/fine", true), ("/admin", false)] {
        let status = client::get(viewer.to("web", 80), path).await.status();
        assert_eq!(status.is_success(), passes);
        it.browser.open(&format!("{}#explain", it.page)).await;
        let fill = format!(
            "const form = document.querySelector('#question');
            form.elements.from.value = 'shop/viewer'; form.elements.to.value = 'web.shop:80';
            form.elements.path.value = '{path}'; form.querySelector('button').click()"
        );
        it.browser.eval(&format!("(() => {{ {fill} }})()")).await;
        let says = if passes { "passes" } else { "does not pass" };
        it.browser
            .until(&format!(
                "document.querySelector('#verdict').textContent === '{says}'"
            ))
            .await;
        let report = it
            .browser
            .eval("document.querySelector('#report').textContent")
            .await;
        let report: Value = serde_json::from_str(report.as_str().unwrap()).unwrap();
        assert_eq!(report["passes"], passes);
        if !passes {
            assert_eq!(report["answer"]["status"], status.as_u16());
            assert!(
                report["verdict"].to_string().contains("no-admin"),
                "{report}"
            );
        }
    }
    keep(&mut it.browser, "explain").await;

    it.browser.open(&format!("{}#routes", it.page)).await;
    let routes = "document.querySelector('#route-list').textContent";
    for text in [
        "HTTPRoute shop/canary",
        "shop/web-next:80 weight 1 (10 %)",
        "in use",
    ] {
        it.browser
            .until(&format!("{routes}.includes({})", json!(text)))
            .await;
    }
    keep(&mut it.browser, "routes").await;

    it.browser.open(&format!("{}#policies", it.page)).await;
    let policies = "[...document.querySelectorAll('#policy-list tr')].map((row) => [...row.cells].map((c) => c.textContent))";
    it.browser.until(&format!("{policies}.length >= 3")).await;
    let rows: Vec<Vec<String>> = serde_json::from_value(it.browser.eval(policies).await).unwrap();
    let row = |name: &str| rows.iter().find(|row| row[0].ends_with(name)).unwrap();
    // Policy, action, applies to, rule, allowed, denied, audited, dry run.
    assert_eq!(row("/no-admin")[3..6], ["0", "0", "1"], "{rows:?}");
    assert_eq!(row("/readers")[7], "would deny 1", "{rows:?}");
    keep(&mut it.browser, "policies").await;
    let nowhere = http_route!("web-next", "  - backendRefs: [{name: nowhere, port: 80}]\n");
    it.browser.open(&format!("{}#diagnostics", it.page)).await;
    it.browser
        .until("document.querySelector('#reload').textContent.includes('last reload success')")
        .await;
    it.lab.write("nowhere", nowhere);
    it.browser
        .until("document.querySelector('#diagnostic-list').textContent.includes('nowhere')")
        .await;
    keep(&mut it.browser, "diagnostics").await;
}

/// A web page can give its own name this machine's address: whoever asks by a name gets nothing.
#[tokio::test]
async fn other_hosts_are_turned_away() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let _app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    lab.start().await;
    let admin = lab.cairn().admin;
    for path in ["/", "/api/flows", "/config_dump", "/metrics", "/help"] {
        for (host, status) in [
            ("evil.example", 421),
            ("localhost:1", 200),
            ("127.0.0.1", 200),
            ("[::1]:1", 200),
        ] {
            let answer = client::get_as(host, admin, path).await;
            assert_eq!(answer.status(), status, "{host} {path}");
            assert!(
                answer
                    .headers()
                    .get("access-control-allow-origin")
                    .is_none()
            );
        }
    }
}
