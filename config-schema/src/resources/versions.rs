//! Which text of each route and policy was read: what a waypoint acknowledges, and what people and the controller
//! compare with the API server. Judges nothing.

use std::collections::BTreeMap;

use xxhash_rust::xxh64::Xxh64;

use super::{Loaded, Meta, Resources};
use crate::origin::{ObjectKey, Origin};

/// Which text of an object. The generation counts changes of the specification alone: neither annotations, as those of
/// a dry run, nor a new object of the same name make another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version {
    /// `metadata.generation`.
    pub generation: i64,
    /// Of what is read beside the specification. Whatever is written into a status leaves it as it is.
    pub fingerprint: u64,
}

impl Meta {
    /// The version of the object. `None`: it comes from a file.
    pub fn version(&self) -> Option<Version> {
        let generation = self.generation?;
        Some(Version {
            generation,
            fingerprint: fingerprint(self),
        })
    }
}

impl Resources {
    /// Objects whose version tells whether they are in force as written: routes and policies. Of a text that is not
    /// in force the one that is; what comes from files has no version and is left out.
    pub fn versions(&self) -> impl Iterator<Item = (&Origin, Version)> {
        of(&self.http_routes)
            .chain(of(&self.grpc_routes))
            .chain(of(&self.tls_routes))
            .chain(of(&self.tcp_routes))
            .chain(of(&self.authorization_policies))
            .chain(of(&self.request_authentications))
            .chain(of(&self.traffic_policies))
            .chain(of(&self.backend_traffic_policies))
            .chain(of(&self.backend_tls_policies))
            .chain(of(&self.virtual_services))
            .chain(of(&self.cilium_policies))
            .chain(of(&self.cilium_clusterwide_policies))
    }

    /// The same of Gateways, of which a waypoint reads one.
    pub fn gateway_versions(&self) -> impl Iterator<Item = (&Origin, Version)> {
        of(&self.gateways)
    }
}

fn of<T>(objects: &BTreeMap<ObjectKey, Loaded<T>>) -> impl Iterator<Item = (&Origin, Version)> {
    let known = objects.values().filter_map(Loaded::object);
    known.filter_map(|object| Some((&object.origin, object.meta.version()?)))
}

/// The same whoever computes it, in whichever release: waypoints tell it to others.
fn fingerprint(meta: &Meta) -> u64 {
    let mut hasher = Xxh64::new(0);
    hasher.update(&meta.uid.unwrap_or_default().to_le_bytes());
    for texts in [&meta.labels, &meta.annotations] {
        for (key, value) in texts.iter().filter(|(key, _)| is_read(key)) {
            for text in [key, value] {
                hasher.update(text.as_bytes());
                // In no text: two are not taken for one.
                hasher.update(&[0xFF]);
            }
        }
        hasher.update(&[0xFE]);
    }
    hasher.digest()
}

/// Whether a waypoint may read a label or annotation of this name on a Gateway, a route or a policy. What others leave
/// there is no change.
fn is_read(name: &str) -> bool {
    let domain = name.split_once('/').map_or("", |(domain, _)| domain);
    ["istio.io", "cairn.dev"].iter().any(|ours| {
        let rest = domain.strip_suffix(ours);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{SourceFile, Store};

    fn version(metadata: &str) -> Version {
        let text = format!(
            "{{\"apiVersion\":\"security.istio.io/v1\",\"kind\":\"AuthorizationPolicy\",\"metadata\":{{\"name\":\"p\",\"namespace\":\"shop\",\"generation\":2{metadata}}},\"spec\":{{}}}}"
        );
        let file = SourceFile {
            path: "p.json".into(),
            content: Ok(text.as_bytes().into()),
        };
        let resources = Store::default().update(&[file]).resources;
        let version = resources.versions().next().unwrap().1;
        assert_eq!(version.generation, 2);
        version
    }

    #[test]
    fn what_is_read_beside_the_specification_makes_another_version() {
        let plain = version("");
        for other in [
            r#","annotations":{"istio.io/dry-run":"true"}"#,
            r#","annotations":{"cairn.dev/dry-run":"true"}"#,
            r#","labels":{"cairn.dev/dry-run":"true"}"#,
            r#","annotations":{"gateway.istio.io/x":""}"#,
            r#","uid":"u-1""#,
        ] {
            assert_ne!(version(other), plain, "{other}");
        }
        let tried = |value: &str| {
            version(&format!(
                r#","annotations":{{"istio.io/dry-run":"{value}"}}"#
            ))
        };
        assert_ne!(tried("true"), tried("false"));
        assert_ne!(version(r#","uid":"u-1""#), version(r#","uid":"u-2""#));
        for same in [
            r#","resourceVersion":"77""#,
            r#","annotations":{"argocd.argoproj.io/tracking-id":"x","notistio.io/x":""}"#,
            r#","labels":{"app":"x"}"#,
        ] {
            assert_eq!(version(same), plain, "{same}");
        }
    }

    /// A release that computes another one would find every waypoint of the other release behind.
    #[test]
    fn it_is_the_same_in_every_release() {
        let version = version(r#","uid":"u-1","annotations":{"istio.io/dry-run":"true"}"#);
        assert_eq!(version.fingerprint, 9_829_751_634_999_533_084);
    }
}
