//! Token buckets: so many requests at once of each group of operations, refilled at a steady rate, for each account.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use emberbox_store::UnixMillis;
use emberbox_wire::ids::AccountId;

/// Operations that share a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationGroup {
    Run,
    Suspend,
    Resume,
    Terminate,
    /// What begins a build.
    Build,
    /// Tokens for endpoints.
    Token,
    /// Every other change.
    Write,
    Read,
}

impl OperationGroup {
    pub(crate) fn of(operation: &str) -> Self {
        match operation {
            "RunMicrovm" => Self::Run,
            "SuspendMicrovm" => Self::Suspend,
            "ResumeMicrovm" => Self::Resume,
            "TerminateMicrovm" => Self::Terminate,
            "CreateMicrovmImage" | "UpdateMicrovmImage" => Self::Build,
            "CreateMicrovmAuthToken" | "CreateMicrovmShellAuthToken" => Self::Token,
            other if other.starts_with("Get") || other.starts_with("List") => Self::Read,
            _ => Self::Write,
        }
    }

    /// As the configuration names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Terminate => "terminate",
            Self::Build => "build",
            Self::Token => "token",
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

/// `burst` requests at once, `per_second` in the long run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub per_second: f64,
    pub burst: u32,
}

/// Generous by default: they keep one account's runaway loop from the others, no more (AWS: RunMicrovm 5/s, Suspend 2/s, Resume 5/s; observed).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    pub run: Rate,
    pub suspend: Rate,
    pub resume: Rate,
    pub terminate: Rate,
    pub build: Rate,
    pub token: Rate,
    pub write: Rate,
    pub read: Rate,
}

const fn rate(per_second: f64, burst: u32) -> Rate {
    Rate { per_second, burst }
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            run: rate(50.0, 200),
            suspend: rate(50.0, 200),
            resume: rate(50.0, 200),
            terminate: rate(100.0, 400),
            build: rate(10.0, 50),
            token: rate(1000.0, 5000),
            write: rate(500.0, 2000),
            read: rate(10_000.0, 20_000),
        }
    }
}

impl Rates {
    /// The same for every group.
    pub fn uniform(per_second: f64, burst: u32) -> Self {
        let all = rate(per_second, burst);
        Self { run: all, suspend: all, resume: all, terminate: all, build: all, token: all, write: all, read: all }
    }

    fn of(&self, group: OperationGroup) -> Rate {
        match group {
            OperationGroup::Run => self.run,
            OperationGroup::Suspend => self.suspend,
            OperationGroup::Resume => self.resume,
            OperationGroup::Terminate => self.terminate,
            OperationGroup::Build => self.build,
            OperationGroup::Token => self.token,
            OperationGroup::Write => self.write,
            OperationGroup::Read => self.read,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled_at: UnixMillis,
}

impl Bucket {
    /// Takes one token, or says in how many seconds there will be one.
    fn take(&mut self, rate: Rate, now: UnixMillis) -> Result<(), u64> {
        // A clock that was put back fills nothing.
        let passed = (now.0 - self.filled_at.0).max(0) as f64 / 1000.0;
        self.tokens = (self.tokens + passed * rate.per_second).min(f64::from(rate.burst));
        self.filled_at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let seconds = (1.0 - self.tokens) / rate.per_second;
        // At least a second: `Retry-After` knows no less.
        Err(if seconds.is_finite() { (seconds.ceil() as u64).max(1) } else { u64::from(u32::MAX) })
    }
}

/// The buckets in use: one for each group that an account has asked for.
#[derive(Debug)]
pub(crate) struct Buckets {
    rates: Rates,
    by_account: Mutex<HashMap<(AccountId, OperationGroup), Bucket>>,
}

impl Buckets {
    pub(crate) fn new(rates: Rates) -> Self {
        Self { rates, by_account: Mutex::default() }
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<(AccountId, OperationGroup), Bucket>> {
        self.by_account.lock().expect("no holder of this lock can panic")
    }

    /// `Err` is in how many seconds to come again.
    pub(crate) fn take(&self, account: &AccountId, group: OperationGroup, now: UnixMillis) -> Result<(), u64> {
        let rate = self.rates.of(group);
        let full = Bucket { tokens: f64::from(rate.burst), filled_at: now };
        self.buckets().entry((account.clone(), group)).or_insert(full).take(rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> AccountId {
        AccountId(name.into())
    }

    #[test]
    fn a_burst_then_the_rate() {
        let buckets = Buckets::new(Rates { run: rate(2.0, 3), ..Rates::default() });
        let take = |account_name: &str, now| buckets.take(&account(account_name), OperationGroup::Run, UnixMillis(now));
        assert_eq!([take("a", 0), take("a", 0), take("a", 0), take("a", 0)], [Ok(()), Ok(()), Ok(()), Err(1)]);
        assert_eq!(take("b", 0), Ok(()), "each account has its own");
        assert_eq!(buckets.take(&account("a"), OperationGroup::Read, UnixMillis(0)), Ok(()), "and each group");
        assert_eq!((take("a", 499), take("a", 500), take("a", 501)), (Err(1), Ok(()), Err(1)));
        assert_eq!((take("a", 100_000), take("a", 100_000), take("a", 100_000), take("a", 100_000)), (Ok(()), Ok(()), Ok(()), Err(1)));
        assert_eq!(take("a", 50_000), Err(1), "a clock put back gives nothing away");
    }

    #[test]
    fn slow_rates_say_when() {
        let buckets = Buckets::new(Rates::uniform(0.1, 1));
        let take = |now| buckets.take(&account("a"), OperationGroup::Write, UnixMillis(now));
        assert_eq!((take(0), take(0), take(4_000), take(10_000)), (Ok(()), Err(10), Err(6), Ok(())));
        let never = Buckets::new(Rates::uniform(0.0, 0));
        assert!(never.take(&account("a"), OperationGroup::Run, UnixMillis(0)).is_err());
    }

    #[test]
    fn every_operation_has_a_group() {
        for (operation, group) in [
            ("RunMicrovm", OperationGroup::Run),
            ("ListTags", OperationGroup::Read),
            ("GetNetworkConnector", OperationGroup::Read),
            ("TagResource", OperationGroup::Write),
            ("UpdateMicrovmImage", OperationGroup::Build),
            ("UpdateMicrovmImageVersion", OperationGroup::Write),
        ] {
            assert_eq!(OperationGroup::of(operation), group, "{operation}");
        }
    }
}
