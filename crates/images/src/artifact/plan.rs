//! Which tree an archive describes: names become paths inside the root, or the archive is refused.

use std::collections::BTreeMap;

use super::DOCKERFILE;
use super::error::ArchiveError;
use super::index::Entry;
use super::limits::Limits;

const TYPE_MASK: u32 = 0o170_000;
const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_LINK: u32 = 0o120_000;
/// What is kept of an archive's permissions: nobody but the owner writes, and no setuid, setgid or sticky bit.
const KEPT_PERMISSIONS: u32 = 0o755;
/// What every file and directory has, so that the host can read and delete it.
const FILE_OWNER: u32 = 0o600;
const DIRECTORY_OWNER: u32 = 0o700;
const DEFAULT_FILE: u32 = 0o644;
const DEFAULT_DIRECTORY: u32 = 0o755;
/// ext4, and every other file system of Linux.
const COMPONENT_MAX_BYTES: usize = 255;

/// `entry` is an index into the archive's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Directory { mode: u32 },
    File { mode: u32, entry: usize },
    Link { entry: usize },
}

/// Every path with its kind. A parent sorts before its children.
pub(super) type Tree = BTreeMap<String, Node>;

pub(super) fn plan(entries: &[Entry], limits: &Limits) -> Result<Tree, ArchiveError> {
    refuse_promises(entries, limits)?;
    let mut tree = Tree::new();
    for (at, entry) in entries.iter().enumerate() {
        let name = std::str::from_utf8(&entry.name)
            .map_err(|_| ArchiveError::refused(&String::from_utf8_lossy(&entry.name), "its name is not UTF-8"))?;
        let path = inside_root(name, limits)?;
        let node = node(name, entry, at)?;
        match (path.is_empty(), node) {
            (true, Node::Directory { .. }) => {}
            (true, _) => return Err(ArchiveError::refused(name, "its name is the root's")),
            (false, node) => insert(&mut tree, &path, node)?,
        }
        if tree.len() as u64 > limits.entries {
            return Err(ArchiveError::Limit(format!("the archive has more than {} files and directories", limits.entries)));
        }
    }
    Ok(tree)
}

/// An archive that admits to being too much need not be unpacked to find out.
fn refuse_promises(entries: &[Entry], limits: &Limits) -> Result<(), ArchiveError> {
    if let Some(entry) = entries.iter().find(|entry| entry.bytes > limits.file_bytes) {
        return Err(ArchiveError::refused(&String::from_utf8_lossy(&entry.name), format!("it is larger than {} bytes", limits.file_bytes)));
    }
    let promised = entries.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.bytes));
    if promised > limits.unpacked_bytes {
        return Err(ArchiveError::Limit(format!("the archive unpacks to {promised} bytes; the limit is {}", limits.unpacked_bytes)));
    }
    Ok(())
}

/// The components of a name joined by single slashes; empty for the root itself.
fn inside_root(name: &str, limits: &Limits) -> Result<String, ArchiveError> {
    let refuse = |why: &str| Err(ArchiveError::refused(name, why));
    let drive = name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) && name.as_bytes().get(1) == Some(&b':');
    if name.is_empty() {
        return refuse("its name is empty");
    }
    if name.starts_with('/') || drive {
        return refuse("its name is absolute");
    }
    if name.contains('\\') {
        return refuse("its name holds a backslash; zip separates folders by slashes");
    }
    if name.contains(char::is_control) {
        return refuse("its name holds a control character");
    }
    if name.len() as u64 > limits.path_bytes {
        return refuse(&format!("its name is longer than {} bytes", limits.path_bytes));
    }
    let components: Vec<&str> = name.split('/').filter(|component| !matches!(*component, "" | ".")).collect();
    if components.contains(&"..") {
        return refuse("its name leads out of the archive (`..`)");
    }
    if components.len() as u64 > limits.path_depth {
        return refuse(&format!("it is more than {} folders deep", limits.path_depth));
    }
    if components.iter().any(|component| component.len() > COMPONENT_MAX_BYTES) {
        return refuse(&format!("a part of its name is longer than {COMPONENT_MAX_BYTES} bytes"));
    }
    Ok(components.join("/"))
}

fn node(name: &str, entry: &Entry, at: usize) -> Result<Node, ArchiveError> {
    let mode = entry.unix_mode.unwrap_or(0);
    let permissions = |default: u32, owner: u32| if mode & 0o777 == 0 { default } else { mode & KEPT_PERMISSIONS | owner };
    // A trailing dot names a directory just as a trailing slash does.
    let directory_name = name.ends_with('/') || name.ends_with("/.") || name == ".";
    match (mode & TYPE_MASK, directory_name) {
        (TYPE_DIRECTORY, _) | (0, true) if entry.bytes > 0 => Err(ArchiveError::refused(name, "it is a directory with content")),
        (TYPE_DIRECTORY, _) | (0, true) => Ok(Node::Directory { mode: permissions(DEFAULT_DIRECTORY, DIRECTORY_OWNER) }),
        (TYPE_FILE | 0, false) => Ok(Node::File { mode: permissions(DEFAULT_FILE, FILE_OWNER), entry: at }),
        (TYPE_LINK, false) => Ok(Node::Link { entry: at }),
        (TYPE_FILE | TYPE_LINK, true) => Err(ArchiveError::refused(name, "its name says directory and its mode does not")),
        _ => Err(ArchiveError::refused(name, "it is neither a file, a directory nor a symbolic link")),
    }
}

/// Adds a node and the directories it implies.
fn insert(tree: &mut Tree, path: &str, node: Node) -> Result<(), ArchiveError> {
    for (end, _) in path.match_indices('/') {
        let parent = &path[..end];
        match tree.get(parent) {
            Some(Node::Directory { .. }) => {}
            Some(Node::File { .. }) => return Err(ArchiveError::refused(path, format!("{parent:?} is a file"))),
            Some(Node::Link { .. }) => return Err(ArchiveError::refused(path, format!("{parent:?} is a symbolic link"))),
            None => {
                tree.insert(parent.to_owned(), Node::Directory { mode: DEFAULT_DIRECTORY });
            }
        }
    }
    match (tree.get(path), node) {
        (None, _) | (Some(Node::Directory { .. }), Node::Directory { .. }) => {
            tree.insert(path.to_owned(), node);
            Ok(())
        }
        (Some(_), _) => Err(ArchiveError::refused(path, "the archive holds it twice")),
    }
}

/// Requires a Dockerfile at the root, and says where there is one else.
pub(super) fn require_dockerfile(tree: &Tree) -> Result<(), ArchiveError> {
    let hint = match tree.get(DOCKERFILE) {
        Some(Node::File { .. }) => return Ok(()),
        Some(Node::Directory { .. }) => Some("the one it has is a directory".to_owned()),
        Some(Node::Link { .. }) => Some("the one it has is a symbolic link".to_owned()),
        None => dockerfile_elsewhere(tree),
    };
    Err(ArchiveError::NoDockerfile { hint })
}

fn dockerfile_elsewhere(tree: &Tree) -> Option<String> {
    let files = || tree.iter().filter(|(_, node)| matches!(node, Node::File { .. })).map(|(path, _)| path);
    if let Some(other) = files().find(|path| path.eq_ignore_ascii_case(DOCKERFILE)) {
        return Some(format!("found {other}: the name must be {DOCKERFILE}"));
    }
    files()
        .filter(|path| path.rsplit('/').next() == Some(DOCKERFILE))
        .min_by_key(|path| path.matches('/').count())
        .map(|path| format!("found {path}: zip the folder's contents, not the folder"))
}

/// Where a symbolic link may lead. `..` is allowed in front alone: then a target goes up through real directories (a link's parents are never links)
/// and down from there, and every link on the way down obeys the same rule, so no chain of links leaves the root.
pub(super) fn check_link(path: &str, target: &str) -> Result<(), ArchiveError> {
    let refuse = |why: &str| Err(ArchiveError::refused(path, format!("it is a symbolic link to {target:?}, which {why}")));
    if target.is_empty() || target.contains(char::is_control) {
        return refuse("is not a path");
    }
    if target.starts_with('/') || target.contains('\\') {
        return refuse("is not relative");
    }
    let components: Vec<&str> = target.split('/').filter(|component| !matches!(*component, "" | ".")).collect();
    let up = components.iter().take_while(|component| **component == "..").count();
    if components[up..].contains(&"..") {
        return refuse("goes down and up again");
    }
    if up > path.matches('/').count() {
        return refuse("leads out of the archive");
    }
    Ok(())
}
