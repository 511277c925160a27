//! The service model as a shape graph: what `emberbox_wire::LAMBDA_MICROVMS_MODEL` says, resolved once at start.
//!
//! Owns the reading of the model and nothing else; routing, decoding, validation and the envelope walk the graph. Shapes are held by index, so a
//! recursive model would be no problem. A model that names a shape it lacks, or holds a pattern the regex crate cannot take, is refused at start.

use std::collections::{BTreeMap, HashMap};

use regex::Regex;
use serde::Deserialize;

/// Index of a shape in [`Model`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShapeId(usize);

#[derive(Debug)]
pub struct Model {
    pub operations: Vec<Operation>,
    shapes: Vec<Shape>,
    by_name: HashMap<String, ShapeId>,
}

#[derive(Debug)]
pub struct Operation {
    pub name: String,
    pub method: http::Method,
    /// `/2025-09-09/microvms/{microvmIdentifier}`.
    pub uri: String,
    pub status: u16,
    pub input: Option<ShapeId>,
    pub output: Option<ShapeId>,
    /// The errors it declares.
    pub errors: Vec<String>,
    pub read_only: bool,
}

#[derive(Debug)]
pub struct Shape {
    pub kind: Kind,
    pub sensitive: bool,
    /// HTTP status, of an error.
    pub error_status: Option<u16>,
}

#[derive(Debug)]
pub enum Kind {
    Structure { members: Vec<Member>, union: bool },
    List { element: ShapeId, size: Bounds },
    Map { key: ShapeId, value: ShapeId, size: Bounds },
    Text { length: Bounds, pattern: Option<Pattern>, values: Vec<String> },
    Integer { range: Bounds, bits: u8 },
    Float,
    Boolean,
    Timestamp,
}

#[derive(Debug)]
pub struct Member {
    pub name: String,
    /// The name on the wire.
    pub wire_name: String,
    pub shape: ShapeId,
    pub location: Location,
    pub required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    Body,
    Path,
    Query,
    Header,
}

/// Inclusive; lengths count characters, sizes elements (documented).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    pub min: Option<i64>,
    pub max: Option<i64>,
}

/// A pattern of the model: it must match the whole value.
#[derive(Debug)]
pub struct Pattern {
    pub source: String,
    whole: Regex,
}

impl Pattern {
    pub fn matches(&self, text: &str) -> bool {
        self.whole.is_match(text)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LoadModelError {
    #[error("the service model is not the JSON expected")]
    Json(#[source] serde_json::Error),
    #[error("the service model names the shape {0}, which it lacks")]
    MissingShape(String),
    #[error("shape {shape} is of the unknown type {kind}")]
    UnknownType { shape: String, kind: String },
    #[error("shape {shape} has a pattern the regex crate cannot take")]
    Pattern { shape: String, source: Box<regex::Error> },
    #[error("operation {operation} has no usable HTTP method")]
    Method { operation: String },
}

#[derive(Deserialize)]
struct RawModel {
    operations: BTreeMap<String, RawOperation>,
    shapes: BTreeMap<String, RawShape>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawOperation {
    http: RawHttp,
    input: Option<RawReference>,
    output: Option<RawReference>,
    #[serde(default)]
    errors: Vec<RawReference>,
    #[serde(default)]
    readonly: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHttp {
    method: String,
    request_uri: String,
    response_code: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawReference {
    shape: String,
    location: Option<String>,
    location_name: Option<String>,
}

#[derive(Deserialize)]
struct RawShape {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    members: BTreeMap<String, RawReference>,
    #[serde(default)]
    required: Vec<String>,
    member: Option<RawReference>,
    key: Option<RawReference>,
    value: Option<RawReference>,
    min: Option<i64>,
    max: Option<i64>,
    pattern: Option<String>,
    #[serde(default, rename = "enum")]
    values: Vec<String>,
    #[serde(default)]
    sensitive: bool,
    #[serde(default)]
    union: bool,
    error: Option<RawError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawError {
    http_status_code: Option<u16>,
}

impl Model {
    /// The model of MicroVMs.
    pub fn load() -> Result<Self, LoadModelError> {
        Self::parse(emberbox_wire::LAMBDA_MICROVMS_MODEL)
    }

    pub fn parse(text: &str) -> Result<Self, LoadModelError> {
        let raw: RawModel = serde_json::from_str(text).map_err(LoadModelError::Json)?;
        let names = Names(raw.shapes.keys().enumerate().map(|(index, name)| (name.clone(), ShapeId(index))).collect());
        let shapes = raw.shapes.iter().map(|(name, shape)| names.shape(name, shape)).collect::<Result<_, _>>()?;
        let operations = raw.operations.into_iter().map(|(name, operation)| names.operation(name, operation)).collect::<Result<_, _>>()?;
        Ok(Self { operations, shapes, by_name: names.0 })
    }

    pub fn shape(&self, id: ShapeId) -> &Shape {
        &self.shapes[id.0]
    }

    pub fn shape_named(&self, name: &str) -> Option<&Shape> {
        self.by_name.get(name).map(|id| self.shape(*id))
    }

    /// Members of a structure; none of anything else.
    pub fn members(&self, id: ShapeId) -> &[Member] {
        self.shape(id).members()
    }
}

impl Shape {
    pub fn members(&self) -> &[Member] {
        match &self.kind {
            Kind::Structure { members, .. } => members,
            _ => &[],
        }
    }
}

/// Names while the graph is being made.
struct Names(HashMap<String, ShapeId>);

impl Names {
    fn id(&self, name: &str) -> Result<ShapeId, LoadModelError> {
        self.0.get(name).copied().ok_or_else(|| LoadModelError::MissingShape(name.into()))
    }

    fn part(&self, shape: &str, part: &Option<RawReference>) -> Result<ShapeId, LoadModelError> {
        self.id(part.as_ref().map_or(shape, |part| part.shape.as_str()))
    }

    fn operation(&self, name: String, raw: RawOperation) -> Result<Operation, LoadModelError> {
        let method = raw.http.method.parse().map_err(|_| LoadModelError::Method { operation: name.clone() })?;
        let shape = |reference: Option<RawReference>| reference.map(|reference| self.id(&reference.shape)).transpose();
        let (input, output) = (shape(raw.input)?, shape(raw.output)?);
        let errors = raw.errors.into_iter().map(|error| error.shape).collect();
        let status = raw.http.response_code.unwrap_or(200);
        Ok(Operation { name, method, uri: raw.http.request_uri, status, input, output, errors, read_only: raw.readonly })
    }

    fn shape(&self, name: &str, raw: &RawShape) -> Result<Shape, LoadModelError> {
        let bounds = Bounds { min: raw.min, max: raw.max };
        let kind = match raw.kind.as_str() {
            "structure" => Kind::Structure { members: self.members(raw)?, union: raw.union },
            "list" => Kind::List { element: self.part(name, &raw.member)?, size: bounds },
            "map" => Kind::Map { key: self.part(name, &raw.key)?, value: self.part(name, &raw.value)?, size: bounds },
            "string" => Kind::Text { length: bounds, pattern: pattern(name, raw)?, values: raw.values.clone() },
            "integer" => Kind::Integer { range: bounds, bits: 32 },
            "long" => Kind::Integer { range: bounds, bits: 64 },
            "float" | "double" => Kind::Float,
            "boolean" => Kind::Boolean,
            "timestamp" => Kind::Timestamp,
            other => return Err(LoadModelError::UnknownType { shape: name.into(), kind: other.into() }),
        };
        let error_status = raw.error.as_ref().and_then(|error| error.http_status_code);
        Ok(Shape { kind, sensitive: raw.sensitive, error_status })
    }

    fn members(&self, raw: &RawShape) -> Result<Vec<Member>, LoadModelError> {
        let member = |(name, reference): (&String, &RawReference)| {
            Ok(Member {
                name: name.clone(),
                wire_name: reference.location_name.clone().unwrap_or_else(|| name.clone()),
                shape: self.id(&reference.shape)?,
                location: match reference.location.as_deref() {
                    Some("uri") => Location::Path,
                    Some("querystring") => Location::Query,
                    Some(_) => Location::Header,
                    None => Location::Body,
                },
                required: raw.required.contains(name),
            })
        };
        raw.members.iter().map(member).collect()
    }
}

fn pattern(shape: &str, raw: &RawShape) -> Result<Option<Pattern>, LoadModelError> {
    let compile = |source: &String| match Regex::new(&format!(r"\A(?:{source})\z")) {
        Ok(whole) => Ok(Pattern { source: source.clone(), whole }),
        Err(error) => Err(LoadModelError::Pattern { shape: shape.into(), source: Box::new(error) }),
    };
    raw.pattern.as_ref().map(compile).transpose()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_published_model_loads_whole() {
        let model = Model::load().unwrap();
        assert_eq!(model.operations.len(), 24);
        let tag = model.operations.iter().find(|operation| operation.name == "TagResource").unwrap();
        assert_eq!((tag.status, tag.method.as_str()), (204, "POST"));
        let member = &model.members(tag.input.unwrap())[0];
        assert_eq!((member.name.as_str(), member.location, member.required), ("Resource", Location::Path, true));
    }

    #[test]
    fn patterns_of_java_match_the_whole_value() {
        let model = Model::load().unwrap();
        let Kind::Text { pattern: Some(pattern), .. } = &model.shape_named("TagKey").unwrap().kind else { panic!("TagKey") };
        assert!(pattern.matches("Größe 1 _.:/=+-@"));
        assert!(!pattern.matches("a\n") && !pattern.matches("a#b"));
    }

    #[test]
    fn a_model_with_a_hole_is_refused() {
        let text = r#"{"operations":{},"shapes":{"A":{"type":"list","member":{"shape":"B"}}}}"#;
        assert!(matches!(Model::parse(text), Err(LoadModelError::MissingShape(name)) if name == "B"));
    }
}
