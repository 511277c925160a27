//! What goes into the lab: the checkout, the programs built of it, and the command, on a disk made for this run.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::ingredients::make_disk;
use crate::workspace::{Workspace, is_source};

/// Where the checkout is in the lab, and where the target directory is.
const CHECKOUT: &str = "/emberbox";
const TARGET: &str = "/emberbox/target";
/// Beside the checkout's files on the disk.
const OURS: &str = ".lab";
/// How much longer than on the host around it things may take: the tests' deadlines are multiplied by it.
const PATIENCE: u32 = 4;
const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The command, its environment and the files it names.
pub(super) struct Job {
    command: String,
    environment: String,
    brought: Vec<PathBuf>,
}

impl Job {
    pub(super) fn new(workspace: &Workspace, command: &[OsString], environment: &[String], with: &[PathBuf]) -> anyhow::Result<Self> {
        let mut brought = with
            .iter()
            .map(|path| fs::canonicalize(path).with_context(|| format!("--with {}", path.display())))
            .collect::<Result<Vec<_>, _>>()?;
        let mut words = Vec::new();
        for word in command {
            let word = word.to_str().context("the command has to be UTF-8")?;
            let (word, file) = translate(workspace, word);
            brought.extend(file);
            words.push(quote(&word));
        }
        if let Some(outside) = brought.iter().find(|path| !path.starts_with(&workspace.target)) {
            bail!("{} is not below {}", outside.display(), workspace.target.display());
        }
        Ok(Self { command: format!("exec {}\n", words.join(" ")), environment: exports(environment)?, brought })
    }

    /// The disk for one boot.
    pub(super) fn disk(&self, workspace: &Workspace, scratch: &Path, boot: u32) -> anyhow::Result<PathBuf> {
        let (tree, disk) = (scratch.join("files"), scratch.join("files.ext4"));
        if !tree.exists() {
            self.stage(workspace, &tree).context("gathering the lab's files")?;
        }
        fs::write(tree.join(OURS).join("environment"), format!("{}export EMBERBOX_LAB_BOOT={boot}\n", self.environment))?;
        make_disk(&tree, &disk)?;
        Ok(disk)
    }

    fn stage(&self, workspace: &Workspace, tree: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(tree.join(OURS))?;
        fs::write(tree.join(OURS).join("command"), &self.command)?;
        for entry in fs::read_dir(&workspace.root)?.flatten().filter(|entry| is_source(&entry.file_name())) {
            bring(&entry.path(), &tree.join(entry.file_name()))?;
        }
        for directory in [PathBuf::from("release"), Path::new(STATIC_TARGET).join("release")] {
            bring_programs(&workspace.target.join(&directory), &tree.join("target").join(&directory))?;
        }
        for path in &self.brought {
            let inside = path.strip_prefix(&workspace.target)?;
            bring(path, &tree.join("target").join(inside))?;
        }
        Ok(())
    }
}

/// A word of the command as the lab knows it, and the file below the target directory that it names.
fn translate(workspace: &Workspace, word: &str) -> (String, Option<PathBuf>) {
    let path = Path::new(word);
    let inside = |from: &Path, to: &str| path.strip_prefix(from).ok().map(|rest| Path::new(to).join(rest).to_string_lossy().into_owned());
    let file = workspace.root.join(path);
    let file = (word.contains('/') && file.starts_with(&workspace.target) && file.exists()).then_some(file);
    let word = inside(&workspace.target, TARGET).or_else(|| inside(&workspace.root, CHECKOUT)).unwrap_or_else(|| word.to_owned());
    (word, file)
}

fn exports(variables: &[String]) -> anyhow::Result<String> {
    let mut lines = format!(
        "export EMBERBOX_LAB=emulated EMBERBOX_LAB_OUT=/lab/out EMBERBOX_BASE=/lab/base CARGO_TARGET_DIR={TARGET} EMBERBOX_BIN={TARGET}/release/emberbox \
         EMBERBOX_PYTHON=/opt/venv/bin/python PYTHONDONTWRITEBYTECODE=1 EMBERBOX_TEST_PATIENCE={PATIENCE}\n"
    );
    let ci = std::env::var("CI").map(|value| format!("CI={value}"));
    for variable in ci.iter().chain(variables) {
        let (name, value) = match variable.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (variable.as_str(), std::env::var(variable).with_context(|| format!("--env {variable}"))?),
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            bail!("--env {variable}: not a variable's name");
        }
        lines.push_str(&format!("export {name}={}\n", quote(&value)));
    }
    Ok(lines)
}

/// For a shell, whatever is in it.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Links or copies a file, a directory with what is in it, or a symbolic link. What is there already stays.
fn bring(from: &Path, to: &Path) -> anyhow::Result<()> {
    let kind = fs::symlink_metadata(from).with_context(|| format!("reading {}", from.display()))?.file_type();
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    if kind.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)?.flatten().filter(|entry| is_source(&entry.file_name())) {
            bring(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    let result = if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)
    } else if kind.is_file() {
        fs::hard_link(from, to)
            .or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Err(error) } else { fs::copy(from, to).map(|_| ()) })
    } else {
        Ok(()) // sockets and the like of running tests
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).with_context(|| format!("bringing {}", from.display())),
        _ => Ok(()),
    }
}

/// The programs directly in a directory that cargo builds to.
fn bring_programs(from: &Path, to: &Path) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    for entry in entries.flatten() {
        let metadata = entry.metadata()?;
        let is_program = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 && entry.path().extension().is_none();
        if is_program {
            bring(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> Workspace {
        Workspace { root: "/src/emberbox".into(), target: "/build".into(), base: "/build/base".into() }
    }

    #[test]
    fn paths_are_those_of_the_lab() {
        let translated = |word| translate(&workspace(), word).0;
        assert_eq!(translated("/src/emberbox/tests/run"), "/emberbox/tests/run");
        assert_eq!(translated("/build/release/emberbox"), "/emberbox/target/release/emberbox");
        assert_eq!(translated("/usr/bin/env"), "/usr/bin/env");
        assert_eq!(translated("--flag"), "--flag");
    }

    #[test]
    fn a_shell_reads_back_every_word() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn a_variable_needs_a_name() {
        assert!(exports(&["=x".into()]).is_err());
        assert!(exports(&["A B=x".into()]).is_err());
        assert!(exports(&["A=b c".into()]).is_ok_and(|lines| lines.ends_with("export A='b c'\n")));
    }
}
