//! One copy of what many objects share: namespaces, label keys, node names, and whole sets of labels, which the
//! Pods of a Deployment have in common.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashSet;

/// Longer strings are hardly ever shared.
const SHARED_BYTES_MAX: usize = 128;

/// Labels or annotations.
pub(crate) type Texts = BTreeMap<Arc<str>, Arc<str>>;

/// Larger sets of labels or annotations are hardly ever shared either, and one that nobody else holds any more waits
/// for the next sweep.
const SHARED_TEXTS_BYTES_MAX: usize = 1024;

/// As few as these are not looked for.
const SWEEP_MIN: usize = 1024;

/// What is shared.
#[derive(Debug, Default)]
pub(crate) struct Names {
    strings: FxHashSet<Arc<str>>,
    texts: FxHashSet<Arc<Texts>>,
    /// So many there may be before it is looked what nobody else holds.
    unswept_max: usize,
}

impl Names {
    /// The shared copy of a string.
    pub fn share(&mut self, text: &str) -> Arc<str> {
        if text.len() > SHARED_BYTES_MAX {
            return Arc::from(text);
        }
        if let Some(shared) = self.strings.get(text) {
            return shared.clone();
        }
        let shared: Arc<str> = Arc::from(text);
        self.strings.insert(shared.clone());
        shared
    }

    /// The shared copy of labels or annotations.
    pub fn share_texts(&mut self, texts: Texts) -> Arc<Texts> {
        let bytes: usize = texts
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if bytes > SHARED_TEXTS_BYTES_MAX {
            return Arc::new(texts);
        }
        if let Some(shared) = self.texts.get(&texts) {
            return shared.clone();
        }
        let shared = Arc::new(texts);
        self.texts.insert(shared.clone());
        shared
    }

    /// Forgets what nobody else holds, once there is a quarter more than the last time.
    pub fn sweep(&mut self) {
        if self.texts.len() + self.strings.len() <= self.unswept_max {
            return;
        }
        self.texts.retain(|texts| Arc::strong_count(texts) > 1);
        self.strings.retain(|name| Arc::strong_count(name) > 1);
        let left = self.texts.len() + self.strings.len();
        self.unswept_max = left + left / 4 + SWEEP_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(value: &str) -> Texts {
        [("key".into(), value.into())].into()
    }

    #[test]
    fn the_same_is_kept_once_and_what_nobody_holds_is_forgotten() {
        let mut names = Names::default();
        let (one, other) = (names.share_texts(texts("a")), names.share_texts(texts("a")));
        assert!(Arc::ptr_eq(&one, &other));
        for n in 0..3 * SWEEP_MIN {
            names.share(&n.to_string());
            names.sweep();
        }
        assert!(names.strings.len() <= SWEEP_MIN + SWEEP_MIN / 4);
        assert!(Arc::ptr_eq(&one, &names.share_texts(texts("a"))));
    }

    /// Whoever may write one object must not make the process grow by writing it again and again.
    #[test]
    fn what_is_large_is_never_held() {
        let mut names = Names::default();
        for n in 0..3 {
            let large = format!("{n}{}", "x".repeat(SHARED_TEXTS_BYTES_MAX));
            let held = Arc::downgrade(&names.share_texts(texts(&large)));
            assert_eq!(held.strong_count(), 0);
        }
    }
}
