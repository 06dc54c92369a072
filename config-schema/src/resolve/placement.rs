//! Weight and priority of endpoints by where they are (specs/istio-waypoint.md 4.1, 4.7). What is preferred is
//! read in `traffic_localities`; who is picked among them is `cairn-routing`'s business.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::destination_rules::Settings;
use super::{Findings, Options};
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::ObjectKey;
use crate::resources::{Loaded, Resources};
use crate::snapshot::{
    ClusterKey, ClusterSettings, Endpoint, Locality, LocalityPreference, LocalityShares,
};

/// Where this waypoint is.
#[derive(Clone, Debug, Default)]
pub(super) struct Own {
    locality: Locality,
    node: Option<Arc<str>>,
    /// Nothing is said of what is not known here.
    is_elsewhere: bool,
}

/// The sum of the weights of one place of `distribute` is its share times this: so fine that a
/// thousand endpoints can have a part of it, so coarse that a hash ring has room for all.
const WEIGHT_SCALE: u32 = 1_000;

/// Puts the endpoints of every port in the order of preference.
pub(super) fn apply(
    resources: &Resources,
    own: &Own,
    settings: &Settings,
    clusters: &mut BTreeMap<ClusterKey, Arc<[Endpoint]>>,
    findings: &mut Findings,
) {
    for (key, endpoints) in clusters {
        let of_cluster = settings.clusters.get(key);
        let Some(preference) = preference(resources, &key.service, of_cluster.map(|s| &**s)) else {
            continue;
        };
        if own.is_blind_to(&preference) {
            if !own.is_elsewhere {
                say_unknown(resources, &key.service, of_cluster.map(|s| &**s), findings);
            }
            continue;
        }
        *endpoints = place(endpoints, &preference, own).into();
    }
}

impl Own {
    /// What the flags say; the zone, if they do not, as that of any endpoint on the same node.
    pub(super) fn find(
        options: &Options,
        clusters: &BTreeMap<ClusterKey, Arc<[Endpoint]>>,
    ) -> Self {
        let node: Option<Arc<str>> = options.node.as_deref().map(Arc::from);
        let mut places = (clusters.values()).flat_map(|endpoints| endpoints.iter());
        let derived = node.as_ref().and_then(|node| {
            let near = places.find_map(|endpoint| {
                let place = endpoint.whereabouts.as_ref()?;
                (place.node == *node && !place.locality.is_unknown()).then_some(place)
            })?;
            // The subzone is a matter of labels, which the other pod may have for itself.
            let locality = near.locality.clone();
            Some(Locality {
                subzone: "".into(),
                ..locality
            })
        });
        Self {
            locality: options.locality.clone().or(derived).unwrap_or_default(),
            node,
            is_elsewhere: options.is_elsewhere,
        }
    }

    /// Whether the preference is about something that is not known of this waypoint.
    fn is_blind_to(&self, preference: &LocalityPreference) -> bool {
        match preference {
            LocalityPreference::Off => false,
            LocalityPreference::Close { node: true } if self.node.is_some() => false,
            LocalityPreference::Labels(labels) => labels
                .iter()
                .any(|(key, value)| value.is_none() && self.label(key).is_none()),
            _ => self.locality.is_unknown(),
        }
    }

    fn label(&self, key: &str) -> Option<&Arc<str>> {
        let value = match key {
            "kubernetes.io/hostname" => self.node.as_ref(),
            _ => of_place(&self.locality, key),
        };
        value.filter(|value| !value.is_empty())
    }
}

/// What a label of topology says of a place.
fn of_place<'l>(place: &'l Locality, key: &str) -> Option<&'l Arc<str>> {
    match key {
        "topology.kubernetes.io/region" => Some(&place.region),
        "topology.kubernetes.io/zone" => Some(&place.zone),
        "topology.istio.io/subzone" => Some(&place.subzone),
        _ => None,
    }
}

/// What is preferred: as the DestinationRule says, else the Service; else the nearest, if outlier
/// detection can tell when to look further (specs/policies.md 2.7).
fn preference(
    resources: &Resources,
    service: &ObjectKey,
    settings: Option<&ClusterSettings>,
) -> Option<LocalityPreference> {
    let own = settings.and_then(|settings| settings.balancing.locality.clone());
    let service = resources.services.get(service).and_then(Loaded::object);
    let close = service.and_then(|service| service.spec.traffic_distribution);
    let detects = settings.is_some_and(|settings| settings.outlier_detection.is_some());
    own.or_else(|| close.map(|node| LocalityPreference::Close { node }))
        .or_else(|| {
            let fail_over = Vec::new();
            detects.then_some(LocalityPreference::Nearest { fail_over })
        })
}

fn say_unknown(
    resources: &Resources,
    service: &ObjectKey,
    settings: Option<&ClusterSettings>,
    findings: &mut Findings,
) {
    let finding = Diagnostic::warning(
        Code::Unsupported,
        "endpoints can not be preferred by place: where this waypoint is, is not known",
    )
    .with_effect("endpoints of all places receive traffic")
    .with_hint("--locality or CAIRN_LOCALITY says where it is; NODE_NAME names its node");
    let origin = settings.filter(|s| s.balancing.locality.is_some());
    let rule = origin.and_then(|s| s.origin.as_ref()).and_then(|origin| {
        let rule = resources.destination_rules.get(&origin.key);
        rule.and_then(Loaded::object)
    });
    let object = resources.services.get(service).and_then(Loaded::object);
    if let Some(rule) = rule {
        findings.push(rule.mark(finding, "spec.trafficPolicy.loadBalancer.localityLbSetting"));
    } else if let Some(object) = object.filter(|o| o.spec.traffic_distribution.is_some()) {
        findings.push(object.mark(finding, "spec.trafficDistribution"));
    }
}

/// What a preference makes of the endpoints of a cluster. Those without a share are left out.
fn place(endpoints: &[Endpoint], preference: &LocalityPreference, own: &Own) -> Vec<Endpoint> {
    let unknown = Locality::default();
    let locality = |e: &Endpoint| {
        let place = e.whereabouts.as_ref();
        place.map_or_else(|| unknown.clone(), |place| place.locality.clone())
    };
    let priority = |e: &Endpoint| match preference {
        LocalityPreference::Off | LocalityPreference::Shares(_) => 0,
        LocalityPreference::Nearest { fail_over } => {
            let place = locality(e);
            let to = fail_over
                .iter()
                .find(|(from, _)| *from == own.locality.region);
            match own.locality.shared_with(&place) {
                0 if to.is_some_and(|(_, to)| *to != place.region) => 4,
                shared => 3 - shared,
            }
        }
        LocalityPreference::Labels(labels) => {
            let shared = labels.iter().take_while(|(key, value)| {
                let wanted = value.as_ref().or_else(|| own.label(key));
                wanted.is_some() && has_label(e, key, wanted)
            });
            u8::try_from(labels.len() - shared.count()).unwrap_or(u8::MAX)
        }
        LocalityPreference::Close { node } => distance(e, *node, own, &locality(e)),
    };
    let shares = match preference {
        LocalityPreference::Shares(shares) => shares_of(shares, own),
        _ => None,
    };
    let all = endpoints.iter().map(|e| Endpoint {
        priority: priority(e),
        weight: 1,
        ..e.clone()
    });
    match shares {
        None => all.collect(),
        Some(shares) => by_shares(all.collect(), shares, locality),
    }
}

/// How far an endpoint is for `trafficDistribution`. EndpointSlices say for which zones an endpoint is
/// meant, which may be others than its own.
fn distance(endpoint: &Endpoint, node: bool, own: &Own, place: &Locality) -> u8 {
    let whereabouts = endpoint.whereabouts.as_deref();
    let on_node = own.node.is_some() && whereabouts.map(|w| &w.node) == own.node.as_ref();
    let hints = whereabouts.map_or(&[][..], |w| &w.for_zones);
    let near = match hints {
        [] => own.locality.shared_with(place),
        hints if hints.contains(&own.locality.zone) => 2,
        _ => own.locality.shared_with(place).min(1),
    };
    match near {
        _ if node && on_node => 0,
        2.. => 1,
        1 => 2,
        _ => 3,
    }
}

fn has_label(endpoint: &Endpoint, key: &str, wanted: Option<&Arc<str>>) -> bool {
    let place = endpoint.whereabouts.as_deref();
    let of_place = place.and_then(|place| match key {
        "kubernetes.io/hostname" => Some(&place.node),
        _ => of_place(&place.locality, key),
    });
    let workload = endpoint.workload.as_ref();
    of_place.or_else(|| workload.and_then(|w| w.label(key))) == wanted
}

/// The shares that are for a waypoint here.
fn shares_of<'s>(shares: &'s [LocalityShares], own: &Own) -> Option<&'s LocalityShares> {
    shares.iter().find(|item| item.from.has(&own.locality))
}

/// Spreads each share over the endpoints of its place. If none of the places has any, all endpoints stay:
/// a share is no permission.
fn by_shares(
    endpoints: Vec<Endpoint>,
    shares: &LocalityShares,
    locality: impl Fn(&Endpoint) -> Locality,
) -> Vec<Endpoint> {
    // An endpoint belongs to the first place that has it.
    let of = |e: &Endpoint| {
        let place = locality(e);
        shares.to.iter().position(|(to, _)| to.has(&place))
    };
    let places: Vec<Option<usize>> = endpoints.iter().map(of).collect();
    let weight = |at: usize| {
        let count = places.iter().filter(|place| **place == Some(at)).count();
        let share = shares.to.get(at).map_or(0, |(_, share)| *share);
        let count = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        (share > 0).then(|| (share * WEIGHT_SCALE / count).max(1))
    };
    let weighted = endpoints.iter().zip(&places).filter_map(|(endpoint, at)| {
        Some(Endpoint {
            weight: weight((*at)?)?,
            ..endpoint.clone()
        })
    });
    let weighted: Vec<Endpoint> = weighted.collect();
    match weighted.is_empty() {
        true => endpoints,
        false => weighted,
    }
}
