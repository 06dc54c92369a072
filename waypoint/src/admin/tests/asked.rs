//! What may be asked of the admin address, by whom, and what is in force.

use super::*;

#[test]
fn the_log_filter_is_set_or_the_mistake_is_said() {
    let state = Arc::new(state());
    let set = |target| ask(&state, Surface::Admin, "POST", target);
    assert_eq!(set("/logging?level=info").status, StatusCode::OK);
    let wrong = set("/logging?level=loud");
    assert_eq!(
        (wrong.status, &*wrong.text),
        (StatusCode::BAD_REQUEST, "no such level\n")
    );
    assert_eq!(set("/logging").status, StatusCode::BAD_REQUEST);
}

#[test]
fn only_this_machine_may_stop_the_process_and_no_web_page() {
    let quit = Arc::new(AtomicBool::new(false));
    let asked = quit.clone();
    let state = Arc::new(AdminState {
        quit: Box::new(move || asked.store(true, Ordering::SeqCst)),
        ..state()
    });
    let request = |origin: Option<&str>| {
        let builder = Request::builder().method(Method::POST).uri("/quitquitquit");
        let builder = match origin {
            Some(origin) => builder.header("origin", origin),
            None => builder,
        };
        builder.body(()).unwrap()
    };
    let from_afar = now(answer(&request(None), Surface::Admin, false, &state));
    assert_eq!(from_afar.status(), StatusCode::FORBIDDEN);
    let web_page = request(Some("https://example.com"));
    let web_page = now(answer(&web_page, Surface::Admin, true, &state));
    assert_eq!(web_page.status(), StatusCode::FORBIDDEN);
    assert!(!quit.load(Ordering::SeqCst));
    let here = now(answer(&request(None), Surface::Admin, true, &state));
    assert_eq!(here.status(), StatusCode::OK);
    assert!(quit.load(Ordering::SeqCst));
}

/// A web page can give its own name this machine's address (DNS rebinding): whoever asks the admin address
/// by a name that is not `localhost` gets nothing, and the other addresses do not mind.
#[test]
fn the_admin_address_answers_to_no_other_name() {
    let state = Arc::new(state());
    let asked = |surface, host: &str| {
        let request = Request::get("/help").header("host", host).body(()).unwrap();
        now(answer(&request, surface, true, &state)).status()
    };
    for host in [
        "localhost",
        "LOCALHOST:15000",
        "127.0.0.1:15000",
        "[::1]:15000",
        "10.0.0.1",
    ] {
        assert_eq!(asked(Surface::Admin, host), 200, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example:15000",
        "127.0.0.1.evil.example",
        "a b",
        "",
    ] {
        assert_eq!(asked(Surface::Admin, host), 421, "{host}");
    }
    assert_eq!(asked(Surface::Metrics, "cairn.shop.svc"), 200);
}

/// specs/istio-waypoint.md 1.4: what the controller asks before it says Programmed.
#[test]
fn it_acknowledges_the_versions_in_force() {
    use cairn_config_schema::resolve::{Options, resolve};
    use cairn_config_schema::store::{SourceFile, Store};
    let state = Arc::new(state());
    let before = ask(&state, Surface::Ready, "GET", "/acknowledged");
    assert_eq!(before.status, StatusCode::SERVICE_UNAVAILABLE);
    let text = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop, generation: 3}
spec: {gatewayClassName: cairn-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop, generation: 7, uid: u-1}
spec: {parentRefs: [{group: "", kind: Service, name: web}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: from-a-file, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: web}]}
"#;
    let file = SourceFile {
        path: "all.yaml".into(),
        content: Ok(text.as_bytes().into()),
    };
    let resources = Store::default().update(&[file]).resources;
    let options = Options {
        version: 5,
        ..Options::default()
    };
    let acknowledged = Acknowledged::of(&resources, &resolve(&resources, &options));
    state.acknowledged.store(Some(Arc::new(acknowledged)));
    let gateway = resources.gateway_versions().next().unwrap().1.fingerprint;
    let route = resources.versions().next().unwrap().1.fingerprint;
    assert_ne!(gateway, route);
    assert_eq!(
        ask(&state, Surface::Ready, "GET", "/acknowledged").json(),
        serde_json::json!({
            "snapshot": 5,
            "gateway": "shop/waypoint",
            "objects": {"Gateway/shop/waypoint": 3, "HTTPRoute/shop/r": 7},
            "fingerprints": {"Gateway/shop/waypoint": gateway, "HTTPRoute/shop/r": route},
            "left_out": 0
        })
    );
}
