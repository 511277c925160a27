//! PID 1 of every guest.
//!
//! Owns the guest from the kernel's hand-over to power off: boots it, runs the image's application as a container, and serves
//! the host over the link (`emberbox_agent_protocol` is the contract). It runs in one thread, always: it forks, enters
//! namespaces and must weigh little in a snapshot. It must never run application code itself, and never listen on an
//! address that anything but the host can reach.
#![deny(unsafe_code)]

mod agent;
mod boot;
mod builder;
mod cgroup;
mod console;
mod container;
mod disks;
mod freeze;
mod hooks;
mod http;
mod link;
mod logs;
mod loopback;
mod modules;
mod mounts;
mod network;
mod output;
mod outside;
mod power;
mod reaper;
mod relay;
mod restore;
mod run;
mod server;
mod spawn;
mod sys;

use anyhow::{Context, Result};

fn main() {
    if std::process::id() != 1 {
        eprintln!("emberbox-agent is the first process of a guest and does nothing elsewhere");
        std::process::exit(2);
    }
    if let Err(error) = boot::boot().and_then(|()| serve()) {
        console::say(&format!("fatal: {error:#}"));
    }
    power::reset();
}

fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().context("starting the event loop")?;
    tokio::task::LocalSet::new().block_on(&runtime, server::serve())
}
