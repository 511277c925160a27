//! USER of an image, looked up in the image's own /etc/passwd and /etc/group.

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid};

use crate::mounts::Root;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// Supplementary ones.
    pub(crate) groups: Vec<Gid>,
    pub(crate) home: String,
}

/// Resolves OCI syntax: `name`, `uid`, `name:group`, `uid:gid` or empty for root.
pub(crate) fn resolve(specification: &str, root: &Root) -> Result<User> {
    let read = |path| root.read(path).map(|text| String::from_utf8_lossy(&text.unwrap_or_default()).into_owned());
    resolve_in(specification, &read("/etc/passwd")?, &read("/etc/group")?)
}

/// A name wins over a number, as in container engines: a user may be called `1000`.
fn resolve_in(specification: &str, passwd: &str, group: &str) -> Result<User> {
    let (user, given_group) = match specification.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (specification, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = passwd.lines().find_map(|line| Entry::parse(line).filter(|entry| entry.name == user));
    let entry = entry.or_else(|| passwd.lines().find_map(|line| Entry::parse(line).filter(|entry| entry.uid.to_string() == user)));
    let uid = match &entry {
        Some(entry) => entry.uid,
        None => user.parse().ok().with_context(|| format!("unable to find user {user}: no matching entries in passwd file"))?,
    };
    let (gid, groups) = match given_group {
        Some(name) => (group_id(name, group)?, Vec::new()),
        None => {
            let groups = entry.as_ref().map(|entry| memberships(&entry.name, group)).unwrap_or_default();
            (entry.as_ref().map_or(0, |entry| entry.gid), groups)
        }
    };
    let home = entry.map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or_else(|| "/".to_owned());
    Ok(User { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups, home })
}

/// A line of /etc/passwd.
struct Entry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, rest @ ..] = fields.as_slice() else { return None };
        let home = rest.get(1).copied().unwrap_or_default().to_owned();
        Some(Self { name: (*name).to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    }
}

fn group_id(name: &str, group: &str) -> Result<u32> {
    for line in group.lines() {
        let mut fields = line.split(':');
        if fields.next() == Some(name) {
            return fields.nth(1).and_then(|id| id.parse().ok()).with_context(|| format!("group {name} has no number"));
        }
    }
    match name.parse() {
        Ok(id) => Ok(id),
        Err(_) => bail!("unable to find group {name}: no matching entries in group file"),
    }
}

fn memberships(user: &str, group: &str) -> Vec<Gid> {
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_member = fields.get(3)?.split(',').any(|member| member == user);
        is_member.then(|| fields[2].parse().ok().map(Gid::from_raw)).flatten()
    };
    group.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1001::/home/node:/bin/sh\nbroken\nbare:x:7:8\n";
    const GROUP: &str = "root:x:0:\nnode:x:1001:\naudio:x:29:alice,node\nvideo:x:44:node\nlost:x:?:node\n";

    fn ids(specification: &str) -> (u32, u32, Vec<u32>, String) {
        let user = resolve_in(specification, PASSWD, GROUP).unwrap();
        (user.uid.as_raw(), user.gid.as_raw(), user.groups.iter().map(|gid| gid.as_raw()).collect(), user.home)
    }

    #[test]
    fn every_form_of_user() {
        assert_eq!(ids(""), (0, 0, vec![], "/root".into()));
        assert_eq!(ids("node"), (1000, 1001, vec![29, 44], "/home/node".into()));
        assert_eq!(ids("1000"), (1000, 1001, vec![29, 44], "/home/node".into()));
        assert_eq!(ids("node:audio"), (1000, 29, vec![], "/home/node".into()));
        assert_eq!(ids("12345"), (12345, 0, vec![], "/".into()));
        assert_eq!(ids("12345:77"), (12345, 77, vec![], "/".into()));
        assert_eq!(ids("bare"), (7, 8, vec![], "/".into()));
    }

    #[test]
    fn unknown_names_are_refused() {
        for specification in ["nobody", "node:nogroup", "-1", "99999999999"] {
            assert!(resolve_in(specification, PASSWD, GROUP).is_err(), "{specification}");
        }
    }

    #[test]
    fn an_image_without_passwd_has_root() {
        let user = resolve_in("", "", "").unwrap();
        assert_eq!((user.uid.as_raw(), user.gid.as_raw(), user.home.as_str()), (0, 0, "/"));
    }
}
