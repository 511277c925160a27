//! The circumstances of a request: condition keys and their values.

use std::borrow::Cow;

/// Condition keys, whose names have no case (documented), with one value or several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    entries: Vec<(Cow<'static, str>, Vec<String>)>,
}

impl Context {
    pub fn set(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        self.set_all(key, vec![value.into()]);
    }

    /// Replaces what was there. A key with no values is a key that is not there.
    pub fn set_all(&mut self, key: impl Into<Cow<'static, str>>, values: Vec<String>) {
        let key = key.into();
        let key = if key.bytes().any(|byte| byte.is_ascii_uppercase()) { Cow::Owned(key.to_ascii_lowercase()) } else { key };
        self.entries.retain(|(known, _)| *known != key);
        if !values.is_empty() {
            self.entries.push((key, values));
        }
    }

    /// `key` in lower case.
    pub(super) fn get(&self, key: &str) -> Option<&[String]> {
        self.entries.iter().find(|(known, _)| known == key).map(|(_, values)| values.as_slice())
    }
}
