//! What stands beside a policy, and would make more or less of what is written than it says.

use cairn_config_schema::translate::{Outcome, Target};

use crate::support::{mesh_with, written, written_in, written_wider};

/// A policy of the pods of `api` with the rest of its `spec`.
fn cnp(spec: &str) -> String {
    format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: p, namespace: shop}}, \
         spec: {{endpointSelector: {{matchLabels: {{app: api}}}}, {spec}}}}}"
    )
}

/// A policy of Service `api` with the rest of its `spec`.
fn ap(spec: &str) -> String {
    format!(
        "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: p, namespace: shop}}, \
         spec: {{targetRefs: [{{group: '', kind: Service, name: api}}], {spec}}}}}"
    )
}

const BY_ACCOUNT: &str =
    "fromEndpoints: [{matchLabels: {io.cilium.k8s.policy.serviceaccount: web}}]";
const BY_PRINCIPAL: &str = "from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]";

/// Port 9090 is declared to carry no HTTP.
fn with_tcp() -> String {
    mesh_with(&[("http-metrics", "tcp-metrics")])
}

fn lost(found: &crate::support::Written) -> Vec<String> {
    found.lost().into_iter().collect()
}

#[test]
fn a_default_for_egress_alone_is_a_half_for_egress() {
    let text = cnp(&format!(
        "ingress: [{{{BY_ACCOUNT}}}], enableDefaultDeny: {{egress: true}}"
    ));
    let found = written(Target::Istio, &[&text]);
    found.is_refused(&["write it as an object of its own"]);
    assert!(
        found
            .lost()
            .contains("not translated spec.enableDefaultDeny.egress")
    );
}

/// Whoever exported too little is told so.
#[test]
fn kinds_that_the_input_has_none_of_are_named() {
    let says = |found: &crate::support::Written, kind: &str| {
        let absent = format!("the input has no {kind}");
        found.0.notes.iter().any(|note| note.starts_with(&absent))
    };
    let cilium = cnp(&format!("ingress: [{{{BY_ACCOUNT}}}]"));
    let found = written(Target::Istio, &[&cilium]);
    assert!(says(&found, "AuthorizationPolicy") && says(&found, "NetworkPolicy"));
    let elsewhere = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: e, namespace: e}, spec: {rules: [{}]}}";
    let found = written(Target::Istio, &[&cilium, elsewhere]);
    assert!(!says(&found, "AuthorizationPolicy"));
    let found = written(
        Target::Cilium,
        &[&ap(&format!("rules: [{{{BY_PRINCIPAL}}}]"))],
    );
    for kind in [
        "CiliumNetworkPolicy",
        "NetworkPolicy",
        "PeerAuthentication",
        "RequestAuthentication",
    ] {
        assert!(says(&found, kind), "{kind}");
    }
}

/// Istio drops a rule on HTTP for a port that is declared TCP: nobody is let in there.
#[test]
fn rules_on_http_say_nothing_of_a_port_that_is_declared_tcp() {
    let get = ap(&format!(
        "rules: [{{{BY_PRINCIPAL}, to: [{{operation: {{methods: [GET]}}}}]}}]"
    ));
    let found = written_in(with_tcp(), Target::Cilium, &[&get]);
    found.is_whole();
    let ingress = &found.only("CiliumNetworkPolicy")["spec"]["ingress"];
    let port = serde_json::json!([{"port": "8080", "protocol": "TCP"}]);
    assert_eq!(ingress.as_array().unwrap().len(), 1);
    assert_eq!(ingress[0]["toPorts"][0]["ports"], port);

    let get = ap(&format!(
        "rules: [{{{BY_PRINCIPAL}, to: [{{operation: {{methods: [GET], ports: ['9090']}}}}]}}]"
    ));
    let found = written_in(with_tcp(), Target::Cilium, &[&get]);
    assert_eq!(lost(&found), ["narrower spec.rules[0]"]);
    let ingress = &found.only("CiliumNetworkPolicy")["spec"]["ingress"];
    assert_eq!(*ingress, serde_json::json!([{}]));
}

/// Cilium lets GET in there, Istio nothing.
#[test]
fn an_http_rule_of_cilium_for_a_port_that_is_declared_tcp_is_narrower() {
    let get = cnp(&format!(
        "ingress: [{{{BY_ACCOUNT}, toPorts: [{{ports: [{{port: '8080', protocol: TCP}}, {{port: '9090', protocol: TCP}}], rules: {{http: [{{method: GET}}]}}}}]}}]"
    ));
    let found = written_in(with_tcp(), Target::Istio, &[&get]);
    assert_eq!(
        lost(&found),
        ["narrower spec.ingress[0].toPorts[0]"],
        "{:#?}",
        found.0.parts
    );
    let rules = &found.named("api")["spec"]["rules"];
    assert_eq!(rules.as_array().unwrap().len(), 1);
    assert_eq!(
        rules[0]["to"][0]["operation"]["ports"],
        serde_json::json!(["80"])
    );
}

const VM: &str = "{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: vm, namespace: shop}, \
                  spec: {address: 10.0.5.1, serviceAccount: web, labels: {app: vm}}}";
const ON_NODE: &str = "{apiVersion: v1, kind: Pod, metadata: {name: agent, namespace: shop, labels: {app: agent}}, \
                       spec: {serviceAccountName: web, hostNetwork: true}, status: {podIPs: [{ip: 10.0.9.1}]}}";

/// To Cilium it is no pod, and no selector selects it.
#[test]
fn clients_without_labels_are_neither_denied_nor_let_in_by_chance() {
    for (stranger, name) in [(VM, "WorkloadEntry/shop/vm"), (ON_NODE, "Pod shop/agent")] {
        let deny = ap(&format!("action: DENY, rules: [{{{BY_PRINCIPAL}}}]"));
        written(Target::Cilium, &[&deny, stranger]).is_refused(&[name]);
        let allow = ap(&format!("rules: [{{{BY_PRINCIPAL}}}]"));
        let found = written(Target::Cilium, &[&allow, stranger]);
        assert_eq!(lost(&found), ["narrower spec.rules[0]"], "{name}");
        assert!(found.says(name));

        let by_account = cnp(&format!("ingress: [{{{BY_ACCOUNT}}}]"));
        let by_namespace =
            cnp("ingress: [{fromEndpoints: [{matchLabels: {io.kubernetes.pod.namespace: shop}}]}]");
        let anybody = "{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {name: p}, \
                       spec: {endpointSelector: {matchLabels: {app: api, io.kubernetes.pod.namespace: shop}}, ingress: [{fromEndpoints: [{}]}]}}";
        for policy in [&*by_account, &*by_namespace, anybody] {
            let found = written(Target::Istio, &[policy, stranger]);
            found.is_refused(&[name, "--allow-wider"]);
            assert!(found.lost().contains("wider spec.ingress[0]"), "{policy}");
        }
    }
    // A node is in the cluster, and a machine outside is not.
    let cluster = cnp("ingress: [{fromEntities: [cluster]}]");
    written(Target::Istio, &[&cluster, VM]).is_refused(&["WorkloadEntry/shop/vm"]);
    assert!(
        !written(Target::Istio, &[&cluster, ON_NODE])
            .0
            .objects
            .is_empty()
    );
}

/// The pods have to leave the mesh before Cilium isolates them.
#[test]
fn what_the_mesh_refuses_beside_the_policy_is_not_let_in() {
    let policy = ap(&format!("rules: [{{{BY_PRINCIPAL}}}]"));
    let tokens = "{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {name: t, namespace: shop}, \
                  spec: {targetRefs: [{group: '', kind: Service, name: api}], jwtRules: [{issuer: a.example, jwks: '{\"keys\":[]}'}]}}";
    let strict = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: s, namespace: shop}, spec: {mtls: {mode: STRICT}}}";
    let denies = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: z, namespace: shop}, \
                  spec: {selector: {matchLabels: {app: api}}, action: DENY, rules: [{from: [{source: {namespaces: [other]}}]}]}}";
    let allows = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: z, namespace: shop}, \
                  spec: {selector: {matchLabels: {app: api}}, rules: [{from: [{source: {namespaces: [other]}}]}]}}";
    for (guard, name) in [
        (tokens, "RequestAuthentication/shop/t"),
        (strict, "the PeerAuthentication at policy.yaml:3"),
        (denies, "AuthorizationPolicy/shop/z"),
        (allows, "AuthorizationPolicy/shop/z"),
    ] {
        let found = written(Target::Cilium, &[&policy, guard]);
        found.is_refused(&[name, "--allow-wider"]);
        assert!(found.lost().contains("wider"), "{:?}", found.lost());
    }
    // That the waypoint alone is let in is said of the pods again.
    let closes = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: z, namespace: shop}, \
                  spec: {selector: {matchLabels: {app: api}}, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/waypoint]}}]}]}}";
    let found = written(Target::Cilium, &[&policy, closes]);
    assert_eq!(found.all("CiliumNetworkPolicy").len(), 1);
}

#[test]
fn that_more_is_allowed_is_said_by_a_part_and_not_by_the_flag() {
    let same = cnp(&format!("ingress: [{{{BY_ACCOUNT}}}]"));
    let more = cnp("ingress: [{fromEndpoints: [{matchLabels: {app: web}}]}]");
    assert!(!written_wider(Target::Istio, &[&same]).0.is_wider());
    assert!(written_wider(Target::Istio, &[&more]).0.is_wider());
    assert!(!written(Target::Istio, &[&more]).0.is_wider());
}

#[test]
fn rules_for_ports_that_no_service_has_are_not_replaced() {
    let port = |port: &str| format!("{{{BY_ACCOUNT}, toPorts: [{{ports: [{port}]}}]}}");
    let text = cnp(&format!(
        "ingress: [{}, {}, {}]",
        port("{port: '8080'}"),
        port("{port: '7777'}"),
        port("{port: '9090'}, {port: '7777'}")
    ));
    let found = written(Target::Istio, &[&text]);
    let wanted = [
        "narrower spec.ingress[1].toPorts[0]",
        "narrower spec.ingress[2].toPorts[0]",
    ];
    assert_eq!(lost(&found), wanted);
    let text = ap(&format!(
        "rules: [{{{BY_PRINCIPAL}}}, {{{BY_PRINCIPAL}, to: [{{operation: {{ports: ['7777']}}}}]}}]"
    ));
    let found = written(Target::Cilium, &[&text]);
    assert_eq!(lost(&found), ["narrower spec.rules[1]"]);
}

#[test]
fn a_policy_that_can_not_be_read_is_in_the_report() {
    let wide = "{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {name: w}, spec: {endpointSelector: 5}}";
    let found = written(Target::Istio, &[&cnp("ingress: 5"), wide]);
    let unread = found
        .0
        .parts
        .iter()
        .filter(|p| p.why.contains("it can not be read"));
    assert_eq!(unread.count(), 2, "{:#?}", found.0.parts);
    assert!(!found.0.is_whole());
}

/// Cilium allows what either of them does; a waypoint and the CNI ask both.
#[test]
fn a_policy_of_kubernetes_for_the_same_pods_keeps_it_from_being_written() {
    let kube = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: k, namespace: shop}, \
                spec: {podSelector: {matchLabels: {app: api}}, policyTypes: [Ingress]}}";
    let text = cnp(&format!("ingress: [{{{BY_ACCOUNT}}}]"));
    written(Target::Istio, &[&text, kube])
        .is_refused(&["NetworkPolicy.networking.k8s.io/shop/k selects pods of it"]);
}

#[test]
fn clients_that_are_not_in_the_mesh_would_be_denied_which_is_told() {
    let web = "name: web-1, namespace: shop, labels: {app: web}";
    let enabled = format!("{web}, annotations: {{ambient.istio.io/redirection: enabled}}");
    let mesh = mesh_with(&[(enabled.as_str(), web)]);
    for ingress in [BY_ACCOUNT, "fromEntities: [cluster]", "fromEndpoints: [{}]"] {
        let text = cnp(&format!("ingress: [{{{ingress}}}]"));
        let found = written_in(mesh.clone(), Target::Istio, &[&text]);
        assert_eq!(lost(&found), ["narrower spec.ingress[0]"], "{ingress}");
        assert!(found.says("Pod shop/web-1 is not in the mesh"));
    }
}

/// Where the engine judges otherwise nothing is written, and nothing is said to be.
#[test]
fn what_is_refuted_is_said_of_no_part_to_be_replaced() {
    let mut found = written(
        Target::Istio,
        &[&cnp(&format!("ingress: [{{{BY_ACCOUNT}}}]"))],
    );
    found.is_whole();
    found.0.refute();
    assert!(found.0.objects.is_empty() && found.0.replaced.is_empty());
    let left = found.0.parts.iter();
    assert!(left.clone().count() > 0 && !found.0.is_whole());
    assert!(
        left.clone()
            .all(|part| part.outcome == Outcome::NotTranslated)
    );
}
