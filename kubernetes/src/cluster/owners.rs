//! Which pods are the replicas of a Gateway: those that its Deployment made, by the chain of owners. Labels say it of
//! no pod, for whoever runs pods sets them; what carries them all the same is told apart.

use cairn_config_schema::origin::ObjectKey;
use serde_json::Value;

use super::{Cluster, GATEWAY_NAME, REPLICA_SET};
use crate::objects::{controller_of, label, namespace_of, text};

/// The name of what is made for a Gateway, if it is not the Gateway's.
const NAME_OVERRIDE: &str = "gateway.istio.io/name-override";

impl Cluster {
    /// The pods of a Gateway that are to stay. Of one with addresses of its own somebody else runs them, and nothing but
    /// the label tells which they are (specs/istio-waypoint.md 1.2); no more is known where owners may not be read.
    pub(crate) fn pods_of<'c>(
        &'c self,
        gateway: &'c ObjectKey,
    ) -> impl Iterator<Item = &'c Value> + 'c {
        let sets = self.replica_sets_of(gateway);
        let by_label = self.goes_by_label(gateway);
        self.labelled(gateway).filter(move |pod| {
            by_label || controller_of(pod).is_some_and(|uid| sets.contains(&uid))
        })
    }

    /// Pods with the label of a Gateway's that its Deployment did not make. Its Service leads clients to them. None while
    /// the Deployment is not known, and of those that have ended.
    pub(crate) fn strangers_of<'c>(
        &'c self,
        gateway: &'c ObjectKey,
    ) -> impl Iterator<Item = &'c Value> + 'c {
        let sets = self.replica_sets_of(gateway);
        let is_known = !self.goes_by_label(gateway) && self.deployment_of(gateway).is_some();
        self.labelled(gateway).filter(move |pod| {
            is_known && !has_ended(pod) && controller_of(pod).is_none_or(|uid| !sets.contains(&uid))
        })
    }

    /// The Deployment that the controller made for a Gateway: of the name that it gives it. Others may carry the label and
    /// name the Gateway as their owner, by whoever makes Deployments.
    pub(crate) fn deployment_of(&self, gateway: &ObjectKey) -> Option<&Value> {
        let object = self.object("Gateway", gateway)?;
        let uid = text(object, "/metadata/uid")?;
        let name = annotation(object, NAME_OVERRIDE).filter(|name| !name.is_empty());
        let key = ObjectKey::new(&*gateway.namespace, name.unwrap_or(&gateway.name));
        let deployment = self.object("Deployment", &key)?;
        (controller_of(deployment) == Some(uid)).then_some(deployment)
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

    fn goes_by_label(&self, gateway: &ObjectKey) -> bool {
        let is_refused = |kind: &&str| self.refused.contains(*kind);
        self.is_run_by_others(gateway) || ["Deployment", REPLICA_SET].iter().any(is_refused)
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

fn has_ended(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), Some("Succeeded" | "Failed"))
}

fn annotation<'o>(object: &'o Value, key: &str) -> Option<&'o str> {
    object
        .get("metadata")?
        .get("annotations")?
        .get(key)?
        .as_str()
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
        names_in(&Cluster::of(documents(yaml), Vec::new()))
    }

    fn names_in(cluster: &Cluster) -> (Vec<String>, Vec<String>) {
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

    /// One with an earlier name, the label and the Gateway as its owner, of somebody who may make Deployments.
    #[test]
    fn a_deployment_is_the_gateways_by_the_name_that_it_is_made_with() {
        let forged = "---
apiVersion: apps/v1
kind: Deployment
metadata:
  {name: a, namespace: shop, uid: deployment-2, labels: {gateway.networking.k8s.io/gateway-name: waypoint},
   ownerReferences: [{kind: Gateway, name: waypoint, uid: gateway-1, controller: true}]}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  {name: a-1, namespace: shop, uid: set-2, labels: {gateway.networking.k8s.io/gateway-name: waypoint},
   ownerReferences: [{kind: Deployment, name: a, uid: deployment-2, controller: true}]}
---
apiVersion: v1
kind: Pod
metadata:
  {name: a-1, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: waypoint},
   ownerReferences: [{kind: ReplicaSet, name: a-1, uid: set-2, controller: true}]}
spec: {containers: [{name: x, env: [{name: CAIRN_TRUST_DOMAIN, value: forged.example}]}]}
";
        let all = SHOP.to_owned() + forged;
        assert_eq!(names(&all), (vec!["waypoint-1".into()], vec!["a-1".into()]));
        let cluster = Cluster::of(documents(&all), Vec::new());
        let key = ObjectKey::new("shop", "waypoint");
        assert_eq!(name_of(cluster.deployment_of(&key).unwrap()), "waypoint");
        assert_eq!(cluster.environment(&key, &["CAIRN_TRUST_DOMAIN"]), None);
        // The Gateway says which name it is.
        let renamed = all.replace(
            "uid: gateway-1, generation: 2}",
            "uid: gateway-1, generation: 2, annotations: {gateway.istio.io/name-override: a}}",
        );
        assert_eq!(names(&renamed).0, ["a-1"]);
    }

    #[test]
    fn nobody_is_called_a_stranger_where_owners_are_not_known() {
        let sets_gone = SHOP.replace("kind: ReplicaSet\n", "kind: Unread\n");
        assert_eq!(names(&sets_gone), (vec![], vec!["waypoint-1".into()]));
        for kind in ["Deployment", "ReplicaSet"] {
            let mut cluster = Cluster::of(documents(&sets_gone), Vec::new());
            cluster.refused.insert(kind.to_owned());
            assert_eq!(names_in(&cluster), (vec!["waypoint-1".into()], vec![]));
        }
        // What may be read, and is not there: nothing was made yet, or it was deleted.
        let none = SHOP.replace("kind: Deployment\nmetadata", "kind: Unread\nmetadata");
        assert_eq!(names(&none), (vec![], vec![]));
        // One that has ended takes no clients.
        let ended = sets_gone.replace("phase: Running", "phase: Failed");
        assert_eq!(names(&ended), (vec![], vec![]));
    }
}
