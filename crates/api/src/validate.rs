//! Every constraint of the service model, all violations in one message, in AWS's words (observed).
//!
//! Takes what [`crate::decode`] typed. Never echoes a sensitive value, nor more than [`MAX_ECHO`] characters of any (ours).

use emberbox_wire::error::ApiError;
use serde_json::{Map, Value};

use crate::model::{Bounds, Kind, Member, Model, Shape, ShapeId};

const MAX_ECHO: usize = 1024;

/// `Err` is a ValidationException that names every violation.
pub fn validate(model: &Model, shape: ShapeId, input: &Value) -> Result<(), ApiError> {
    let mut walk = Walk { model, violations: Vec::new() };
    walk.value(shape, input, "");
    match walk.violations.len() {
        0 => Ok(()),
        1 => Err(ApiError::validation(format!("1 validation error detected: {}", walk.violations[0]))),
        count => Err(ApiError::validation(format!("{count} validation errors detected: {}", walk.violations.join("; ")))),
    }
}

struct Walk<'m> {
    model: &'m Model,
    violations: Vec<String>,
}

impl Walk<'_> {
    fn value(&mut self, shape: ShapeId, value: &Value, path: &str) {
        match (&self.model.shape(shape).kind, value) {
            (Kind::Structure { members, union }, Value::Object(object)) => self.structure(members, *union, object, path),
            (Kind::List { element, .. }, Value::Array(elements)) => {
                self.own(shape, value, path);
                self.elements(*element, elements, value, path);
            }
            (Kind::Map { key, value: element, .. }, Value::Object(entries)) => {
                self.own(shape, value, path);
                self.entries(*key, *element, entries, value, path);
            }
            _ => self.own(shape, value, path),
        }
    }

    fn structure(&mut self, members: &[Member], union: bool, object: &Map<String, Value>, path: &str) {
        if union && object.len() != 1 {
            let names = members.iter().map(|member| camel_case(&member.name)).collect::<Vec<_>>().join(", ");
            self.violations.push(format!(
                "Value at '{path}' failed to satisfy constraint: Member must have exactly one of the following members set: [{names}]"
            ));
        }
        for member in members {
            let path = join(path, &camel_case(&member.name));
            match object.get(&member.name) {
                Some(value) => self.value(member.shape, value, &path),
                None if member.required => self.null(&path),
                None => {}
            }
        }
    }

    /// Structures in a list are named one by one (`allowedPorts.1.member.port`); scalars are judged together, on the list.
    fn elements(&mut self, element: ShapeId, elements: &[Value], list: &Value, path: &str) {
        let shape = self.model.shape(element);
        let scalar = !matches!(shape.kind, Kind::Structure { .. } | Kind::List { .. } | Kind::Map { .. });
        for (index, value) in elements.iter().enumerate() {
            let path = format!("{path}.{}.member", index + 1);
            match value {
                Value::Null => self.null(&path),
                _ if !scalar => self.value(element, value, &path),
                _ => {}
            }
        }
        if scalar && elements.iter().any(|value| !value.is_null() && !violated(shape, value).is_empty()) {
            let words = format!("Member must satisfy constraint: [{}]", constraints(shape).join(", "));
            self.push(list, shape.sensitive, path, &words);
        }
    }

    fn entries(&mut self, key: ShapeId, element: ShapeId, entries: &Map<String, Value>, map: &Value, path: &str) {
        let (key, value_shape) = (self.model.shape(key), self.model.shape(element));
        let sensitive = key.sensitive || value_shape.sensitive;
        if entries.keys().any(|name| !violated(key, &Value::from(name.as_str())).is_empty()) {
            self.push(map, sensitive, path, &format!("Map keys must satisfy constraint: [{}]", constraints(key).join(", ")));
        }
        if entries.values().any(Value::is_null) {
            self.push(map, sensitive, path, "Map value must satisfy constraint: [Member must not be null]");
        }
        if entries.values().any(|value| !value.is_null() && !violated(value_shape, value).is_empty()) {
            self.push(map, sensitive, path, &format!("Map value must satisfy constraint: [{}]", constraints(value_shape).join(", ")));
        }
    }

    /// The constraints a shape puts on a value itself.
    fn own(&mut self, shape: ShapeId, value: &Value, path: &str) {
        let shape = self.model.shape(shape);
        let sensitive = shape.sensitive || self.holds_sensitive(shape);
        for words in violated(shape, value) {
            self.push(value, sensitive, path, &words);
        }
    }

    fn holds_sensitive(&self, shape: &Shape) -> bool {
        match shape.kind {
            Kind::List { element, .. } => self.model.shape(element).sensitive,
            Kind::Map { key, value, .. } => self.model.shape(key).sensitive || self.model.shape(value).sensitive,
            _ => false,
        }
    }

    fn null(&mut self, path: &str) {
        self.violations.push(format!("Value null at '{path}' failed to satisfy constraint: Member must not be null"));
    }

    fn push(&mut self, value: &Value, sensitive: bool, path: &str, words: &str) {
        let value = if sensitive { String::new() } else { format!(" '{}'", echo(value)) };
        self.violations.push(format!("Value{value} at '{path}' failed to satisfy constraint: {words}"));
    }
}

/// AWS's framework names members like this whatever their case on the wire (observed for Lambda Core and for tags).
fn camel_case(name: &str) -> String {
    let mut rest = name.chars();
    rest.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(rest).collect()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

/// Every constraint of a shape, met or not.
fn constraints(shape: &Shape) -> Vec<String> {
    match &shape.kind {
        Kind::Text { length, pattern, values } => {
            let mut all: Vec<String> = bounds("length", *length).into_iter().map(|(words, _)| words).collect();
            all.extend(pattern.as_ref().map(|pattern| pattern_words(&pattern.source)));
            all.extend((!values.is_empty()).then(|| enum_words(values)));
            all
        }
        Kind::Integer { range, .. } => bounds("value", *range).into_iter().map(|(words, _)| words).collect(),
        Kind::List { size, .. } | Kind::Map { size, .. } => bounds("length", *size).into_iter().map(|(words, _)| words).collect(),
        Kind::Structure { .. } | Kind::Float | Kind::Boolean | Kind::Timestamp => Vec::new(),
    }
}

/// The constraints of a shape that a value breaks.
fn violated(shape: &Shape, value: &Value) -> Vec<String> {
    let outside = |what, limits, measure: i64| -> Vec<String> {
        bounds(what, limits).into_iter().filter(|(_, allows)| !allows(measure)).map(|(words, _)| words).collect()
    };
    match (&shape.kind, value) {
        (Kind::Text { length, pattern, values }, Value::String(text)) => {
            let mut broken = outside("length", *length, count(text.chars().count()));
            broken.extend(pattern.as_ref().filter(|pattern| !pattern.matches(text)).map(|pattern| pattern_words(&pattern.source)));
            broken.extend((!values.is_empty() && !values.contains(text)).then(|| enum_words(values)));
            broken
        }
        (Kind::Integer { range, .. }, Value::Number(number)) => outside("value", *range, number.as_i64().unwrap_or(i64::MAX)),
        (Kind::List { size, .. }, Value::Array(elements)) => outside("length", *size, count(elements.len())),
        (Kind::Map { size, .. }, Value::Object(entries)) => outside("length", *size, count(entries.len())),
        _ => Vec::new(),
    }
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

type Allows = Box<dyn Fn(i64) -> bool>;

fn bounds(what: &str, bounds: Bounds) -> Vec<(String, Allows)> {
    let upper = bounds
        .max
        .map(|max| -> (String, Allows) { (format!("Member must have {what} less than or equal to {max}"), Box::new(move |n| n <= max)) });
    let lower = bounds.min.map(|min| -> (String, Allows) {
        (format!("Member must have {what} greater than or equal to {min}"), Box::new(move |n| n >= min))
    });
    upper.into_iter().chain(lower).collect()
}

fn pattern_words(source: &str) -> String {
    format!("Member must satisfy regular expression pattern: {source}")
}

fn enum_words(values: &[String]) -> String {
    format!("Member must satisfy enum value set: [{}]", values.join(", "))
}

/// As Java prints it: strings bare, lists in brackets, maps as `{k=v}`.
fn echo(value: &Value) -> String {
    let mut text = String::new();
    print(value, &mut text);
    match text.char_indices().nth(MAX_ECHO) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn print(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => out.push_str(text),
        Value::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                print(element, out);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            out.push('{');
            for (index, (name, entry)) in entries.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                out.push_str(name);
                out.push('=');
                print(entry, out);
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests;
