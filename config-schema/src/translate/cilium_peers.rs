//! Whom the peers of a Cilium rule are in words of Istio: service accounts and namespaces. Labels are
//! neither, and become the accounts of the pods that have them, which is told.

use super::ground::Ground;
use super::ground::view;
use super::report::Outcome;
use super::strangers::Stranger;
use super::who::{ACCOUNT_LABEL, NAMESPACE_LABEL, Who};
use crate::snapshot::{Entity, LabelExpression, Peer, Peers, Truth};

/// What is to be told of peers.
pub(super) type Notes = Vec<(Outcome, String)>;

/// Whom the peers of a rule are. Empty: nobody.
pub(super) fn who(ground: &Ground<'_>, peers: &Peers, notes: &mut Notes) -> Vec<Who> {
    let peers = match peers {
        Peers::Anybody => return vec![Who::Anybody],
        Peers::AnyOf(peers) => peers,
        Peers::Criteria(_) => {
            notes.push((
                Outcome::NotTranslated,
                "criteria of Calico are not translated".into(),
            ));
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for peer in peers {
        found.extend(of_peer(ground, peer, notes));
    }
    found.sort();
    found.dedup();
    found
}

fn of_peer(ground: &Ground<'_>, peer: &Peer, notes: &mut Notes) -> Vec<Who> {
    let mut nobody = |what: &str| {
        let why = format!(
            "{what} has no identity that an AuthorizationPolicy could name: the peer is left out"
        );
        notes.push((Outcome::Narrower, why));
        Vec::new()
    };
    match peer {
        Peer::Entity(Entity::All) => {
            tell_of_plain(ground, &LabelExpression::everything(), notes);
            vec![Who::Anybody]
        }
        Peer::Entity(Entity::Cluster) => {
            let mut strangers = ground.strangers.iter();
            let outside = strangers.find(|s| s.is_not_in_cluster(&Who::Meshed));
            notes.extend(outside.map(|s| (Outcome::Wider, newly_allowed(s))));
            tell_of_plain(ground, &LabelExpression::everything(), notes);
            vec![Who::Meshed]
        }
        Peer::Entity(Entity::None) => Vec::new(),
        Peer::Entity(entity) => nobody(&format!("the entity {}", entity.as_str())),
        Peer::Cidr { block, .. } => {
            nobody(&format!("a client outside of the cluster, in {block},"))
        }
        Peer::Name(_) | Peer::Services(_) => nobody("a name or a Service"),
        Peer::Unknowable(field) => nobody(&format!("what {field} means")),
        Peer::Endpoints(labels) => {
            let who = match by_account(labels) {
                Some(who) => who,
                None => by_pods(ground, labels, notes),
            };
            for stranger in &ground.strangers {
                if who.iter().any(|who| stranger.is(who)) {
                    notes.push((Outcome::Wider, newly_allowed(stranger)));
                }
            }
            tell_of_plain(ground, labels, notes);
            who
        }
    }
}

fn newly_allowed(stranger: &Stranger) -> String {
    format!("{} would be allowed", stranger.what)
}

/// Pods that Cilium knows by their labels, and a waypoint not at all: they are not in the mesh.
fn tell_of_plain(ground: &Ground<'_>, labels: &LabelExpression, notes: &mut Notes) {
    let pods = ground.snapshot.workloads.values();
    let mut plain: Vec<_> = pods
        .filter(|pod| !pod.hbone && ground.is_pod(pod))
        .filter(|pod| labels.holds(&|key| view(pod).of_pod(key)) != Truth::No)
        .map(|pod| &pod.key)
        .collect();
    plain.sort();
    plain.dedup();
    if let Some((first, others)) = plain.split_first() {
        let others = match others.len() {
            0 => String::new(),
            others => format!(", and {others} more pods,"),
        };
        let why = format!(
            "Pod {first}{others} is not in the mesh, has no identity there, and would be denied"
        );
        notes.push((Outcome::Narrower, why));
    }
}

/// Labels that are about nothing but namespace and service account. `None`: about others, too.
fn by_account(labels: &LabelExpression) -> Option<Vec<Who>> {
    let mut said = Said::default();
    said.read(labels)?;
    match (said.namespace, said.account) {
        (None, None) => Some(vec![Who::Meshed]),
        (None, Some(_)) => None,
        (Some(namespace), account) => Some(vec![Who::Of { namespace, account }]),
    }
}

/// What labels say of namespace and service account.
#[derive(Default)]
struct Said {
    namespace: Option<std::sync::Arc<str>>,
    account: Option<std::sync::Arc<str>>,
}

impl Said {
    /// Reads labels. `None`: they say something else, or the same twice.
    fn read(&mut self, labels: &LabelExpression) -> Option<()> {
        match labels {
            LabelExpression::All(all) => all.iter().try_for_each(|labels| self.read(labels)),
            LabelExpression::In(key, values) => {
                let [value] = values.as_slice() else {
                    return None;
                };
                let place = match &**key {
                    NAMESPACE_LABEL => &mut self.namespace,
                    ACCOUNT_LABEL => &mut self.account,
                    _ => return None,
                };
                let new = place.as_ref().is_none_or(|there| there == value);
                new.then(|| *place = Some(value.clone()))
            }
            _ => None,
        }
    }
}

/// The accounts of the pods that have these labels now.
fn by_pods(ground: &Ground<'_>, labels: &LabelExpression, notes: &mut Notes) -> Vec<Who> {
    let mut pods: Vec<_> = ground.snapshot.workloads.values().collect();
    pods.sort_by(|a, b| a.key.cmp(&b.key));
    pods.dedup_by(|a, b| a.key == b.key);
    let has = |pod: &&&std::sync::Arc<crate::snapshot::Workload>| {
        !pod.host_network
            && ground.is_pod(pod)
            && labels.holds(&|key| view(pod).of_pod(key)) == Truth::Yes
    };
    let mut who: Vec<Who> = pods
        .iter()
        .filter(has)
        .filter_map(|pod| Who::account(&pod.identity))
        .collect();
    who.sort();
    who.dedup();
    if who.is_empty() {
        let why = format!("no Pod of the input has {labels}: the peer is left out");
        notes.push((Outcome::Narrower, why));
        return who;
    }
    let accounts: Vec<String> = who.iter().map(name).collect();
    let why = format!(
        "an AuthorizationPolicy knows no labels: {labels} is {} now, and every pod of that service account would be allowed, whatever its labels",
        accounts.join(", ")
    );
    notes.push((Outcome::Wider, why));
    who
}

fn name(who: &Who) -> String {
    match who {
        Who::Of {
            namespace,
            account: Some(account),
        } => format!("{namespace}/{account}"),
        _ => "anybody".to_owned(),
    }
}
