//! XML as the query protocol writes it.

use emberbox_api::envelope::escape_xml;
use emberbox_control::access::iso8601 as written;
use emberbox_store::UnixMillis;

/// What is between two tags.
#[derive(Debug, Default)]
pub(crate) struct Xml(String);

impl Xml {
    pub(crate) fn text(&mut self, name: &str, value: impl AsRef<str>) -> &mut Self {
        self.0.push_str(&format!("<{name}>{}</{name}>", escape_xml(value.as_ref())));
        self
    }

    pub(crate) fn element(&mut self, name: &str, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        fill(&mut inner);
        self.0.push_str(&format!("<{name}>{}</{name}>", inner.0));
        self
    }

    /// `<Name><member>...</member>...</Name>`.
    pub(crate) fn members<T>(&mut self, name: &str, items: impl IntoIterator<Item = T>, mut fill: impl FnMut(&mut Self, T)) -> &mut Self {
        self.element(name, |list| {
            for item in items {
                list.element("member", |member| fill(member, item));
            }
        })
    }
}

/// The answer of an action that has one.
pub(crate) fn respond(action: &str, namespace: &str, request_id: &str, result: &Xml) -> String {
    format!(
        "<{action}Response xmlns=\"{namespace}\"><{action}Result>{}</{action}Result><ResponseMetadata><RequestId>{request_id}</RequestId>\
         </ResponseMetadata></{action}Response>",
        result.0
    )
}

/// The answer of an action that only says that it was done.
pub(crate) fn respond_empty(action: &str, namespace: &str, request_id: &str) -> String {
    format!(
        "<{action}Response xmlns=\"{namespace}\"><ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
    )
}

pub(crate) fn iso8601(moment: UnixMillis) -> String {
    written(moment.0 / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_escaped_and_nested() {
        let mut xml = Xml::default();
        xml.text("A", "<&>").members("L", ["x", "y"], |member, value| {
            member.text("V", value);
        });
        assert_eq!(xml.0, "<A>&lt;&amp;&gt;</A><L><member><V>x</V></member><member><V>y</V></member></L>");
        assert_eq!(iso8601(UnixMillis(1_782_907_200_500)), "2026-07-01T12:00:00Z");
        assert!(respond("Get", "ns", "id", &xml).starts_with("<GetResponse xmlns=\"ns\"><GetResult><A>"));
    }
}
