//! Where endpoints are, and which of them are preferred for this waypoint (specs/istio-waypoint.md 4.1,
//! 4.7). Decides nothing: what follows for an endpoint is its weight and priority.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// A place: region, zone and subzone, each empty when it is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Locality {
    /// `topology.kubernetes.io/region`.
    pub region: Arc<str>,
    /// `topology.kubernetes.io/zone`.
    pub zone: Arc<str>,
    /// `topology.istio.io/subzone`.
    pub subzone: Arc<str>,
}

/// What is known of where an endpoint is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Whereabouts {
    /// Its place.
    pub locality: Locality,
    /// Name of its node; empty when unknown.
    pub node: Arc<str>,
    /// Zones that it is meant for (`hints.forZones` of its EndpointSlice).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub for_zones: Vec<Arc<str>>,
}

impl Locality {
    /// Reads `region/zone/subzone`; what is missing at the end is not known.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(Arc::from);
        let mut next = || parts.next().unwrap_or_default();
        Self {
            region: next(),
            zone: next(),
            subzone: next(),
        }
    }

    /// Takes from another account of the same place what is not known, unless that is of another region or zone.
    pub fn complete(&mut self, other: &Self) {
        let agree = |own: &Arc<str>, other: &Arc<str>| own.is_empty() || own == other;
        if !agree(&self.region, &other.region) || !agree(&self.zone, &other.zone) {
            return;
        }
        for (own, other) in [
            (&mut self.region, &other.region),
            (&mut self.zone, &other.zone),
            (&mut self.subzone, &other.subzone),
        ] {
            if own.is_empty() {
                *own = other.clone();
            }
        }
    }

    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.subzone.is_empty()
    }

    /// How much of it two places share: 0 nothing, 1 the region, 2 the zone too, 3 the subzone too. A region
    /// that one of them does not know does not tell zones of one name apart.
    pub fn shared_with(&self, other: &Self) -> u8 {
        let unknown = self.region.is_empty() || other.region.is_empty();
        if self.region != other.region && !unknown {
            return 0;
        }
        if self.zone.is_empty() || self.zone != other.zone {
            return u8::from(!unknown);
        }
        2 + u8::from(self.subzone == other.subzone)
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.region, self.zone, self.subzone)
    }
}

/// Places by name: `us-east/zone-1/*`, `us-east/*`, `*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LocalityPattern(Vec<Arc<str>>);

impl LocalityPattern {
    /// Reads a pattern. `None`: it has more than three parts, an empty one, or a `*` before the end.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts: Vec<Arc<str>> = text.split('/').map(Arc::from).collect();
        if parts.last().is_some_and(|last| &**last == "*") {
            parts.pop();
        }
        let named = |part: &Arc<str>| !part.is_empty() && &**part != "*";
        (parts.len() <= 3 && parts.iter().all(named)).then_some(Self(parts))
    }

    /// How many of region, zone and subzone it names.
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// Whether a place is one of them.
    pub fn has(&self, place: &Locality) -> bool {
        let names = [&place.region, &place.zone, &place.subzone];
        self.0.iter().zip(names).all(|(part, name)| part == name)
    }
}

/// Which endpoints are preferred, seen from this waypoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalityPreference {
    /// None, whatever would hold otherwise (`enabled: false`).
    Off,
    /// The nearest by subzone, zone and region; then those of the region that the waypoint's own fails
    /// over to; then all others.
    Nearest {
        /// `failover`: from a region to another.
        fail_over: Vec<(Arc<str>, Arc<str>)>,
    },
    /// Those that have most of these labels, counted from the first (`failoverPriority`). Without a
    /// value: that of the waypoint.
    Labels(Vec<(Arc<str>, Option<Arc<str>>)>),
    /// `distribute`: shares by place, for a waypoint at some place. Places that are not listed get
    /// nothing.
    Shares(Vec<LocalityShares>),
    /// `trafficDistribution` of the Service: the zone of the waypoint before its region before others.
    Close {
        /// Those of its node before all.
        node: bool,
    },
}

/// One item of `distribute`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LocalityShares {
    /// Where the waypoint is.
    pub from: LocalityPattern,
    /// In percent of its requests, by the place of endpoints; narrower places before wider ones.
    pub to: Vec<(LocalityPattern, u32)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_share_from_the_left() {
        for (a, b, shared) in [
            ("r/z/s", "r/z/s", 3),
            ("r/z", "r/z", 3),
            ("r/z/s", "r/z/t", 2),
            ("r/z", "r/y", 1),
            ("r/z", "q/z", 0),
            ("/z", "r/z", 3),
            ("/z", "r/y", 0),
            ("", "r/z", 0),
            ("", "", 0),
        ] {
            assert_eq!(
                Locality::parse(a).shared_with(&Locality::parse(b)),
                shared,
                "{a} {b}"
            );
        }
    }

    #[test]
    fn patterns_are_places_with_a_star_at_the_end() {
        for (pattern, place, has) in [
            ("*", "r/z/s", true),
            ("r/*", "r/z/s", true),
            ("r", "r/z/s", true),
            ("r/z/*", "r/y", false),
            ("r/z/s", "r/z/s", true),
        ] {
            let pattern = LocalityPattern::parse(pattern).unwrap();
            assert_eq!(
                pattern.has(&Locality::parse(place)),
                has,
                "{pattern:?} {place}"
            );
        }
        for wrong in ["", "r//s", "*/z", "a/b/c/d", "r/*/s"] {
            assert_eq!(LocalityPattern::parse(wrong), None, "{wrong}");
        }
    }
}
