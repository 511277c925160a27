//! One page of a listing: keys in order, rolled up at a delimiter (documented: ListObjectsV2).

use std::ops::Bound;
use std::sync::Arc;

use super::record::ObjectRecord;
use super::store::Objects;

/// At most so many keys and prefixes a page (documented).
pub(super) const MAX_KEYS: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<Arc<ObjectRecord>>,
    pub(super) prefixes: Vec<String>,
    /// Where the next page begins: after this. `None` on the last page.
    pub(super) next: Option<String>,
}

pub(super) struct Query<'a> {
    pub(super) prefix: &'a str,
    pub(super) delimiter: &'a str,
    pub(super) after: &'a str,
    pub(super) limit: usize,
}

pub(super) fn page(objects: &Objects, query: &Query<'_>) -> Page {
    let mut page = Page::default();
    let mut last = String::new();
    // `after` may lie before the prefix; the later of the two is where to begin.
    let mut from =
        if query.after >= query.prefix { Bound::Excluded(query.after.to_owned()) } else { Bound::Included(query.prefix.to_owned()) };
    while let Some((key, record)) = objects.range::<String, _>((from, Bound::Unbounded)).next() {
        if !key.starts_with(query.prefix) || query.limit == 0 {
            break;
        }
        if page.objects.len() + page.prefixes.len() == query.limit {
            page.next = Some(last);
            break;
        }
        match rolled_up(key, query) {
            Some(prefix) => {
                last = beyond(prefix);
                page.prefixes.push(prefix.to_owned());
            }
            None => {
                last = key.clone();
                page.objects.push(record.clone());
            }
        }
        from = Bound::Excluded(last.clone());
    }
    page
}

/// Up to and with the first delimiter after the prefix.
fn rolled_up<'k>(key: &'k str, query: &Query<'_>) -> Option<&'k str> {
    if query.delimiter.is_empty() {
        return None;
    }
    let start = query.prefix.len();
    key[start..].find(query.delimiter).map(|at| &key[..start + at + query.delimiter.len()])
}

/// Greater than every key that begins with `prefix`, but for those that go on with the last character there is.
pub(super) fn beyond(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}
