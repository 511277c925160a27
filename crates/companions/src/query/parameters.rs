//! Parameters of a request by the constraints of the service model, refused in AWS's words.

use std::collections::BTreeMap;

use emberbox_api::QueryError;

use super::invalid;

/// What a text may be. Characters are `\w` and these, as most of IAM's and STS's names (model).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text {
    pub(crate) min: usize,
    pub(crate) max: usize,
    /// `None`: anything.
    pub(crate) also: Option<&'static str>,
}

impl Text {
    /// Names of users, roles, policies and sessions.
    pub(crate) const fn name(min: usize, max: usize) -> Self {
        Self { min, max, also: Some("+=,.@-") }
    }

    pub(crate) const fn anything(min: usize, max: usize) -> Self {
        Self { min, max, also: None }
    }

    fn check(self, name: &str, value: &str) -> Result<(), QueryError> {
        let constraint = |words: String| {
            let member = lower_first(name);
            invalid(format!(
                "1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must have length {words}"
            ))
        };
        let length = value.chars().count();
        if length < self.min {
            return Err(constraint(format!("greater than or equal to {}", self.min)));
        }
        if length > self.max {
            return Err(constraint(format!("less than or equal to {}", self.max)));
        }
        let fits = |c: char, also: &str| c.is_ascii_alphanumeric() || c == '_' || also.contains(c);
        match self.also {
            Some(also) if !value.chars().all(|c| fits(c, also)) => Err(invalid(format!(
                "The specified value for {} is invalid. It must contain only alphanumeric characters and/or the following: {also}_",
                lower_first(name)
            ))),
            Some(_) | None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameters<'a>(pub(crate) &'a BTreeMap<String, String>);

impl<'a> Parameters<'a> {
    pub(crate) fn optional(&self, name: &str, text: Text) -> Result<Option<&'a str>, QueryError> {
        match self.0.get(name) {
            Some(value) => text.check(name, value).map(|()| Some(value.as_str())),
            None => Ok(None),
        }
    }

    pub(crate) fn required(&self, name: &str, text: Text) -> Result<&'a str, QueryError> {
        self.optional(name, text)?.ok_or_else(|| {
            let member = lower_first(name);
            invalid(format!("1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be null"))
        })
    }

    pub(crate) fn number(&self, name: &str, range: std::ops::RangeInclusive<u32>) -> Result<Option<u32>, QueryError> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let number: u32 = value.parse().map_err(|_| invalid(format!("{name} must be a number")))?;
        let bound = match number {
            n if n < *range.start() => format!("greater than or equal to {}", range.start()),
            n if n > *range.end() => format!("less than or equal to {}", range.end()),
            n => return Ok(Some(n)),
        };
        let member = lower_first(name);
        Err(invalid(format!(
            "1 validation error detected: Value '{number}' at '{member}' failed to satisfy constraint: Member must have value {bound}"
        )))
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value == "true")
    }

    /// `Name.member.1`, `Name.member.2`, ...
    pub(crate) fn list(&self, name: &str) -> Vec<&'a str> {
        (1..).map_while(|index| self.0.get(&format!("{name}.member.{index}"))).map(String::as_str).collect()
    }

    /// `Tags.member.1.Key` and `.Value`, ...
    pub(crate) fn tags(&self) -> BTreeMap<String, String> {
        let pair = |index: u32| {
            let key = self.0.get(&format!("Tags.member.{index}.Key"))?;
            let value = self.0.get(&format!("Tags.member.{index}.Value")).cloned().unwrap_or_default();
            Some((key.clone(), value))
        };
        (1..).map_while(pair).collect()
    }
}

fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_ascii_lowercase().to_string() + chars.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn constraints_are_told_in_awss_words() {
        let given: BTreeMap<String, String> = [
            ("RoleName", "a b"),
            ("MaxItems", "0"),
            ("L.member.1", "x"),
            ("L.member.2", "y"),
            ("L.member.4", "z"),
            ("Tags.member.1.Key", "k"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let parameters = Parameters(&given);
        let name = Text::name(1, 3);
        assert_eq!(
            parameters.required("RoleName", name).unwrap_err().message,
            "The specified value for roleName is invalid. It must contain only alphanumeric characters and/or the following: +=,.@-_"
        );
        assert!(parameters.required("RoleName", Text::anything(4, 9)).unwrap_err().message.ends_with("length greater than or equal to 4"));
        assert!(parameters.required("RoleName", Text::anything(0, 2)).unwrap_err().message.ends_with("length less than or equal to 2"));
        assert!(parameters.required("UserName", name).unwrap_err().message.contains("Value null at 'userName'"));
        assert_eq!(parameters.optional("UserName", name).unwrap(), None);
        assert!(parameters.number("MaxItems", 1..=1000).unwrap_err().message.ends_with("value greater than or equal to 1"));
        assert_eq!(parameters.list("L"), ["x", "y"]);
        assert_eq!(parameters.tags(), [("k".to_owned(), String::new())].into());
    }
}
