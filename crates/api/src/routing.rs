//! Method and path to operation, by the templates of the service model.
//!
//! Owns the matching of path labels and their percent-decoding. Path labels that hold ARNs arrive percent-encoded from the SDKs, and raw (with `:`
//! and, for some ARNs, `/`) from people with curl: a label takes one segment first, and several only when nothing else matches (ours).

use http::Method;
use percent_encoding::percent_decode_str;
use regex::Regex;

use crate::model::{Model, Operation};

/// A matched operation and its decoded path labels.
#[derive(Debug)]
pub struct Route<'m> {
    pub operation: &'m Operation,
    pub labels: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct Routes {
    /// Most literal template first.
    templates: Vec<Template>,
}

#[derive(Debug)]
struct Template {
    operation: usize,
    labels: Vec<String>,
    /// Every label is one segment.
    exact: Regex,
    /// A label may span segments.
    greedy: Regex,
}

#[derive(Debug, thiserror::Error)]
#[error("the path template {template} is not usable")]
pub struct BuildRoutesError {
    template: String,
    source: Box<regex::Error>,
}

impl Routes {
    pub fn new(model: &Model) -> Result<Self, BuildRoutesError> {
        let mut templates = model
            .operations
            .iter()
            .enumerate()
            .map(|(index, operation)| {
                Template::new(index, &operation.uri)
                    .map_err(|source| BuildRoutesError { template: operation.uri.clone(), source: Box::new(source) })
            })
            .collect::<Result<Vec<_>, _>>()?;
        templates.sort_by_key(|template| std::cmp::Reverse(template.literal_length()));
        Ok(Self { templates })
    }

    /// `None` for a path or method no operation has, and for labels that are not UTF-8.
    pub fn find<'m>(&self, model: &'m Model, method: &Method, path: &str) -> Option<Route<'m>> {
        let candidates = || self.templates.iter().filter(|template| model.operations[template.operation].method == *method);
        let (template, labels) = candidates()
            .find_map(|template| Some((template, template.labels_by(&template.exact, path)?)))
            .or_else(|| candidates().find_map(|template| Some((template, template.labels_by(&template.greedy, path)?))))?;
        Some(Route { operation: &model.operations[template.operation], labels })
    }
}

impl Template {
    fn new(operation: usize, uri: &str) -> Result<Self, regex::Error> {
        let (mut labels, mut exact, mut greedy) = (Vec::new(), String::from(r"\A"), String::from(r"\A"));
        for segment in uri.trim_start_matches('/').split('/') {
            match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(label) => {
                    labels.push(label.to_owned());
                    exact.push_str("/([^/]+)");
                    greedy.push_str("/(.+)");
                }
                None => {
                    for pattern in [&mut exact, &mut greedy] {
                        pattern.push('/');
                        pattern.push_str(&regex::escape(segment));
                    }
                }
            }
        }
        // A trailing slash is forgiven (ours).
        for pattern in [&mut exact, &mut greedy] {
            pattern.push_str(r"/?\z");
        }
        Ok(Self { operation, labels, exact: Regex::new(&exact)?, greedy: Regex::new(&greedy)? })
    }

    fn literal_length(&self) -> usize {
        self.exact.as_str().len()
    }

    fn labels_by(&self, pattern: &Regex, path: &str) -> Option<Vec<(String, String)>> {
        let captures = pattern.captures(path)?;
        let values = captures.iter().skip(1).flatten();
        self.labels.iter().cloned().zip(values).map(|(label, value)| Some((label, decode(value.as_str())?))).collect()
    }
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

/// The decoded pairs of a query string in their order. `+` is a space, as in forms.
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::LazyLock;

    use super::*;
    use proptest::prelude::*;

    const ARN: &str = "arn:aws:lambda:us-east-1:123456789012:microvm-image:sandbox";

    static MODEL: LazyLock<Model> = LazyLock::new(|| Model::load().unwrap());
    static ROUTES: LazyLock<Routes> = LazyLock::new(|| Routes::new(&MODEL).unwrap());

    fn find(method: Method, path: &str) -> Option<(String, Vec<(String, String)>)> {
        ROUTES.find(&MODEL, &method, path).map(|route| (route.operation.name.clone(), route.labels))
    }

    #[test]
    fn every_operation_is_reached_by_its_template() {
        for operation in &MODEL.operations {
            let path = operation.uri.replace('{', "v-").replace('}', "");
            assert_eq!(ROUTES.find(&MODEL, &operation.method, &path).unwrap().operation.name, operation.name);
        }
    }

    #[test]
    fn arns_are_labels_encoded_or_raw() {
        let encoded = ARN.replace(':', "%3A");
        for arn in [ARN, &encoded] {
            let (name, labels) = find(Method::GET, &format!("/2025-09-09/microvm-images/{arn}/versions/1.0/builds/b-1")).unwrap();
            assert_eq!(name, "GetMicrovmImageBuild");
            assert_eq!(labels[0], ("imageIdentifier".into(), ARN.into()));
            assert_eq!(labels[1], ("imageVersion".into(), "1.0".into()));
        }
    }

    #[test]
    fn slashes_in_labels_are_taken_encoded_or_raw() {
        for path in ["/2025-09-09/microvm-images/a%2Fb/versions", "/2025-09-09/microvm-images/a/b/versions"] {
            let (name, labels) = find(Method::GET, path).unwrap();
            assert_eq!((name.as_str(), labels[0].1.as_str()), ("ListMicrovmImageVersions", "a/b"));
        }
    }

    #[test]
    fn other_methods_and_paths_are_nobodys() {
        for (method, path) in [
            (Method::PATCH, "/2025-09-09/microvms"),
            (Method::GET, "/2025-09-09"),
            (Method::GET, "/"),
            (Method::GET, "/2025-09-09/microvms/%FF"),
            (Method::POST, "/2025-09-09/microvms//suspend"),
        ] {
            assert!(find(method.clone(), path).is_none(), "{method} {path}");
        }
    }

    #[test]
    fn query_pairs_are_decoded() {
        let pairs = query_pairs("a=1%2F2&b&a=x+y&&c=%3D");
        let text: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(text, [("a", "1/2"), ("b", ""), ("a", "x y"), ("c", "=")]);
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "(/2025-09-09/microvm[a-z-]*)?[/%0-9a-zA-Z:.é]*", query in ".*") {
            let _ = find(Method::GET, &path);
            let _ = query_pairs(&query);
        }
    }
}
