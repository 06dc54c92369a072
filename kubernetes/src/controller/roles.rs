//! Lets the waypoints read: each has a ServiceAccount of its own, and all are subjects of one ClusterRoleBinding that
//! the chart makes. Of that binding the controller writes the subjects and nothing else; it makes none.

use std::collections::BTreeSet;

use cairn_config_schema::origin::ObjectKey;
use serde_json::{Value, json};

use super::api::{Api, Failure, Place};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Has these accounts, and no others, as subjects of the binding.
///
/// # Errors
/// When there is no such binding, or the API server did not do it.
pub async fn bind(api: &Api, role: &str, accounts: &BTreeSet<ObjectKey>) -> Result<(), Failure> {
    let place = Place::new(RBAC, "v1", "clusterrolebindings", None);
    let Some(binding) = api.get(&place, role).await? else {
        if accounts.is_empty() {
            return Ok(());
        }
        return Err(Failure {
            code: 404,
            message: format!(
                "there is no ClusterRoleBinding {role}, so that waypoints may read nothing; install that of the chart, or name another with --waypoint-role"
            ),
        });
    };
    let subjects = subjects(accounts);
    let there = binding
        .get("subjects")
        .cloned()
        .unwrap_or_else(|| json!([]));
    if there == subjects {
        return Ok(());
    }
    let wanted = json!({
        "apiVersion": format!("{RBAC}/v1"),
        "kind": "ClusterRoleBinding",
        "metadata": {"name": role},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    });
    api.apply(&place, role, &wanted, true).await.map(drop)
}

fn subjects(accounts: &BTreeSet<ObjectKey>) -> Value {
    let subject = |account: &ObjectKey| json!({"kind": "ServiceAccount", "namespace": &*account.namespace, "name": &*account.name});
    accounts.iter().map(subject).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_the_accounts_of_the_waypoints_in_order() {
        let accounts = [ObjectKey::new("b", "w"), ObjectKey::new("a", "w")];
        assert_eq!(
            subjects(&accounts.into_iter().collect()),
            json!([
                {"kind": "ServiceAccount", "namespace": "a", "name": "w"},
                {"kind": "ServiceAccount", "namespace": "b", "name": "w"},
            ])
        );
    }
}
