//! A malicious guest: `/init` of a machine whose devices have no drivers, and which it attacks (README.md). Its console is the serial port.

mod arena;
mod attacks;
mod device;
mod dice;
mod say;
mod sys;

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use arena::Arena;
use attacks::{ALL, Attack, Attacker, LAST};
use device::Device;
use dice::Dice;
use say::say;
use sys::Mapping;

/// How long the devices may go on writing into the kernel.
const LAST_SECONDS: Duration = Duration::from_secs(3);

fn main() {
    if let Err(error) = sys::allow_ports() {
        // Nobody hears it, and without ports nobody would.
        eprintln!("no ports: {error}");
    }
    std::panic::set_hook(Box::new(|panic| say(&format!("broke down: {panic}"))));
    if let Err(error) = run() {
        say(&format!("could not begin: {error}"));
    }
    sys::reset_machine();
    loop {
        thread::park();
    }
}

fn run() -> io::Result<()> {
    for (what, on) in [(c"devtmpfs", c"/dev"), (c"proc", c"/proc")] {
        sys::mount(what, on)?;
    }
    let command_line = fs::read_to_string("/proc/cmdline")?;
    let number = |name: &str| command_line.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse().ok());
    let (seed, seconds) = (number("hostile.seed=").unwrap_or(1), number("hostile.seconds=").unwrap_or(10));
    let arena = Arena::new()?;
    let registers = Mapping::physical(device::WINDOW, device::WINDOW_BYTES)?;
    let devices = Device::all(registers);
    let threads = thread::available_parallelism()?.get();
    let kinds: Vec<_> = devices.iter().map(|device| device.kind).collect();
    say(&format!("seed {seed}, {seconds} seconds, {threads} threads, devices of kinds {kinds:?}"));
    let until = Instant::now() + Duration::from_secs(seconds);
    let attacker = |thread: usize| Attacker { dice: Dice::new(seed << 8 | thread as u64), arena, registers, devices: devices.clone() };
    thread::scope(|scope| {
        for thread in 0..threads {
            let mut attacker = attacker(thread);
            scope.spawn(move || attack(&mut attacker, thread, until));
        }
    });
    say("done");
    let mut last = attacker(threads);
    announce(0, LAST);
    let until = Instant::now() + LAST_SECONDS;
    while Instant::now() < until {
        LAST.1(&mut last);
        thread::sleep(Duration::from_millis(20));
    }
    say("still here");
    Ok(())
}

/// Every kind at least once, then any.
fn attack(attacker: &mut Attacker, thread: usize, until: Instant) {
    if let Err(error) = sys::allow_ports() {
        say(&format!("no ports: {error}"));
    }
    let mut rounds = 0u64;
    while rounds < ALL.len() as u64 || Instant::now() < until {
        let index = if rounds < ALL.len() as u64 { rounds } else { attacker.dice.below(ALL.len() as u64) };
        let kind = ALL[index as usize];
        announce(thread, kind);
        kind.1(attacker);
        rounds += 1;
    }
    say(&format!("thread {thread} made {rounds} attacks"));
}

fn announce(thread: usize, (name, _): Attack) {
    say(&format!("thread {thread}: {name}"));
}
