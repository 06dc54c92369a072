//! Which of many rules to ask: those that may match, found by hash. Each rule is listed under values of
//! which what is asked must have one if the rule is to match. What is found is asked all the same, so
//! that two values of the same hash cost time and nothing else. Matches nothing itself.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::{FxHashMap, FxHasher};

/// Rules of a list for which looking them up does not pay.
const UNLISTED_MAX: usize = 8;

/// Bytes of the beginning of a path, or of a header's value, by which rules are listed. Each length of
/// a path in use is one look-up.
const PATH_BYTES_MAX: usize = 64;

/// What a value is a value of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Field {
    Principal,
    /// Of the peer's identity, or the pod's.
    Namespace,
    /// Name of the service account.
    Account,
    /// `namespace/name` of the service account.
    QualifiedAccount,
    RequestPrincipal,
    Address,
    Port,
    Host,
    Method,
    Path,
    PodLabel,
    NamespaceLabel,
    /// The address after `x-forwarded-for`.
    RemoteAddress,
    Header,
    /// A claim of the token, at a path of names.
    Claim,
}

/// One value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    hash: u64,
    field: Field,
    /// Bytes of the beginning of a path; bits of a block of addresses and one more; else 0.
    length: u8,
}

impl Key {
    /// The key of a value that is made of several pieces.
    pub(crate) fn of(field: Field, pieces: &[&str]) -> Self {
        let mut hasher = hasher(field);
        for piece in pieces {
            piece.hash(&mut hasher);
        }
        Self::new(field, hasher)
    }

    /// The key of a value without regard to ASCII case.
    pub(crate) fn of_any_case(field: Field, text: &str) -> Self {
        let mut hasher = hasher(field);
        for byte in text.bytes() {
            hasher.write_u8(byte.to_ascii_lowercase());
        }
        Self::new(field, hasher)
    }

    /// The key of anything that can be hashed.
    pub(crate) fn of_value(field: Field, value: impl Hash) -> Self {
        let mut hasher = hasher(field);
        value.hash(&mut hasher);
        Self::new(field, hasher)
    }

    /// The key of everything that begins like this. `None`: that is everything.
    pub(crate) fn of_beginning(path: &[u8]) -> Option<Self> {
        let beginning = path.get(..PATH_BYTES_MAX).unwrap_or(path);
        let length = u8::try_from(beginning.len()).ok().filter(|n| *n > 0)?;
        let mut hasher = hasher(Field::Path);
        beginning.hash(&mut hasher);
        Some(Self {
            length,
            ..Self::new(Field::Path, hasher)
        })
    }

    /// The key of the addresses in a block.
    pub(crate) fn of_block(field: Field, block: IpNet) -> Self {
        Self {
            // At most 129.
            length: block.prefix_len().saturating_add(1),
            ..Self::of_value(field, block.trunc())
        }
    }

    /// The key of a header with a value that comes in pieces.
    pub(crate) fn of_header<'v>(name: &str, value: impl Iterator<Item = &'v [u8]>) -> Self {
        let mut hasher = hasher(Field::Header);
        name.hash(&mut hasher);
        for byte in value.flatten().take(PATH_BYTES_MAX) {
            hasher.write_u8(*byte);
        }
        Self::new(Field::Header, hasher)
    }

    /// The key of a claim at a path of names.
    pub(crate) fn of_claim(path: &[Arc<str>], value: &str) -> Self {
        let mut hasher = hasher(Field::Claim);
        path.hash(&mut hasher);
        value.hash(&mut hasher);
        Self::new(Field::Claim, hasher)
    }

    fn new(field: Field, hasher: FxHasher) -> Self {
        Self {
            hash: hasher.finish(),
            field,
            length: 0,
        }
    }

    fn bit(field: Field) -> u16 {
        1 << field as u8
    }
}

fn hasher(field: Field) -> FxHasher {
    let mut hasher = FxHasher::default();
    hasher.write_u8(field as u8);
    hasher
}

/// Keys of which one must be there.
pub(crate) type OneOf = Vec<Key>;

/// What must hold for a rule to match: of every part at least one item.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    parts: Vec<Vec<Vec<OneOf>>>,
}

impl Needs {
    /// What never matches.
    pub(crate) fn never() -> Self {
        Self {
            parts: vec![Vec::new()],
        }
    }

    /// One of these items must match, for each of which all that is listed must hold. No items: it
    /// never matches.
    pub(crate) fn any_item(&mut self, items: Vec<Vec<OneOf>>) {
        self.parts.push(items);
    }

    /// All of these must hold.
    pub(crate) fn all_of(&mut self, sets: Vec<OneOf>) {
        self.parts.push(vec![sets]);
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        self.parts.iter().flatten().flatten().flatten()
    }

    /// The keys to list the rule under, the rarest that will do. `None`: it has to be asked always.
    fn choose(&self, frequency: &FxHashMap<Key, usize>, fields: u16) -> Option<OneOf> {
        let cost = |keys: &OneOf| -> usize {
            let of = |key| frequency.get(key).copied().unwrap_or_default();
            keys.iter().map(of).sum()
        };
        let usable = |keys: &&OneOf| keys.iter().all(|k| fields & Key::bit(k.field) != 0);
        let of_item = |item: &Vec<OneOf>| {
            let sets = item.iter().filter(usable);
            sets.min_by_key(|keys| cost(keys)).cloned()
        };
        let of_part = |part: &Vec<Vec<OneOf>>| -> Option<OneOf> {
            let items: Option<Vec<OneOf>> = part.iter().map(of_item).collect();
            Some(items?.concat())
        };
        let parts = self.parts.iter().filter_map(of_part);
        parts.min_by_key(|keys| cost(keys))
    }
}

/// Every field.
pub(crate) const ALL_FIELDS: &[Field] = &[
    Field::Principal,
    Field::Namespace,
    Field::Account,
    Field::QualifiedAccount,
    Field::RequestPrincipal,
    Field::Address,
    Field::Port,
    Field::Host,
    Field::Method,
    Field::Path,
    Field::PodLabel,
    Field::NamespaceLabel,
    Field::RemoteAddress,
    Field::Header,
    Field::Claim,
];

/// The rules of one ordered list, by number. Immutable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates {
    listed: FxHashMap<u64, Box<[u32]>>,
    /// Those that are asked always.
    rest: Box<[u32]>,
    /// Fields that rules are listed under.
    fields: u16,
    /// Lengths of beginnings of paths that rules are listed under, ascending.
    path_bytes: Box<[u8]>,
    /// Lengths of blocks of addresses that rules are listed under, ascending.
    block_bits: Box<[u8]>,
}

impl Candidates {
    /// Rules are listed under values of these fields only.
    pub(crate) fn new(needs: &[Needs], fields: &[Field]) -> Self {
        let mask = fields.iter().fold(0, |mask, f| mask | Key::bit(*f));
        let listing = needs.len() > UNLISTED_MAX;
        let mut frequency: FxHashMap<Key, usize> = FxHashMap::default();
        for key in needs.iter().flat_map(Needs::keys).filter(|_| listing) {
            *frequency.entry(*key).or_default() += 1;
        }
        let mut listed: FxHashMap<u64, Vec<u32>> = FxHashMap::default();
        let mut rest = Vec::new();
        let mut found = Self::default();
        let (mut path_bytes, mut block_bits) = (BTreeSet::new(), BTreeSet::new());
        for (number, needs) in (0u32..).zip(needs) {
            let chosen = listing.then(|| needs.choose(&frequency, mask)).flatten();
            let Some(keys) = chosen else {
                rest.push(number);
                continue;
            };
            for key in keys {
                found.fields |= Key::bit(key.field);
                match (key.field, key.length) {
                    (_, 0) => {}
                    (Field::Path, bytes) => {
                        path_bytes.insert(bytes);
                    }
                    (_, bits) => {
                        block_bits.insert(bits - 1);
                    }
                }
                let numbers = listed.entry(key.hash).or_default();
                if numbers.last() != Some(&number) {
                    numbers.push(number);
                }
            }
        }
        let listed = listed.into_iter();
        Self {
            listed: listed
                .map(|(hash, numbers)| (hash, numbers.into()))
                .collect(),
            rest: rest.into(),
            path_bytes: path_bytes.into_iter().collect(),
            block_bits: block_bits.into_iter().collect(),
            ..found
        }
    }

    /// Whether rules are listed under a field, so that it is worth to make keys of it.
    pub(crate) fn asks(&self, field: Field) -> bool {
        self.fields & Key::bit(field) != 0
    }

    /// The keys of the beginnings of a path.
    pub(crate) fn of_path<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = Key> + 'a {
        let lengths = self.path_bytes.iter().map(|n| usize::from(*n));
        lengths.map_while(|n| path.get(..n).and_then(Key::of_beginning))
    }

    /// The keys of the blocks that an address is in, if rules are listed under blocks in this field.
    pub(crate) fn of_address(&self, field: Field, ip: IpAddr) -> impl Iterator<Item = Key> {
        let lengths = self.block_bits.iter().filter(move |_| self.asks(field));
        let block = move |bits: &u8| IpNet::new(ip, *bits).ok();
        lengths
            .filter_map(block)
            .map(move |block| Key::of_block(field, block))
    }

    /// The first rule in the order of the list that passes the test, among those that may match what
    /// has these keys.
    pub(crate) fn first(
        &self,
        keys: impl Iterator<Item = Key>,
        mut test: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let mut first = None;
        let lists = keys.filter_map(|key| self.listed.get(&key.hash));
        for list in std::iter::once(&self.rest).chain(lists) {
            for number in list {
                if first.is_some_and(|first| *number >= first) {
                    break;
                }
                if test(*number) {
                    first = Some(*number);
                    break;
                }
            }
        }
        first
    }

    /// All rules that may match what has these keys, in the order of the list.
    pub(crate) fn all(&self, keys: impl Iterator<Item = Key>) -> Vec<u32> {
        let lists = keys.filter_map(|key| self.listed.get(&key.hash));
        let lists = std::iter::once(&self.rest).chain(lists);
        let mut all: Vec<u32> = lists.flat_map(|list| list.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(name: &str) -> Key {
        Key::of(Field::Principal, &[name])
    }

    fn path(text: &str) -> Key {
        Key::of_beginning(text.as_bytes()).unwrap()
    }

    /// Rules that need one principal and one path each.
    fn needs(pairs: &[(&str, &str)]) -> Vec<Needs> {
        let of = |(name, text): &(&str, &str)| {
            let mut needs = Needs::default();
            needs.any_item(vec![vec![vec![principal(name)]]]);
            needs.any_item(vec![vec![vec![path(text)]]]);
            needs
        };
        pairs.iter().map(of).collect()
    }

    #[test]
    fn a_rule_is_listed_under_what_few_others_need() {
        let texts: Vec<String> = (0..20).map(|n| format!("/{n}/")).collect();
        let pairs: Vec<(&str, &str)> = texts.iter().map(|t| ("web", t.as_str())).collect();
        let candidates = Candidates::new(&needs(&pairs), ALL_FIELDS);
        assert!(candidates.asks(Field::Path) && !candidates.asks(Field::Principal));
        let keys = || candidates.of_path(b"/7/x");
        assert_eq!(candidates.all(keys()), [7]);
        assert_eq!(candidates.first(keys(), |_| true), Some(7));
        assert_eq!(candidates.first(candidates.of_path(b"/"), |_| true), None);
    }

    #[test]
    fn the_first_is_the_first_of_the_list_wherever_it_is_listed() {
        let mut all = needs(&[("a", "/x"); 6]);
        all.extend(vec![Needs::default(); 6]);
        all.extend(needs(&[("b", "/y"); 6]));
        all.push(Needs::never());
        let candidates = Candidates::new(&all, &[Field::Principal]);
        let first = |name, at_least: u32| {
            candidates.first(std::iter::once(principal(name)), |n| n >= at_least)
        };
        assert_eq!(first("a", 0), Some(0));
        assert_eq!(first("b", 0), Some(6));
        assert_eq!(first("b", 12), Some(12));
        assert_eq!(first("c", 12), None);
    }
}
