//! Which pods are the replicas of a Gateway: those that its Deployment made, by the chain of owners. Labels say it of
//! no pod, for whoever runs pods sets them; what carries them all the same is told apart.

use cairn_config_schema::origin::ObjectKey;
use serde_json::Value;

use super::{Cluster, GATEWAY_NAME};
use crate::objects::{controller_of, is_owned_by, label, namespace_of, text};

impl Cluster {
    /// The pods of a Gateway that are to stay. Of one with addresses of its own somebody else runs them, and nothing but
    /// the label tells which they are (specs/istio-waypoint.md 1.2).
    pub(crate) fn pods_of<'c>(
        &'c self,
        gateway: &'c ObjectKey,
    ) -> impl Iterator<Item = &'c Value> + 'c {
        let sets = self.replica_sets_of(gateway);
        let by_label = self.is_run_by_others(gateway);
        self.labelled(gateway).filter(move |pod| {
            by_label || controller_of(pod).is_some_and(|uid| sets.contains(&uid))
        })
    }

    /// Pods with the label of a Gateway's that its Deployment did not make. Its Service leads clients to them.
    pub(crate) fn strangers_of<'c>(
        &'c self,
        gateway: &'c ObjectKey,
    ) -> impl Iterator<Item = &'c Value> + 'c {
        let sets = self.replica_sets_of(gateway);
        let by_label = self.is_run_by_others(gateway);
        self.labelled(gateway).filter(move |pod| {
            !by_label && controller_of(pod).is_none_or(|uid| !sets.contains(&uid))
        })
    }

    /// The Deployment that the controller made for a Gateway.
    pub(crate) fn deployment_of(&self, gateway: &ObjectKey) -> Option<&Value> {
        let uid = text(self.object("Gateway", gateway)?, "/metadata/uid")?;
        let mut deployments = self.objects("Deployment");
        deployments.find(|d| is_of(d, gateway) && is_owned_by(d, uid))
    }

    fn replica_sets_of(&self, gateway: &ObjectKey) -> Vec<&str> {
        let deployment = self.deployment_of(gateway);
        let Some(uid) = deployment.and_then(|d| text(d, "/metadata/uid")) else {
            return Vec::new();
        };
        let sets = self.objects("ReplicaSet").filter(|set| {
            namespace_of(set) == &*gateway.namespace && controller_of(set) == Some(uid)
        });
        sets.filter_map(|set| text(set, "/metadata/uid")).collect()
    }

    fn is_run_by_others(&self, gateway: &ObjectKey) -> bool {
        let object = self.object("Gateway", gateway);
        let addresses = object.and_then(|g| g.pointer("/spec/addresses")?.as_array());
        addresses.is_some_and(|addresses| !addresses.is_empty())
    }

    fn labelled<'c>(&'c self, gateway: &'c ObjectKey) -> impl Iterator<Item = &'c Value> + 'c {
        self.objects("Pod").filter(|pod| {
            is_of(pod, gateway) && pod.pointer("/metadata/deletionTimestamp").is_none()
        })
    }
}

fn is_of(object: &Value, gateway: &ObjectKey) -> bool {
    namespace_of(object) == &*gateway.namespace
        && label(object, GATEWAY_NAME) == Some(&gateway.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{SHOP, documents};
    use crate::objects::name_of;

    fn names(yaml: &str) -> (Vec<String>, Vec<String>) {
        let cluster = Cluster::of(documents(yaml), Vec::new());
        let key = ObjectKey::new("shop", "waypoint");
        let names = |pods: Vec<&Value>| pods.iter().map(|pod| name_of(pod).to_owned()).collect();
        (
            names(cluster.pods_of(&key).collect()),
            names(cluster.strangers_of(&key).collect()),
        )
    }

    /// A pod that somebody labelled, and ones that name owners which are not the Deployment's.
    #[test]
    fn a_pod_is_a_replica_by_its_owners_and_not_by_its_label() {
        let pod = |name: &str, owner: &str| {
            format!(
                "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, \
                 labels: {{gateway.networking.k8s.io/gateway-name: waypoint}}{owner}}}, \
                 status: {{phase: Running, conditions: [{{type: Ready, status: 'True'}}]}}}}\n"
            )
        };
        let by = |uid: &str, controller: bool| {
            format!(
                ", ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: r, uid: {uid}, controller: {controller}}}]"
            )
        };
        let theirs = "---
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: theirs, namespace: shop, uid: set-2,
  labels: {gateway.networking.k8s.io/gateway-name: waypoint}}}
";
        let all = [
            SHOP.to_owned(),
            pod("labelled", ""),
            pod("of-another-set", &by("set-2", true)),
            pod("of-no-set", &by("set-9", true)),
            pod("not-its-controller", &by("set-1", false)),
            theirs.to_owned(),
        ];
        let (replicas, strangers) = names(&all.concat());
        assert_eq!(replicas, ["waypoint-1"]);
        let expected = [
            "labelled",
            "not-its-controller",
            "of-another-set",
            "of-no-set",
        ];
        assert_eq!(strangers, expected);
        // A Deployment that is not the Gateway's makes no replicas.
        let (replicas, _) = names(&SHOP.replace(
            "uid: gateway-1, controller: true",
            "uid: other, controller: true",
        ));
        assert_eq!(replicas, [""; 0]);
        // Of a Gateway with addresses of its own nothing else is known.
        let manual = SHOP.replace(
            "gatewayClassName:",
            "addresses: [{value: 10.9.9.9}]\n  gatewayClassName:",
        );
        assert_eq!(
            names(&(manual + &pod("b", ""))),
            (vec!["b".into(), "waypoint-1".into()], vec![])
        );
    }
}
