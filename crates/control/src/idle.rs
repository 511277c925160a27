//! The tag by which an image says what counts as activity for the idle policies of its MicroVMs (ours): `emberbox:idle = traffic | traffic+cpu`.

use std::collections::BTreeMap;

use emberbox_store::IdleSignal;
use serde_json::Value;

use crate::refusal::Refusal;

pub(crate) const TAG: &str = "emberbox:idle";

/// Refuses a value that means nothing, when the tag is set.
pub(crate) fn admit(tags: &BTreeMap<String, String>) -> Result<(), Refusal> {
    match tags.get(TAG) {
        Some(value) => parse(value).map(|_| ()).ok_or_else(|| Refusal::IdleTag(value.clone())),
        None => Ok(()),
    }
}

/// What the tags say, else `otherwise`.
pub(crate) fn signal(tags: &BTreeMap<String, String>, otherwise: IdleSignal) -> IdleSignal {
    tags.get(TAG).and_then(|value| parse(value)).unwrap_or(otherwise)
}

fn parse(value: &str) -> Option<IdleSignal> {
    serde_json::from_value(Value::from(value)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_wins_and_nonsense_is_refused() {
        let tags = |value: &str| BTreeMap::from([(TAG.to_owned(), value.to_owned())]);
        assert_eq!(signal(&tags("traffic+cpu"), IdleSignal::Traffic), IdleSignal::TrafficAndCpu);
        assert_eq!(signal(&tags("traffic"), IdleSignal::TrafficAndCpu), IdleSignal::Traffic);
        assert_eq!(signal(&BTreeMap::new(), IdleSignal::TrafficAndCpu), IdleSignal::TrafficAndCpu);
        assert_eq!(admit(&tags("cpu")), Err(Refusal::IdleTag("cpu".into())));
        assert_eq!(admit(&BTreeMap::from([("other".to_owned(), "cpu".to_owned())])), Ok(()));
    }
}
