//! Which Gateway is served and what it is for (specs/istio-waypoint.md 1.2, 1.3).

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::origin::Kind;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::Snapshot;
use cairn_config_schema::store::{SourceFile, Store};

use super::support::{Ask, GATEWAY, WEB, break_object, documents, key, load, resolved};

fn gateway(name: &str, class: &str, metadata: &str, listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: shop{metadata}}}\nspec:\n  gatewayClassName: {class}\n  listeners: [{listeners}]"
    )
}

const HBONE: &str = "{name: mesh, port: 15008, protocol: HBONE}";
const OWN_CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ours, labels: {istio.io/waypoint-for: all}}
spec: {controllerName: cairn.dev/waypoint-controller}
";

fn with_flag(yaml: &str, gateway: &str) -> Snapshot {
    let options = Options {
        gateway: Some(key(gateway)),
        ..Options::default()
    };
    resolve(&load(yaml), &options)
}

#[test]
fn the_only_gateway_of_a_waypoint_class_is_served() {
    for class in ["cairn-waypoint", "istio-waypoint", "ours"] {
        let snapshot = resolved(&documents(&[
            &gateway("w", class, "", HBONE),
            &gateway(
                "ingress",
                "nginx",
                "",
                "{name: web, port: 80, protocol: HTTP}",
            ),
            OWN_CLASS,
        ]));
        assert_eq!(snapshot.way().origin.key, key("shop/w"));
        assert_eq!(&*snapshot.way().class, class);
        assert!(snapshot.said().is_empty(), "{:?}", snapshot.said());
    }
}

#[test]
fn no_gateway_means_no_waypoint_and_says_what_to_do() {
    for yaml in [WEB.to_owned(), gateway("w", "nginx", "", HBONE)] {
        let snapshot = resolved(&yaml);
        assert!(snapshot.waypoint.is_none());
        let finding = snapshot.finding(Code::NoGateway);
        assert!(finding.hint.as_deref().unwrap().contains("--gateway"));
    }
}

#[test]
fn of_several_gateways_none_is_served_until_the_flag_names_one() {
    let yaml = documents(&[
        &gateway("a", "cairn-waypoint", "", HBONE),
        &gateway("b", "istio-waypoint", "", HBONE),
    ]);
    let snapshot = resolved(&yaml);
    assert!(snapshot.waypoint.is_none());
    let message = &snapshot.finding(Code::NoGateway).message;
    assert!(message.contains("shop/a, shop/b"), "{message}");

    let snapshot = with_flag(&yaml, "shop/b");
    assert_eq!(snapshot.way().origin.key, key("shop/b"));
    assert!(snapshot.said().is_empty());
}

#[test]
fn a_flag_that_names_no_gateway_lists_those_there_are() {
    let snapshot = with_flag(GATEWAY, "shop/typo");
    assert!(snapshot.waypoint.is_none());
    let hint = snapshot.finding(Code::NoGateway).hint.as_deref().unwrap();
    assert!(hint.contains("shop/waypoint"), "{hint}");
}

#[test]
fn a_gateway_of_a_foreign_class_is_served_when_named_with_a_warning() {
    let snapshot = with_flag(&gateway("w", "nginx", "", HBONE), "shop/w");
    assert_eq!(snapshot.way().origin.key, key("shop/w"));
    assert_eq!(
        snapshot.said(),
        ["warning bad-value Gateway/shop/w spec.gatewayClassName"]
    );
}

#[test]
fn a_gateway_without_hbone_listener_is_no_waypoint() {
    let http = "{name: web, port: 80, protocol: HTTP}";
    let snapshot = resolved(&gateway("w", "cairn-waypoint", "", http));
    assert!(snapshot.waypoint.is_none());
    assert_eq!(
        snapshot.said(),
        ["error no-gateway Gateway/shop/w spec.listeners"]
    );
}

#[test]
fn other_listeners_and_other_ports_are_warned_of() {
    let listeners = format!("{{name: web, port: 80, protocol: HTTP}}, {HBONE}");
    let snapshot = resolved(&gateway("w", "cairn-waypoint", "", &listeners));
    assert!(snapshot.waypoint.is_some());
    assert_eq!(
        snapshot.said(),
        ["warning unsupported Gateway/shop/w spec.listeners[0]"]
    );

    let port = "{name: mesh, port: 15009, protocol: HBONE}";
    let snapshot = resolved(&gateway("w", "cairn-waypoint", "", port));
    assert!(snapshot.waypoint.is_some());
    assert_eq!(
        snapshot.said(),
        ["warning bad-value Gateway/shop/w spec.listeners[0].port"]
    );
}

#[test]
fn fields_without_meaning_at_a_waypoint_are_named() {
    let listener = "{name: mesh, port: 15008, protocol: HBONE, hostname: a.example, allowedRoutes: {kinds: [{kind: HTTPRoute}]}}";
    let snapshot = resolved(&gateway("w", "cairn-waypoint", "", listener));
    assert_eq!(
        snapshot.said(),
        [
            "warning unsupported Gateway/shop/w spec.listeners[0].hostname",
            "warning unsupported Gateway/shop/w spec.listeners[0].allowedRoutes.kinds",
        ]
    );
}

#[test]
fn waypoint_for_on_the_gateway_beats_that_on_its_class() {
    let label = |value: &str| format!(", labels: {{istio.io/waypoint-for: {value}}}");
    let served = |metadata: &str, class: &str| {
        let snapshot = resolved(&documents(&[
            &gateway("w", class, metadata, HBONE),
            OWN_CLASS,
        ]));
        let way = snapshot.way();
        (way.serves_services, way.serves_workloads)
    };
    assert_eq!(served("", "cairn-waypoint"), (true, false));
    assert_eq!(served("", "ours"), (true, true));
    assert_eq!(served(&label("workload"), "ours"), (false, true));
    assert_eq!(served(&label("service"), "ours"), (true, false));
    assert_eq!(served(&label("none"), "ours"), (false, false));
}

#[test]
fn an_unknown_waypoint_for_refuses_everything() {
    let metadata = ", labels: {istio.io/waypoint-for: everything}";
    let snapshot = resolved(&gateway("w", "cairn-waypoint", metadata, HBONE));
    assert!(snapshot.way().blocked.is_some());
    assert_eq!(
        snapshot.said(),
        ["error bad-value Gateway/shop/w metadata.labels[istio.io/waypoint-for]"]
    );
}

#[test]
fn a_gateway_of_another_class_is_named_where_one_of_ours_is_missing() {
    let other = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: nginx}
spec: {controllerName: example.com/nginx}
";
    let yaml = documents(&[&gateway("w", "nginx", "", HBONE), other]);
    let message = &resolved(&yaml).finding(Code::NoGateway).message.clone();
    let expected = "Gateway of class cairn-waypoint or istio-waypoint: shop/w is of class 'nginx' \
                    (controller example.com/nginx)";
    assert!(message.ends_with(expected), "{message}");
    // Served by name all the same, and the words are the same.
    let snapshot = with_flag(&yaml, "shop/w");
    let message = &snapshot.finding(Code::BadValue).message;
    assert!(message.starts_with("class 'nginx' (controller example.com/nginx) is not"));
}

#[test]
fn fields_for_whoever_deploys_a_waypoint_are_told_to_have_no_effect() {
    let more = "\n  addresses: [{value: 10.0.0.9}, {value: 10.0.0.10}]\n  infrastructure: {labels: {a: b}}";
    let snapshot = resolved(&(gateway("w", "cairn-waypoint", "", HBONE) + more));
    assert_eq!(
        snapshot.said(),
        [
            "info unsupported Gateway/shop/w spec.addresses",
            "info unsupported Gateway/shop/w spec.infrastructure",
        ]
    );
}

/// The controller reads the parameters of a Gateway alone.
#[test]
fn parameters_of_the_class_are_warned_of_where_they_stand() {
    let class = |name: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: {name}}}\nspec: {{controllerName: cairn.dev/waypoint-controller, parametersRef: {{group: '', kind: ConfigMap, name: options, namespace: shop}}}}"
        )
    };
    let gateway = gateway("w", "cairn-waypoint", "", HBONE);
    let own = resolved(&documents(&[&gateway, &class("cairn-waypoint")]));
    assert_eq!(
        own.said(),
        ["warning unsupported GatewayClass/cairn-waypoint spec.parametersRef"]
    );
    let another = resolved(&documents(&[&gateway, &class("another")]));
    assert_eq!(another.said(), Vec::<String>::new());
}

#[test]
fn an_annotation_turns_the_clients_identity_header_on() {
    let xfcc = |value: &str| {
        let metadata = format!(
            ", annotations: {{ambient.istio.io/xfcc-include-client-identity: \"{value}\"}}"
        );
        resolved(&gateway("w", "cairn-waypoint", &metadata, HBONE))
    };
    assert!(xfcc("true").way().xfcc_include_client_identity);
    assert!(!xfcc("false").way().xfcc_include_client_identity);
    let snapshot = xfcc("yes");
    assert!(!snapshot.way().xfcc_include_client_identity);
    assert_eq!(
        snapshot.said(),
        [
            "warning bad-value Gateway/shop/w metadata.annotations[ambient.istio.io/xfcc-include-client-identity]"
        ]
    );
}

#[test]
fn an_unreadable_gateway_is_not_served() {
    let mut resources = load(WEB);
    break_object(&mut resources.gateways, Kind::Gateway, "shop/w");
    for gateway in [None, Some(key("shop/w"))] {
        let options = Options {
            gateway,
            ..Options::default()
        };
        let snapshot = resolve(&resources, &options);
        assert!(snapshot.waypoint.is_none());
        let message = &snapshot.finding(Code::NoGateway).message;
        assert!(message.contains("shop/w"), "{message}");
    }
}

#[test]
fn an_unreadable_class_refuses_everything_unless_the_gateway_says_what_it_is_for() {
    let blocked = |metadata: &str| {
        let mut resources = load(&gateway("w", "cairn-waypoint", metadata, HBONE));
        break_object(
            &mut resources.gateway_classes,
            Kind::GatewayClass,
            "cairn-waypoint",
        );
        let snapshot = resolve(&resources, &Options::default());
        snapshot.way().blocked.is_some()
    };
    assert!(blocked(""));
    assert!(!blocked(", labels: {istio.io/waypoint-for: service}"));
}

/// One finding, which says what is wrong and what that means; without a Gateway too.
#[test]
fn a_file_that_can_not_be_read_is_told_once() {
    for (file, gateway) in [("gateway.yaml", GATEWAY), ("empty.yaml", "# none\n")] {
        let sources = [
            (file, Ok(gateway.as_bytes().into())),
            ("f.yaml", Err("permission denied".into())),
        ];
        let files = sources.map(|(path, content)| SourceFile {
            path: path.into(),
            content,
        });
        let update = Store::default().update(&files);
        let mut snapshot = resolve(&update.resources, &Options::default());
        snapshot.diagnostics.extend(update.diagnostics);
        let finding = snapshot.finding(Code::Unreadable);
        assert_eq!(finding.message, "cannot read f.yaml: permission denied");
        assert!(finding.effect.is_some());
    }
}

#[test]
fn a_document_that_can_not_be_identified_refuses_everything() {
    let mut resources = load(GATEWAY);
    resources.unreadable.push(("no kind".into(), None));
    let snapshot = resolve(&resources, &Options::default());
    assert_eq!(snapshot.way().blocked.as_deref(), Some("no kind"));
    let effect = snapshot.finding(Code::Unreadable).effect.as_deref();
    assert!(effect.unwrap().contains("every tunnel is refused"));
}
