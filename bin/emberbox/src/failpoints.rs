//! `emberbox failpoints`: where tests can make the daemon fail.

use emberbox_failpoints::Failpoint;

/// Of every crate.
pub(crate) fn all() -> Vec<&'static Failpoint> {
    [emberbox_control::failpoints::ALL, emberbox_host::failpoints::ALL, emberbox_images::failpoints::ALL].concat()
}

pub(crate) fn run() -> anyhow::Result<()> {
    all().iter().for_each(|point| println!("{}", point.name()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_say_crate_operation_and_step() {
        let points = all();
        let names: HashSet<&str> = points.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), points.len());
        assert!(names.iter().all(|name| name.split('.').count() == 3), "{names:?}");
    }
}
