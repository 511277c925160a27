//! Ids and secrets of identities, as AWS makes them: a prefix that says what it is, then capital letters and digits (documented).

use rand::Rng;

const ID_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const SECRET_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What an id is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdOf {
    AccessKey,
    TemporaryKey,
    User,
    Role,
    Policy,
}

impl IdOf {
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::AccessKey => "AKIA",
            Self::TemporaryKey => "ASIA",
            Self::User => "AIDA",
            Self::Role => "AROA",
            Self::Policy => "ANPA",
        }
    }

    /// 80 random bits or more: never met twice.
    pub fn random(self) -> String {
        let length = match self {
            Self::AccessKey | Self::TemporaryKey => 16,
            Self::User | Self::Role | Self::Policy => 17,
        };
        format!("{}{}", self.prefix(), random_text(ID_ALPHABET, length))
    }
}

/// The secret of an access key.
pub fn random_secret() -> String {
    random_text(SECRET_ALPHABET, 40)
}

fn random_text(alphabet: &[u8], length: usize) -> String {
    let mut random = rand::rng();
    (0..length).map(|_| char::from(alphabet[random.random_range(0..alphabet.len())])).collect()
}
