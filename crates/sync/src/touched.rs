//! What was touched in a collection since somebody last asked: whoever follows it looks there again.

use std::collections::BTreeSet;

/// Keys under which something may have changed. No part of the value it goes with: any two are equal.
#[derive(Debug, Default)]
pub(crate) enum Touched<K> {
    /// Nobody has asked yet.
    #[default]
    All,
    /// These, since the last time.
    Some(BTreeSet<K>),
}

impl<K: Ord> Touched<K> {
    /// Notes a key, which is made only if somebody wants to know.
    pub(crate) fn note(&mut self, key: impl FnOnce() -> K) {
        if let Self::Some(keys) = self {
            keys.insert(key());
        }
    }

    /// Everything since the last call.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Some(BTreeSet::new()))
    }
}

/// Nobody has followed the copy.
impl<K> Clone for Touched<K> {
    fn clone(&self) -> Self {
        Self::All
    }
}

impl<K> PartialEq for Touched<K> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<K> Eq for Touched<K> {}
