//! The status of a Gateway: what the resolver says of it, and whether what was made for it runs and serves that very
//! generation (specs/istio-waypoint.md 1.4). Pure.

use cairn_config_schema::status::{Condition, Status};
use serde_json::{Value, json};

use super::entries::Desired;
use crate::controller::gateways::Managed;

/// What was seen of a Gateway's objects and pods.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Why the overlays can not be applied.
    pub parameters: Option<String>,
    /// Objects of the same names that are not ours.
    pub clashes: Vec<String>,
    /// What else kept objects from being applied.
    pub failure: Option<String>,
    /// Somebody else runs it: nothing is made.
    pub is_manual: bool,
    /// Pods that are ready.
    pub ready: usize,
    /// Of these, those that do not serve the present generation, with what they said.
    pub behind: Vec<(String, String)>,
    /// Name of the Service and its addresses.
    pub service: Option<(String, Vec<String>)>,
}

/// Pods that a message names.
const PODS_MAX: usize = 3;

/// What the status is to say. `from_resolver`: of this generation.
pub fn desired(
    gateway: &Managed,
    from_resolver: Option<&Status>,
    seen: &Seen,
    cluster_domain: &str,
) -> Desired {
    let generation = Some(gateway.generation);
    let base = from_resolver.map_or(&[][..], |status| &status.conditions);
    let base = |kind: &str| base.iter().find(|c| c.kind == kind);
    let unread = || {
        let message = "it can not be read; see the controller's log, or `cairn check`";
        Condition::new("Accepted", false, "Invalid", message, generation)
    };
    let accepted = match &seen.parameters {
        Some(why) => {
            let message = format!("{why}; nothing is applied, and what runs stays");
            Condition::new("Accepted", false, "InvalidParameters", message, generation)
        }
        None => base("Accepted").cloned().unwrap_or_else(unread),
    };
    let refused = base("Programmed").filter(|c| c.status != "True");
    let programmed = match (from_resolver, refused) {
        (None, _) => (false, "Invalid", "it can not be read".to_owned()),
        (_, Some(refused)) => (false, refused.reason, refused.message.clone()),
        (Some(_), None) => programmed(gateway, seen),
    };
    let (holds, reason, message) = programmed;
    let programmed = Condition::new("Programmed", holds, reason, message, generation);
    let mut whole = serde_json::Map::new();
    let listeners = from_resolver.map(|status| listeners(status, &programmed));
    whole.extend(listeners.map(|listeners| ("listeners".to_owned(), listeners)));
    let addresses = addresses(gateway, seen, cluster_domain);
    whole.extend(addresses.map(|addresses| ("addresses".to_owned(), addresses)));
    let conditions = [&accepted, &programmed].map(|condition| json!(condition));
    Desired {
        conditions: conditions.into(),
        whole,
        ..Desired::default()
    }
}

/// Whether every ready replica has acknowledged this generation, and who has not.
fn programmed(gateway: &Managed, seen: &Seen) -> (bool, &'static str, String) {
    if seen.is_manual {
        // Of pods that are not ours nothing is known.
        return (true, "Programmed", "its owner runs it".to_owned());
    }
    if seen.parameters.is_some() {
        let message = "its overlays are not applied; what runs stays";
        return (false, "Invalid", message.to_owned());
    }
    if let Some(first) = seen.clashes.first() {
        let message = format!(
            "{first} is there and not ours, and is left alone; rename one, or annotate the Gateway with gateway.istio.io/name-override"
        );
        return (false, "NameTaken", message);
    }
    if let Some(failure) = &seen.failure {
        return (false, "Pending", failure.clone());
    }
    if seen.ready == 0 {
        let message = match gateway.has_addresses() {
            true => "no replica is ready: clients are refused",
            false => {
                "no replica is ready yet: traffic goes to services directly, past every policy of a waypoint"
            }
        };
        let reason = match gateway.has_addresses() {
            true => "NoResources",
            false => "AddressNotAssigned",
        };
        return (false, reason, message.to_owned());
    }
    if !seen.behind.is_empty() {
        let some = seen.behind.iter().take(PODS_MAX);
        let some: Vec<String> = some.map(|(pod, why)| format!("{pod}: {why}")).collect();
        let more = match seen.behind.len().saturating_sub(PODS_MAX) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let message = format!(
            "not every ready replica has acknowledged generation {}: {}{more}",
            gateway.generation,
            some.join("; ")
        );
        return (false, "Pending", message);
    }
    let message = "every ready replica serves this generation";
    (true, "Programmed", message.to_owned())
}

fn listeners(status: &Status, programmed: &Condition) -> Value {
    let listeners = status.listeners.iter().map(|listener| {
        let mut listener = listener.clone();
        for condition in &mut listener.conditions {
            if condition.kind == "Programmed" && condition.status == "True" {
                condition.status = programmed.status;
                condition.reason = match programmed.status {
                    "True" => "Programmed",
                    // The listener's own words for it.
                    _ => "Pending",
                };
            }
        }
        json!(listener)
    });
    listeners.collect()
}

/// The hostname first, by which ztunnels spread connections over the pods. Only once a pod is ready, and never taken
/// back: without an address istiod has clients go round the waypoint (1.4, 1.9). `None`: as they are.
fn addresses(gateway: &Managed, seen: &Seen, cluster_domain: &str) -> Option<Value> {
    if let Some(manual) = gateway.manual_addresses() {
        return Some(manual.clone());
    }
    let (name, ips) = seen.service.as_ref().filter(|_| seen.ready > 0)?;
    let hostname = format!("{name}.{}.svc.{cluster_domain}", gateway.key.namespace);
    let mut addresses = vec![json!({"type": "Hostname", "value": hostname})];
    addresses.extend(
        ips.iter()
            .map(|ip| json!({"type": "IPAddress", "value": ip})),
    );
    Some(Value::Array(addresses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::gateways::find;
    use crate::controller::gateways::tests::{class, gateway, objects};
    use cairn_config_schema::status::CONTROLLER;

    fn managed(status: Value) -> Managed {
        let mut gateway = gateway("waypoint", "c", json!({}));
        gateway["status"] = status;
        let found = find(&objects(&[class("c", CONTROLLER), gateway]), "default");
        found.managed.into_values().next().unwrap()
    }

    fn resolved() -> Status {
        let condition = |kind| Condition::new(kind, true, kind, "", Some(2));
        Status {
            conditions: vec![condition("Accepted"), condition("Programmed")],
            ..Status::default()
        }
    }

    fn running() -> Seen {
        Seen {
            ready: 2,
            service: Some(("waypoint".to_owned(), vec!["10.0.0.9".to_owned()])),
            ..Seen::default()
        }
    }

    #[track_caller]
    fn programmed_of(seen: &Seen, status: Value) -> (String, String, String) {
        let desired = desired(&managed(status), Some(&resolved()), seen, "cluster.local");
        let programmed = &desired.conditions[1];
        let text = |key: &str| programmed[key].as_str().unwrap().to_owned();
        assert_eq!(programmed["observedGeneration"], 2);
        (text("status"), text("reason"), text("message"))
    }

    #[test]
    fn addresses_are_hostname_then_ip_once_a_pod_is_ready() {
        let all = desired(
            &managed(json!({})),
            Some(&resolved()),
            &running(),
            "cluster.local",
        );
        assert_eq!(
            all.whole["addresses"],
            json!([
                {"type": "Hostname", "value": "waypoint.shop.svc.cluster.local"},
                {"type": "IPAddress", "value": "10.0.0.9"},
            ])
        );
    }

    /// specs/istio-waypoint.md 1.4: never removed, or clients go round the waypoint.
    #[test]
    fn addresses_are_neither_written_before_a_pod_is_ready_nor_withdrawn_later() {
        let none = Seen {
            ready: 0,
            ..running()
        };
        for status in [
            json!({}),
            json!({"addresses": [{"type": "Hostname", "value": "x"}]}),
        ] {
            let all = desired(&managed(status), Some(&resolved()), &none, "cluster.local");
            assert_eq!(all.whole.get("addresses"), None);
        }
    }

    #[test]
    fn programmed_is_what_every_ready_replica_has_acknowledged() {
        assert_eq!(programmed_of(&running(), json!({})).0, "True");
        let behind = Seen {
            behind: vec![("waypoint-1".to_owned(), "it has generation 1".to_owned())],
            ..running()
        };
        let (status, reason, message) = programmed_of(&behind, json!({}));
        assert_eq!((&*status, &*reason), ("False", "Pending"));
        assert!(
            message.contains("waypoint-1: it has generation 1"),
            "{message}"
        );
    }

    /// Each row: what was seen, the reason, and words of the message.
    #[test]
    fn why_it_is_not_programmed_is_told() {
        let rows = [
            (
                Seen {
                    ready: 0,
                    ..running()
                },
                json!({}),
                "AddressNotAssigned",
                "directly",
            ),
            (
                Seen {
                    ready: 0,
                    ..running()
                },
                json!({"addresses": [{"value": "x"}]}),
                "NoResources",
                "refused",
            ),
            (
                Seen {
                    clashes: vec!["Service shop/waypoint".to_owned()],
                    ..running()
                },
                json!({}),
                "NameTaken",
                "name-override",
            ),
            (
                Seen {
                    failure: Some("Service: refused".to_owned()),
                    ..running()
                },
                json!({}),
                "Pending",
                "Service: refused",
            ),
            (
                Seen {
                    parameters: Some("bad".to_owned()),
                    ..running()
                },
                json!({}),
                "Invalid",
                "what runs stays",
            ),
        ];
        for (seen, status, reason, words) in rows {
            let (holds, found, message) = programmed_of(&seen, status);
            assert_eq!((&*holds, &*found), ("False", reason));
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_broken_overlay_is_not_accepted_and_says_so() {
        let seen = Seen {
            parameters: Some("ConfigMap shop/o: service: no".to_owned()),
            ..running()
        };
        let all = desired(
            &managed(json!({})),
            Some(&resolved()),
            &seen,
            "cluster.local",
        );
        assert_eq!(all.conditions[0]["reason"], "InvalidParameters");
        assert_eq!(all.conditions[0]["status"], "False");
    }

    #[test]
    fn addresses_of_its_owner_are_the_gateways_own() {
        let mut gateway = managed(json!({}));
        let manual = json!([{"type": "IPAddress", "value": "10.9.9.9"}]);
        gateway.object["spec"]["addresses"] = manual.clone();
        let all = desired(&gateway, Some(&resolved()), &running(), "cluster.local");
        assert_eq!(all.whole["addresses"], manual);
    }

    /// specs/istio-waypoint.md 1.2: nothing is made, and nobody's pods are asked.
    #[test]
    fn a_gateway_with_addresses_is_programmed_by_its_owner() {
        let seen = Seen {
            is_manual: true,
            failure: Some("there is no ClusterRoleBinding".to_owned()),
            ..Seen::default()
        };
        let (status, reason, message) = programmed_of(&seen, json!({}));
        assert_eq!((&*status, &*reason), ("True", "Programmed"));
        assert_eq!(message, "its owner runs it");
    }
}
