//! A thread that notes the time and fresh random bytes about every millisecond from the start of the process, or for a while without any pause.
//!
//! It is the witness that a restored copy never ran before its clock was set and its randomness reseeded: the last sample before the jump of
//! the clock must be the same in all copies (it was taken before the snapshot), and the first one after it must differ.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::json::{Json, object};
use crate::lock;

const KEPT_SAMPLES: usize = 5000;
const PAUSE: Duration = Duration::from_millis(1);
/// Steps of the clock above this are kept for good; a busy host can cause some, too.
const JUMP_SECONDS: f64 = 1.0;
const KEPT_JUMPS: usize = 32;

#[derive(Clone)]
pub(crate) struct Sample {
    /// Counts all samples from 0.
    index: u64,
    wall: f64,
    /// Seconds of the monotonic clock since the start of the sampler.
    monotonic: f64,
    random: [u8; 8],
}

#[derive(Clone)]
struct Jump {
    before: Sample,
    after: Sample,
}

#[derive(Default)]
struct History {
    samples: VecDeque<Sample>,
    largest: Option<Jump>,
    jumps: VecDeque<Jump>,
    /// Samples whose monotonic clock was before the one of the sample before them.
    backwards: u64,
    /// Samples are taken without a pause until then.
    hot_until: Option<Instant>,
}

pub(crate) struct Sampler(Arc<Mutex<History>>);

impl Sampler {
    pub(crate) fn start() -> io::Result<Self> {
        let history = Arc::new(Mutex::new(History::default()));
        let written = history.clone();
        if crate::is_quiet() {
            return Ok(Self(history));
        }
        let urandom = File::open("/dev/urandom")?;
        thread::Builder::new().name("sampler".into()).spawn(move || {
            if let Err(error) = sample_for_ever(urandom, &written) {
                eprintln!("probe: the sampler ended: {error}");
            }
        })?;
        Ok(Self(history))
    }

    /// The samples right before and after the largest step of the clock, and all large ones.
    pub(crate) fn jumps(&self) -> Json {
        let history = lock(&self.0);
        object([
            ("samples", history.samples.back().map(|sample| sample.index + 1).into()),
            ("largest", history.largest.as_ref().map_or(Json::Null, Jump::to_json)),
            ("jumps", Json::List(history.jumps.iter().map(Jump::to_json).collect())),
            ("monotonic_went_back", history.backwards.into()),
        ])
    }

    /// Samples without a pause from now on, for so long: whenever the application runs, it is noticed.
    pub(crate) fn without_pause(&self, time: Duration) -> Json {
        let mut history = lock(&self.0);
        history.hot_until = Some(Instant::now() + time);
        object([("samples", history.samples.back().map(|sample| sample.index + 1).into())])
    }

    /// The last `count` samples, oldest first.
    pub(crate) fn last(&self, count: u64) -> Json {
        let history = lock(&self.0);
        let skipped = history.samples.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
        Json::List(history.samples.iter().skip(skipped).map(Sample::to_json).collect())
    }
}

fn sample_for_ever(mut urandom: File, history: &Mutex<History>) -> io::Result<()> {
    let start = Instant::now();
    let mut index = 0;
    loop {
        let wall = unix_seconds();
        let mut random = [0; 8];
        urandom.read_exact(&mut random)?;
        // A snapshot may fall between the two reads; such a sample would belong to both sides.
        if (unix_seconds() - wall).abs() < JUMP_SECONDS {
            lock(history).push(Sample { index, wall, monotonic: start.elapsed().as_secs_f64(), random });
            index += 1;
        }
        if lock(history).hot_until.is_none_or(|until| until < Instant::now()) {
            thread::sleep(PAUSE);
        }
    }
}

impl History {
    fn push(&mut self, after: Sample) {
        if let Some(before) = self.samples.back().cloned() {
            self.backwards += u64::from(after.monotonic < before.monotonic);
            let jump = Jump { before, after: after.clone() };
            if jump.seconds().abs() >= JUMP_SECONDS {
                if self.jumps.len() == KEPT_JUMPS {
                    self.jumps.pop_front();
                }
                self.jumps.push_back(jump.clone());
            }
            if self.largest.as_ref().is_none_or(|largest| jump.seconds().abs() > largest.seconds().abs()) {
                self.largest = Some(jump);
            }
        }
        if self.samples.len() == KEPT_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(after);
    }
}

impl Jump {
    fn seconds(&self) -> f64 {
        self.after.wall - self.before.wall
    }

    fn to_json(&self) -> Json {
        object([("seconds", Json::Float(self.seconds())), ("before", self.before.to_json()), ("after", self.after.to_json())])
    }
}

impl Sample {
    fn to_json(&self) -> Json {
        object([
            ("index", self.index.into()),
            ("wall", Json::Float(self.wall)),
            ("monotonic", Json::Float(self.monotonic)),
            ("random", hex(&self.random).into()),
        ])
    }
}

pub(crate) fn unix_seconds() -> f64 {
    // A clock before 1970 is shown as a negative number, not hidden.
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(walls: &[f64]) -> History {
        let mut history = History::default();
        for (index, wall) in walls.iter().enumerate() {
            history.push(Sample { index: index as u64, wall: *wall, monotonic: 0.0, random: [0; 8] });
        }
        history
    }

    #[test]
    fn the_largest_jump_is_found_in_both_directions() {
        let history = history(&[10.0, 10.1, 15.0, 7.0, 7.1, 8.5]);
        let largest = history.largest.unwrap();
        assert_eq!((largest.before.index, largest.after.index), (2, 3));
        assert_eq!(history.jumps.len(), 3);
    }

    #[test]
    fn the_ring_is_bounded_and_the_largest_jump_outlives_it() {
        let mut walls = vec![0.0, 100.0];
        walls.resize(KEPT_SAMPLES + 10, 100.0);
        let history = history(&walls);
        assert_eq!(history.samples.len(), KEPT_SAMPLES);
        assert_eq!(history.largest.unwrap().before.index, 0);
    }

    #[test]
    fn hex_is_two_digits_a_byte() {
        assert_eq!(hex(&[0, 10, 255]), "000aff");
    }
}
