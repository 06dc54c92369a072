//! Who counts as authenticated: `authentication: required` asks for a certificate
//! (specs/policies.md 2.1.6), which a connection that the node steered out of a pod has not shown.

use cairn_authz::{Attestation, NetworkWhy};
use cairn_config_schema::snapshot::{
    AuthenticationMode, HttpRules, NetworkAction, NetworkRule, Peers, Surface,
};

use crate::generate::{Request, policy, worlds};
use crate::properties::{set, with_facts};

fn rule(authentication: Option<AuthenticationMode>) -> NetworkRule {
    NetworkRule {
        index: 0,
        path: "spec.ingress[0]".into(),
        action: NetworkAction::Allow,
        peers: Peers::Anybody,
        ports: None,
        http: HttpRules::NotAsked,
        authentication,
        broken: None,
    }
}

fn why(authentication: Option<AuthenticationMode>, attested_by: Attestation) -> NetworkWhy {
    let request = Request {
        source: worlds().remove(0),
        known: true,
        port: 8080,
        http: None,
        headers: http::HeaderMap::new(),
    };
    let policies = [policy(Surface::Cilium, true, vec![rule(authentication)])];
    let set = set(&policies, Some(request.port));
    let verdict = with_facts(&request, |facts| {
        set.decide(&cairn_authz::Facts {
            attested_by,
            ..*facts
        })
    });
    verdict.network.unwrap().why
}

#[test]
fn required_is_a_certificate() {
    use AuthenticationMode::{Disabled, Required};
    for (mode, by, expected) in [
        (
            Some(Required),
            Attestation::Certificate,
            NetworkWhy::Allowed,
        ),
        (
            Some(Required),
            Attestation::Node,
            NetworkWhy::Authentication,
        ),
        (Some(Disabled), Attestation::Node, NetworkWhy::Allowed),
        (None, Attestation::Node, NetworkWhy::Allowed),
    ] {
        assert_eq!(why(mode, by), expected, "{mode:?} {by:?}");
    }
}
