//! What the child does between its birth and the application's first instruction.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::Path;

use anyhow::{Context, Error, Result};
use emberbox_agent_protocol::Application;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::unistd::{chdir, setgroups, setresgid, setresuid};

use super::identity::Files;
use super::user::User;
use super::{capabilities, filesystem};
use crate::{spawn, sys};

/// As container engines set it: many programs misbehave with more by default, and raise it themselves.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// Everything the child needs, made before it was born.
pub(crate) struct Plan<'a> {
    pub(crate) root: &'a Path,
    pub(crate) files: &'a Files,
    pub(crate) user: &'a User,
    pub(crate) environment: &'a BTreeMap<String, String>,
    pub(crate) application: &'a Application,
}

/// Returns only with the reason why it failed.
pub(crate) fn become_application(plan: &Plan<'_>) -> Error {
    match try_become(plan) {
        Err(error) => error,
    }
}

fn try_become(plan: &Plan<'_>) -> Result<Infallible> {
    unshare(CloneFlags::CLONE_NEWCGROUP).context("making a cgroup namespace")?;
    filesystem::enter(plan.root, plan.files, plan.application.capabilities)?;
    enter_working_directory(&plan.application.working_directory)?;
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.0, OPEN_FILES.1).context("limiting open files")?;
    setrlimit(Resource::RLIMIT_CORE, 0, RLIM_INFINITY).context("limiting core files")?;
    drop_privileges(plan)?;
    Err(spawn::exec(&plan.application.argv, plan.environment))
}

fn enter_working_directory(directory: &str) -> Result<()> {
    let directory = if directory.is_empty() { "/" } else { directory };
    fs::create_dir_all(directory).with_context(|| format!("creating the working directory {directory}"))?;
    chdir(directory).with_context(|| format!("entering the working directory {directory}"))
}

/// A user other than root has no capabilities after this, but what is left in the bounding set can be had through sudo.
fn drop_privileges(plan: &Plan<'_>) -> Result<()> {
    let kept = capabilities::kept(plan.application.capabilities);
    if let Some(kept) = kept {
        sys::privilege::limit_bounding_set(kept).context("limiting capabilities")?;
    }
    let user = plan.user;
    setgroups(&user.groups).context("setting the groups")?;
    setresgid(user.gid, user.gid, user.gid).context("setting the group")?;
    setresuid(user.uid, user.uid, user.uid).context("setting the user")?;
    match kept {
        Some(kept) if user.uid.is_root() => sys::privilege::set_capabilities(kept).context("setting capabilities"),
        _ => Ok(()),
    }
}
