//! Counts unsafe code and keeps it where it belongs: in `sys` modules, and in the monitor. That each block has its SAFETY note is clippy's to check.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::workspace::is_source;

/// What may follow the keyword. Split, so that this file does not count itself.
const FORMS: [&str; 5] = ["{", "impl", "fn", "extern", "trait"];

pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let mut counts = BTreeMap::new();
    let mut outside = Vec::new();
    for file in rust_files(root)? {
        let source = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let lines: Vec<_> = source.lines().enumerate().filter(|(_, line)| is_unsafe(line)).map(|(number, _)| number + 1).collect();
        let inside = file.strip_prefix(root)?;
        match fence(inside) {
            Some(fence) => *counts.entry(fence).or_insert(0) += lines.len(),
            None => outside.extend(lines.iter().map(|number| format!("  {}:{number}", inside.display()))),
        }
    }
    counts.retain(|_, count| *count > 0);
    for (fence, count) in &counts {
        println!("  {count:>4}  {}", fence.display());
    }
    println!("  {:>4}  in all", counts.values().sum::<usize>());
    if !outside.is_empty() {
        bail!("unsafe code outside of sys modules and the monitor:\n{}", outside.join("\n"));
    }
    Ok(())
}

/// The directory whose business unsafe code is, if the file lies in one.
fn fence(file: &Path) -> Option<PathBuf> {
    let sys = file.ancestors().skip(1).find(|directory| directory.file_name().is_some_and(|name| name == "sys"));
    let monitor = ["crates/vmm", "bin/emberbox-vmm"].iter().map(Path::new).find(|monitor| file.starts_with(monitor));
    sys.or(monitor).map(Path::to_owned)
}

fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.split("unsafe").skip(1).any(|rest| {
        let after = rest.trim_start();
        let spaced = after.len() < rest.len() || after.starts_with('{');
        spaced && FORMS.iter().any(|form| after.starts_with(form))
    })
}

fn rust_files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && is_source(&entry.file_name()) {
            files.extend(rust_files(&path)?);
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_not_code() {
        let keyword = "unsafe";
        assert!(is_unsafe(&format!("    let x = {keyword} {{ y() }};")));
        assert!(is_unsafe(&format!("{keyword} impl Send for X {{}}")));
        assert!(!is_unsafe(&format!("// {keyword} {{ y() }}")));
        assert!(!is_unsafe(&format!("#![allow({keyword}_code)]")));
        assert!(!is_unsafe(&format!("\"{keyword} file\"")));
    }

    #[test]
    fn fences() {
        assert_eq!(fence(Path::new("crates/host/src/sys/tap.rs")), Some("crates/host/src/sys".into()));
        assert_eq!(fence(Path::new("crates/vmm/src/memory/mod.rs")), Some("crates/vmm".into()));
        assert_eq!(fence(Path::new("crates/control/src/lib.rs")), None);
    }
}
