//! Names for objects that are written, so that none takes the place of an object that is there already.

use std::collections::BTreeSet;

use crate::origin::ObjectKey;

/// Longest name of an object.
const NAME_BYTES_MAX: usize = 253;

/// The first of `base`, `base-2`, `base-3` ... that is free, which it is no longer.
pub(super) fn fresh(
    taken: &mut BTreeSet<(&'static str, ObjectKey)>,
    kind: &'static str,
    namespace: &str,
    base: &str,
) -> String {
    for number in 1_u64.. {
        let suffix = match number {
            1 => String::new(),
            number => format!("-{number}"),
        };
        let mut room = NAME_BYTES_MAX.saturating_sub(suffix.len()).min(base.len());
        while !base.is_char_boundary(room) {
            room -= 1;
        }
        let kept = base.get(..room).unwrap_or_default();
        let name = format!("{}{suffix}", kept.trim_end_matches(['-', '.']));
        if taken.insert((kind, ObjectKey::new(namespace, name.as_str()))) {
            return name;
        }
    }
    base.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_given_twice() {
        let mut taken = BTreeSet::from([("A", ObjectKey::new("shop", "web"))]);
        let mut name = |kind, namespace, base: &str| fresh(&mut taken, kind, namespace, base);
        assert_eq!(name("A", "shop", "web"), "web-2");
        assert_eq!(name("A", "shop", "web"), "web-3");
        assert_eq!(name("A", "other", "web"), "web");
        assert_eq!(name("B", "shop", "web"), "web");
        let long = "x".repeat(300);
        assert_eq!(name("A", "shop", &long).len(), 253);
        assert_eq!(name("A", "shop", &long), format!("{}-2", "x".repeat(251)));
    }
}
