//! Compiles the library that QEMU is started with (see `src/engine/qemu/private_memory.c`).

use std::env;
use std::path::Path;
use std::process::Command;

const SOURCE: &str = "src/engine/qemu/private_memory.c";

fn main() {
    println!("cargo:rerun-if-changed={SOURCE}");
    println!("cargo:rerun-if-env-changed=CC");
    let output = Path::new(&env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("private_memory.so");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".into());
    let status = Command::new(&compiler)
        .args(["-std=gnu11", "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-U_FORTIFY_SOURCE", "-o"])
        .arg(&output)
        .arg(SOURCE)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{compiler} could not compile {SOURCE}: {status}"),
        Err(error) => {
            panic!("{compiler} could not be started ({error}): install a C compiler, for instance `apt-get install gcc libc6-dev`")
        }
    }
}
