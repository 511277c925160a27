//! Memory that must come back from a snapshot as it was.

use crate::json::{Json, object};

const MIB: u64 = 1 << 20;

/// Pages filled with random-looking words, kept for good.
#[derive(Default)]
pub(crate) struct Touched {
    pages: Vec<Vec<u64>>,
    /// Of all pages when they were filled.
    checksum: u64,
}

impl Touched {
    /// Fills `mib` more MiB.
    pub(crate) fn touch(&mut self, mib: u64) -> Json {
        let mut word = 0x9e37_79b9_7f4a_7c15 ^ (self.pages.len() as u64 + 1);
        for _ in 0..mib {
            self.pages.push((0..MIB / 8).map(|_| xorshift(&mut word)).collect());
        }
        self.checksum = self.sum();
        self.to_json()
    }

    /// Reads all of it again.
    pub(crate) fn verify(&self) -> Json {
        let now = self.sum();
        object([
            ("mib", (self.pages.len() as u64).into()),
            ("checksum", format!("{now:016x}").into()),
            ("intact", Json::Bool(now == self.checksum)),
        ])
    }

    fn to_json(&self) -> Json {
        object([("mib", (self.pages.len() as u64).into()), ("checksum", format!("{:016x}", self.checksum).into())])
    }

    fn sum(&self) -> u64 {
        self.pages.iter().flatten().fold(0, |sum: u64, word| (sum.rotate_left(5) ^ word).wrapping_mul(0x0100_0000_01b3))
    }
}

pub(crate) fn xorshift(word: &mut u64) -> u64 {
    *word ^= *word << 13;
    *word ^= *word >> 7;
    *word ^= *word << 17;
    *word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_word_is_noticed() {
        let mut touched = Touched::default();
        touched.touch(1);
        touched.touch(1);
        assert!(touched.verify().to_string().contains(r#""mib":2"#));
        assert!(touched.verify().to_string().contains(r#""intact":true"#));
        touched.pages[1][77] ^= 1;
        assert!(touched.verify().to_string().contains(r#""intact":false"#));
    }
}
