//! Whether what a pod acknowledges of an object is the text that is written. Asks nobody.

use std::collections::BTreeMap;

use cairn_config_schema::resources::Version;

/// Numbers by `Kind/namespace/name`, or `Kind/name`.
pub(crate) type Numbers<N> = BTreeMap<String, N>;

/// What a pod has in force of an object, if it is not what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Differs {
    /// Nothing.
    Missing,
    /// This generation.
    Generation(i64),
    /// This generation, which is the one that is written, of an earlier text: labels or annotations were changed, or the
    /// object was made anew.
    Text(i64),
}

/// Compares. A pod of an earlier release tells no fingerprints; then the generation alone counts.
pub(crate) fn differs(
    (generations, fingerprints): (&Numbers<i64>, &Numbers<u64>),
    name: &str,
    written: Version,
) -> Option<Differs> {
    match generations.get(name) {
        None => Some(Differs::Missing),
        Some(has) if *has != written.generation => Some(Differs::Generation(*has)),
        Some(has) => {
            let told = fingerprints.get(name);
            let other = told.is_some_and(|told| *told != written.fingerprint);
            other.then_some(Differs::Text(*has))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_told_by_its_generation_and_its_fingerprint() {
        let written = Version {
            generation: 2,
            fingerprint: 7,
        };
        let of = |generation: Option<i64>, fingerprint: Option<u64>| {
            let generations = generation
                .map(|n| ("p".to_owned(), n))
                .into_iter()
                .collect();
            let fingerprints = fingerprint.map(|n| ("p".to_owned(), n));
            let fingerprints = fingerprints.into_iter().collect();
            differs((&generations, &fingerprints), "p", written)
        };
        for (generation, fingerprint, expected) in [
            (Some(2), Some(7), None),
            (Some(2), None, None),
            (Some(2), Some(8), Some(Differs::Text(2))),
            (Some(1), Some(7), Some(Differs::Generation(1))),
            (Some(3), Some(7), Some(Differs::Generation(3))),
            (None, None, Some(Differs::Missing)),
        ] {
            assert_eq!(of(generation, fingerprint), expected);
        }
    }
}
