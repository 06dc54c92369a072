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
    /// This generation, which is the one that is written, of another text: labels or annotations were changed, or the
    /// object was made anew.
    Text(i64),
}

/// What is written, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) generation: i64,
    /// `None`: the text could not be read.
    pub(crate) fingerprint: Option<u64>,
}

impl From<Version> for Written {
    fn from(version: Version) -> Self {
        Self {
            generation: version.generation,
            fingerprint: Some(version.fingerprint),
        }
    }
}

/// Compares. A pod of an earlier release tells no fingerprints, and a text that can not be read has none; then the
/// generation alone counts.
pub(crate) fn differs(
    (generations, fingerprints): (&Numbers<i64>, &Numbers<u64>),
    name: &str,
    written: impl Into<Written>,
) -> Option<Differs> {
    let written = written.into();
    match generations.get(name) {
        None => Some(Differs::Missing),
        Some(has) if *has != written.generation => Some(Differs::Generation(*has)),
        Some(has) => {
            let both = fingerprints.get(name).zip(written.fingerprint);
            let other = both.is_some_and(|(told, written)| *told != written);
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
        let unknown = Written {
            generation: 2,
            fingerprint: None,
        };
        let told = (&[("p".to_owned(), 2)].into(), &[("p".to_owned(), 9)].into());
        assert_eq!(differs(told, "p", unknown), None, "nothing to compare with");
    }
}
