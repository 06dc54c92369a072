//! Endpoints by place over real sockets (specs/istio-waypoint.md 4.7, specs/policies.md 2.7): the near one
//! gets everything while it answers, the far one what is left; shares as they are written.

use std::collections::HashMap;

use cairn_conformance::app::App;
use cairn_conformance::client;
use cairn_conformance::lab::{Client, Lab, Port, Reach};

fn rule(locality: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web, namespace: shop}}
spec:
  host: web
  trafficPolicy:
    outlierDetection: {{consecutive5xxErrors: 3, interval: 200ms, baseEjectionTime: 60s, maxEjectionPercent: 100}}
    loadBalancer: {{localityLbSetting: {locality}}}
"
    )
}

/// A waypoint in zone `a`, one pod there and one in zone `b`. Applications live as long as the process.
async fn lab(locality: &str) -> (Lab, Client, App) {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let near = lab.pod("web", "near", Reach::Plain, |at| App::http("near", at));
    std::mem::forget(lab.pod("web", "far", Reach::Plain, |at| App::http("far", at)));
    // The zones of the EndpointSlices, beside the addresses the laboratory gave them.
    let file = lab.config().join("endpoints-web.yaml");
    let mut yaml = std::fs::read_to_string(file).unwrap();
    for (pod, zone) in [("near", "a"), ("far", "b")] {
        let target = format!("  targetRef: {{kind: Pod, name: {pod}, namespace: shop}}\n");
        assert!(yaml.contains(&target), "{yaml}");
        yaml = yaml.replace(&target, &format!("{target}  zone: {zone}\n"));
        let labels = format!("labels: {{app: web, pod: {pod}}}");
        assert!(yaml.contains(&labels), "{yaml}");
        let region =
            format!("labels: {{app: web, pod: {pod}, topology.kubernetes.io/region: east}}");
        yaml = yaml.replace(&labels, &region);
    }
    lab.write("endpoints-web", &yaml);
    lab.write("rule", &rule(locality));
    lab.start_with(&["--locality", "east/a/"]).await;
    let client = lab.client("shop/viewer").await;
    (lab, client, near)
}

/// How often each pod answered so many requests.
async fn answered(client: &Client, requests: usize) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for _ in 0..requests {
        let answer = client::get(client.to("web", 80), "/").await;
        assert_eq!(answer.status(), 200);
        *counts.entry(client::echo(&answer).app).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn the_near_pod_gets_everything_until_it_is_ejected() {
    let (lab, client, mut near) = lab("{enabled: true}").await;
    let all: HashMap<_, _> = [("near".to_owned(), 20)].into();
    assert_eq!(answered(&client, 20).await, all);
    near.kill();
    let labels = ["destination=\"shop/web:80\""];
    let ejections = "cairn_endpoint_ejections_total";
    let mut asked = 0;
    while lab.cairn().metric(ejections, &labels).await < 1.0 {
        // Another endpoint is tried, and the client notices nothing.
        answered(&client, 1).await;
        asked += 1;
        assert!(asked < 60, "never ejected");
    }
    let all: HashMap<_, _> = [("far".to_owned(), 20)].into();
    assert_eq!(answered(&client, 20).await, all);
}

#[tokio::test]
async fn shares_of_places_are_as_written() {
    let shares = "{distribute: [{from: east/a/*, to: {east/a/*: 20, east/b/*: 80}}]}";
    let (_lab, client, _near) = lab(shares).await;
    let counts = answered(&client, 300).await;
    let far = counts["far"];
    // 240 expected; five standard deviations are 35.
    assert!((205..=275).contains(&far), "{counts:?}");
}
