//! By what a request is counted.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::LazyLock;

use cairn_config_schema::identity::Identity;
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::LimitKey;
use http::HeaderMap;

/// Two secrets of this process: together 128 bits, and nobody outside can find two keys of one bucket.
static SECRETS: LazyLock<[RandomState; 2]> =
    LazyLock::new(|| [RandomState::new(), RandomState::new()]);

/// What of a request keys are made of.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'r> {
    /// Identity of the client.
    pub peer: &'r Identity,
    /// Its address.
    pub source: IpAddr,
    /// The service that is asked. `None`: a pod's own address.
    pub service: Option<&'r ObjectKey>,
    /// Headers, as policy sees them.
    pub headers: &'r HeaderMap,
}

/// The bytes of one part of a key. `None`: the request has no such header.
pub(super) fn value<'r>(part: &LimitKey, counted: &Counted<'r>) -> Option<Cow<'r, [u8]>> {
    Some(match part {
        LimitKey::PeerIdentity => Cow::Borrowed(counted.peer.uri().as_bytes()),
        LimitKey::PeerNamespace => {
            Cow::Borrowed(counted.peer.namespace().unwrap_or_default().as_bytes())
        }
        LimitKey::SourceAddress => Cow::Owned(counted.source.to_string().into_bytes()),
        LimitKey::Service => {
            let service = counted.service.map(ToString::to_string);
            Cow::Owned(service.unwrap_or_default().into_bytes())
        }
        LimitKey::Header(name) => {
            let mut values = counted.headers.get_all(name).iter();
            let first = values.next()?;
            match values.next() {
                None => Cow::Borrowed(first.as_bytes()),
                // As HTTP joins them: one that repeats the header is not two of whom it names.
                Some(_) => {
                    let all = counted.headers.get_all(name).iter();
                    let all: Vec<&[u8]> = all.map(|value| value.as_bytes()).collect();
                    Cow::Owned(all.join(&b","[..]))
                }
            }
        }
    })
}

/// A bucket's key.
pub(super) fn hash(parts: &[LimitKey], counted: &Counted<'_>) -> u128 {
    let mut halves = SECRETS.each_ref().map(BuildHasher::build_hasher);
    for part in parts {
        let value = value(part, counted);
        let bytes = value.as_deref().unwrap_or_default();
        for half in &mut halves {
            // With its length: a value must not be able to run into the next one.
            half.write_usize(bytes.len());
            half.write(bytes);
        }
    }
    let [high, low] = halves.map(|half| half.finish());
    u128::from(high) << 64 | u128::from(low)
}
