//! Keys that stand in RequestAuthentications, read once for all services that an object is for.

use std::sync::Arc;

use cairn_config_schema::snapshot::{KeySource, RequestAuthentication};
use rustc_hash::FxHashMap;

use super::keys::KeySet;

/// The key sets by their texts. One that can not be used is not among them.
#[derive(Clone, Debug, Default)]
pub struct InlineKeys {
    by_text: FxHashMap<Arc<str>, Arc<KeySet>>,
}

impl InlineKeys {
    /// Reads those of all rules.
    pub fn read<'a>(
        authentications: impl IntoIterator<Item = &'a Arc<RequestAuthentication>>,
    ) -> Self {
        let mut read = Self::default();
        for rule in authentications.into_iter().flat_map(|a| &a.rules) {
            if let KeySource::Inline(text) = &rule.keys
                && !read.by_text.contains_key(text)
                && let Ok(keys) = KeySet::parse(text)
            {
                read.by_text.insert(text.clone(), Arc::new(keys));
            }
        }
        read
    }

    /// The keys of a text. `None`: it has none that can be used.
    pub(super) fn of(&self, text: &str) -> Option<&Arc<KeySet>> {
        self.by_text.get(text)
    }
}
