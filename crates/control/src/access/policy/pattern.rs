//! Text with `*`, `?` and `${variables}`.

use super::context::Context;
use super::document::MalformedPolicy;

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    Fixed(Vec<Atom>),
    /// Has variables: what it matches depends on the request.
    Templated(Vec<Part>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Atom {
    Byte(u8),
    /// `?`: one character.
    One,
    /// `*`: any number of characters.
    Many,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Atom(Atom),
    Variable { key: String, default: Option<String> },
}

/// Which characters of a text mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    pub(super) wildcards: bool,
    /// Only in version 2012-10-17 (documented).
    pub(super) variables: bool,
}

impl Pattern {
    pub(super) fn compile(text: &str, syntax: Syntax) -> Result<Self, MalformedPolicy> {
        let mut parts = Vec::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            if syntax.variables
                && let Some(after) = rest.strip_prefix("${")
            {
                let end = after.find('}').ok_or(MalformedPolicy::Syntax)?;
                parts.push(variable(&after[..end])?);
                rest = &after[end + 1..];
                continue;
            }
            let byte = rest.as_bytes()[0];
            let length = rest.chars().next().map_or(1, char::len_utf8);
            match byte {
                b'*' if syntax.wildcards => push_many(&mut parts),
                b'?' if syntax.wildcards => parts.push(Part::Atom(Atom::One)),
                _ => parts.extend(rest.as_bytes()[..length].iter().map(|byte| Part::Atom(Atom::Byte(*byte)))),
            }
            rest = &rest[length..];
        }
        let fixed: Option<Vec<Atom>> = parts.iter().map(|part| if let Part::Atom(atom) = part { Some(*atom) } else { None }).collect();
        Ok(fixed.map_or(Self::Templated(parts), Self::Fixed))
    }

    pub(super) fn matches(&self, text: &str, context: &Context) -> bool {
        match self {
            Self::Fixed(atoms) => glob(atoms, text.as_bytes()),
            Self::Templated(_) => self.resolve(context).is_some_and(|atoms| glob(&atoms, text.as_bytes())),
        }
    }

    pub(super) fn matches_ignoring_case(&self, text: &str, context: &Context) -> bool {
        let lower = |atoms: &[Atom]| -> Vec<Atom> {
            atoms.iter().map(|atom| if let Atom::Byte(byte) = atom { Atom::Byte(byte.to_ascii_lowercase()) } else { *atom }).collect()
        };
        self.resolve(context).is_some_and(|atoms| glob(&lower(&atoms), text.to_ascii_lowercase().as_bytes()))
    }

    /// `None` when a variable has no value in this request: then the pattern matches nothing (documented).
    pub(super) fn resolve(&self, context: &Context) -> Option<Vec<Atom>> {
        let parts = match self {
            Self::Fixed(atoms) => return Some(atoms.clone()),
            Self::Templated(parts) => parts,
        };
        let mut atoms = Vec::with_capacity(parts.len() + 32);
        for part in parts {
            match part {
                Part::Atom(atom) => atoms.push(*atom),
                Part::Variable { key, default } => {
                    // A variable stands for one value; a key with several has none to give (documented).
                    let value = match context.get(key) {
                        Some([value]) => value,
                        Some(_) => return None,
                        None => default.as_ref()?,
                    };
                    atoms.extend(value.bytes().map(Atom::Byte));
                }
            }
        }
        Some(atoms)
    }

    pub(super) fn is_everything(&self) -> bool {
        *self == Self::Fixed(vec![Atom::Many])
    }

    /// Whether it mentions a key that begins with `prefix`.
    pub(super) fn mentions(&self, prefix: &str) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Templated(parts) => parts.iter().any(|part| matches!(part, Part::Variable { key, .. } if key.starts_with(prefix))),
        }
    }
}

fn push_many(parts: &mut Vec<Part>) {
    // `**` is `*`, and costs less.
    if parts.last() != Some(&Part::Atom(Atom::Many)) {
        parts.push(Part::Atom(Atom::Many));
    }
}

/// What stands between `${` and `}`: `*`, `?` or `$` for themselves, else a key, perhaps with a default in quotes (documented).
fn variable(text: &str) -> Result<Part, MalformedPolicy> {
    if let "*" | "?" | "$" = text {
        return Ok(Part::Atom(Atom::Byte(text.as_bytes()[0])));
    }
    let (key, default) = match text.split_once(',') {
        Some((key, default)) => {
            let quoted = default.trim().strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            (key, Some(quoted.ok_or(MalformedPolicy::Syntax)?.to_owned()))
        }
        None => (text, None),
    };
    match key.trim() {
        "" => Err(MalformedPolicy::Syntax),
        key => Ok(Part::Variable { key: key.to_ascii_lowercase(), default }),
    }
}

/// Linear in practice, quadratic at worst: on a mismatch only the last `*` takes one character more.
pub(super) fn glob(atoms: &[Atom], text: &[u8]) -> bool {
    let (mut atom, mut at) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match atoms.get(atom) {
            Some(Atom::Many) => {
                retry = Some((atom + 1, at));
                atom += 1;
                continue;
            }
            Some(Atom::One) if at < text.len() => {
                (atom, at) = (atom + 1, after_character(text, at));
                continue;
            }
            Some(Atom::Byte(byte)) if text.get(at) == Some(byte) => {
                (atom, at) = (atom + 1, at + 1);
                continue;
            }
            None if at == text.len() => return true,
            Some(_) | None => {}
        }
        match retry {
            Some((after, from)) if from < text.len() => {
                let from = after_character(text, from);
                retry = Some((after, from));
                (atom, at) = (after, from);
            }
            _ => return false,
        }
    }
}

fn after_character(text: &[u8], at: usize) -> usize {
    let continued = |byte: &u8| byte & 0b1100_0000 == 0b1000_0000;
    at + 1 + text[at + 1..].iter().take_while(|byte| continued(byte)).count()
}
