//! AuthorizationPolicies that can not be read: what they deny.

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::origin::Kind;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::resources::{Loaded, TargetRef};
use cairn_config_schema::snapshot::Snapshot;

use super::policies::{GATEWAY_GROUP, names};
use super::support::{Ask, broken, key, load, shop, target};

fn with_broken_policy(name: &str, targets: Option<Vec<TargetRef>>) -> Snapshot {
    let mut resources = load(&shop(&[]));
    let policy = broken(Kind::AuthorizationPolicy, name, targets);
    resources
        .authorization_policies
        .insert(key(name), Loaded::Broken(policy));
    resolve(&resources, &Options::default())
}

#[test]
fn a_policy_that_can_not_be_read_denies_its_targets() {
    let snapshot = with_broken_policy("shop/p", Some(vec![target("", "Service", "web")]));
    let policy = snapshot.policy("shop/web");
    assert_eq!(policy.broken.as_deref(), Some("line 3 is nonsense"));
    assert!(!policy.dry_run);
    assert!(names(&snapshot, "shop/api").is_empty());
    let effect = snapshot.finding(Code::Unreadable).effect.as_deref();
    assert_eq!(effect, Some("everything for shop/web is denied"));
}

#[test]
fn a_policy_whose_targets_can_not_be_read_either_denies_all_it_could_reach() {
    // In the waypoint's namespace: the waypoint and every service there.
    let snapshot = with_broken_policy("shop/p", None);
    assert_eq!(snapshot.way().policies.len(), 1);
    assert!(snapshot.policy("shop/api").broken.is_some());
    // In the root namespace: the waypoint, by its class.
    let snapshot = with_broken_policy("istio-system/p", None);
    assert!(snapshot.policy("shop/web").broken.is_some());
    // Elsewhere: nothing of this waypoint.
    let snapshot = with_broken_policy("bank/p", None);
    assert!(names(&snapshot, "shop/web").is_empty());
    assert_eq!(
        snapshot.said(),
        ["error unreadable AuthorizationPolicy/bank/p"]
    );
}

#[test]
fn a_broken_policy_that_is_known_to_have_no_target_is_not_for_the_waypoint() {
    let snapshot = with_broken_policy("shop/p", Some(Vec::new()));
    assert!(names(&snapshot, "shop/web").is_empty());
    let gateway = target(GATEWAY_GROUP, "Gateway", "waypoint");
    let snapshot = with_broken_policy("shop/p", Some(vec![gateway]));
    assert_eq!(snapshot.way().policies.len(), 1);
}
