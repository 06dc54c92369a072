//! What a rate limit service is told of a request. Who asks it is `external/`.

use cairn_config_schema::snapshot::{DescriptorValue, GlobalRateLimit, LimitDescriptor};

use super::key::{Counted, value};
use crate::external::limit_messages::{Entry, RateLimitDescriptor, RateLimitRequest};
use crate::limits::RATE_LIMIT_VALUE_BYTES_MAX;

/// The question. `None`: the request has nothing that is counted. As at Envoy a descriptor is left out
/// when the request lacks a header it names.
pub fn request(limit: &GlobalRateLimit, counted: &Counted<'_>) -> Option<RateLimitRequest> {
    let descriptors = limit.descriptors.iter();
    let descriptors: Vec<_> = descriptors
        .filter_map(|written| descriptor(written, counted))
        .collect();
    (!descriptors.is_empty()).then(|| RateLimitRequest {
        domain: limit.domain.to_string(),
        descriptors,
        hits_addend: 0,
    })
}

fn descriptor(written: &LimitDescriptor, counted: &Counted<'_>) -> Option<RateLimitDescriptor> {
    let entries = written.iter().map(|(key, written)| {
        let value = match written {
            DescriptorValue::Literal(text) => text.to_string(),
            DescriptorValue::Of(part) => {
                let value = value(part, counted)?;
                let kept = value.len().min(RATE_LIMIT_VALUE_BYTES_MAX);
                String::from_utf8_lossy(value.get(..kept)?).into_owned()
            }
        };
        let key = key.to_string();
        Some(Entry { key, value })
    });
    let entries: Option<Vec<_>> = entries.collect();
    Some(RateLimitDescriptor { entries: entries? })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use cairn_config_schema::identity::Identity;
    use cairn_config_schema::origin::ObjectKey;
    use cairn_config_schema::snapshot::{ClusterKey, LimitKey};
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    const TENANT: HeaderName = HeaderName::from_static("x-tenant");

    fn limit(descriptors: Vec<LimitDescriptor>) -> GlobalRateLimit {
        GlobalRateLimit {
            cluster: ClusterKey::new(ObjectKey::new("shop", "limits"), 8081),
            domain: "shop".into(),
            timeout_ms: 20,
            fail_open: true,
            descriptors,
        }
    }

    /// Keys and values of every descriptor, as `a=1 b=2`.
    fn told(descriptors: Vec<LimitDescriptor>, headers: &HeaderMap) -> Option<Vec<String>> {
        let peer = Identity::parse("spiffe://cluster.local/ns/shop/sa/viewer").unwrap();
        let service = ObjectKey::new("shop", "web");
        let counted = Counted {
            peer: &peer,
            source: IpAddr::V4(Ipv4Addr::LOCALHOST),
            service: Some(&service),
            headers,
        };
        let asked = request(&limit(descriptors), &counted)?;
        let shown = |entry: &Entry| format!("{}={}", entry.key, entry.value);
        let line = |d: &RateLimitDescriptor| {
            let entries: Vec<String> = d.entries.iter().map(shown).collect();
            entries.join(" ")
        };
        Some(asked.descriptors.iter().map(line).collect())
    }

    fn of(key: &str, part: LimitKey) -> LimitDescriptor {
        vec![(key.into(), DescriptorValue::Of(part))]
    }

    #[test]
    fn values_are_of_the_request_or_always_the_same() {
        let headers = HeaderMap::from_iter([(TENANT, HeaderValue::from_static("a"))]);
        let mut first = of("peer", LimitKey::PeerIdentity);
        first.push(("kind".into(), DescriptorValue::Literal("api".into())));
        let rest = [
            of("ns", LimitKey::PeerNamespace),
            of("ip", LimitKey::SourceAddress),
            of("service", LimitKey::Service),
            of("tenant", LimitKey::Header(TENANT)),
        ];
        let told = told([vec![first], rest.to_vec()].concat(), &headers);
        assert_eq!(
            told.unwrap(),
            [
                "peer=spiffe://cluster.local/ns/shop/sa/viewer kind=api",
                "ns=shop",
                "ip=127.0.0.1",
                "service=shop/web",
                "tenant=a"
            ]
        );
    }

    #[test]
    fn without_its_header_a_descriptor_is_left_out_and_without_any_nobody_is_asked() {
        let tenant = of("tenant", LimitKey::Header(TENANT));
        let both = vec![tenant.clone(), of("ns", LimitKey::PeerNamespace)];
        assert_eq!(told(both, &HeaderMap::new()).unwrap(), ["ns=shop"]);
        assert_eq!(told(vec![tenant], &HeaderMap::new()), None);
    }

    #[test]
    fn values_are_cut_and_what_is_not_utf8_is_shown_as_such() {
        let tenant = of("tenant", LimitKey::Header(TENANT));
        let long = HeaderValue::from_str(&"a".repeat(5_000)).unwrap();
        let headers = HeaderMap::from_iter([(TENANT, long)]);
        let told_long = told(vec![tenant.clone()], &headers).unwrap();
        let length = "tenant=".len() + RATE_LIMIT_VALUE_BYTES_MAX;
        assert_eq!(told_long.first().map(String::len), Some(length));
        let odd = HeaderValue::from_bytes(b"a\xff").unwrap();
        let headers = HeaderMap::from_iter([(TENANT, odd)]);
        assert_eq!(told(vec![tenant], &headers).unwrap(), ["tenant=a\u{fffd}"]);
    }
}
