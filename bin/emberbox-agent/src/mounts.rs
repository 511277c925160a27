//! Mounting, in the agent's own tree and inside root disks whose symbolic links are not to be trusted.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};

/// Links every /dev has.
pub(crate) const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// Larger files of a root disk (passwd, group, CA bundle) are not read.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// One file system without a device.
pub(crate) struct Mount<'a> {
    pub(crate) kind: &'a str,
    pub(crate) target: &'a str,
    pub(crate) flags: MsFlags,
    pub(crate) options: &'a str,
}

impl Mount<'_> {
    /// Mounts in the agent's own tree.
    pub(crate) fn make(&self) -> Result<()> {
        fs::create_dir_all(self.target).with_context(|| format!("creating {}", self.target))?;
        mount(Some(self.kind), self.target, Some(self.kind), self.flags, Some(self.options))
            .with_context(|| format!("mounting {} on {}", self.kind, self.target))
    }

    /// Mounts below a root disk.
    pub(crate) fn make_in(&self, root: &Root) -> Result<()> {
        let target = root.directory(self.target)?;
        mount(Some(self.kind), &fd_path(&target), Some(self.kind), self.flags, Some(self.options))
            .with_context(|| format!("mounting {} on {}", self.kind, self.target))
    }
}

/// A mounted root disk seen from outside. Every path is resolved as if it were `/`, symbolic links included.
pub(crate) struct Root {
    directory: OwnedFd,
}

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(path, flags, Mode::empty()).with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { directory })
    }

    /// For `syncfs` and `fchdir`.
    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.directory
    }

    fn resolve(&self, path: &str, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .mode(mode)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.directory, path, how)
    }

    /// The directory at `path`, made with its parents where missing.
    pub(crate) fn directory(&self, path: &str) -> Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let mut walked = PathBuf::from("/");
        for part in Path::new(path).components() {
            match part {
                Component::Normal(name) => walked.push(name),
                Component::ParentDir => drop(walked.pop()),
                _ => continue,
            }
            let text = walked.to_str().context("a path that is no UTF-8")?;
            match self.resolve(text, flags, Mode::empty()) {
                Ok(_) => {}
                Err(Errno::ENOENT) => self.make_directory(&walked)?,
                Err(error) => return Err(error).with_context(|| format!("opening {text}")),
            }
        }
        let text = walked.to_str().context("a path that is no UTF-8")?;
        self.resolve(text, flags, Mode::empty()).with_context(|| format!("opening {text}"))
    }

    fn make_directory(&self, path: &Path) -> Result<()> {
        let (parent, name) = self.parent_of(path)?;
        mkdirat(&parent, name.as_str(), Mode::from_bits_truncate(0o755)).with_context(|| format!("creating {}", path.display()))
    }

    fn parent_of(&self, path: &Path) -> Result<(OwnedFd, String)> {
        let parent = path.parent().and_then(Path::to_str).context("a path without a parent")?;
        let name = path.file_name().and_then(|name| name.to_str()).context("a path without a name")?;
        let directory =
            self.resolve(parent, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).with_context(|| format!("opening {parent}"))?;
        Ok((directory, name.to_owned()))
    }

    /// The file at `path`, made empty where missing, as a place to mount on.
    fn file(&self, path: &str) -> Result<OwnedFd> {
        match self.resolve(path, OFlag::O_PATH, Mode::empty()) {
            Ok(found) => return Ok(found),
            Err(Errno::ENOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("opening {path}")),
        }
        let parent = Path::new(path).parent().and_then(Path::to_str).context("a path without a parent")?;
        drop(self.directory(parent)?);
        // O_CREAT follows a dangling link inside the root: /etc/resolv.conf -> ../run/systemd/resolve/stub-resolv.conf is common.
        if self.create(path).is_err() {
            self.create_link_target(path)?;
        }
        self.resolve(path, OFlag::O_PATH, Mode::empty()).with_context(|| format!("opening {path}"))
    }

    fn create(&self, path: &str) -> nix::Result<()> {
        self.resolve(path, OFlag::O_CREAT | OFlag::O_WRONLY, Mode::from_bits_truncate(0o644)).map(drop)
    }

    /// Makes the directory a dangling link at `path` points into, then the file.
    fn create_link_target(&self, path: &str) -> Result<()> {
        let (parent, name) = self.parent_of(Path::new(path))?;
        let link = nix::fcntl::readlinkat(&parent, name.as_str()).with_context(|| format!("creating {path}"))?;
        let target = Path::new(path).parent().unwrap_or(Path::new("/")).join(link);
        let directory = target.parent().and_then(Path::to_str).context("a link without a target")?;
        drop(self.directory(directory)?);
        self.create(path).with_context(|| format!("creating {path}"))
    }

    /// Reads a small text file; `None` where there is none.
    pub(crate) fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let file = match self.resolve(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()) {
            Ok(descriptor) => fs::File::from(descriptor),
            Err(_) => return Ok(None),
        };
        let size = file.metadata().with_context(|| format!("examining {path}"))?;
        ensure!(size.is_file() && size.len() <= MAX_FILE_BYTES, "{path} is no file of reasonable size");
        let mut content = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut content).with_context(|| format!("reading {path}"))?;
        Ok(Some(content))
    }

    /// Binds the agent's file `source` over the file `target` of this root.
    pub(crate) fn bind_file(&self, source: &Path, target: &str, read_only: bool) -> Result<()> {
        let place = self.file(target)?;
        mount(Some(source), &fd_path(&place), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("mounting a file on {target}"))?;
        if read_only { self.remount_read_only(target) } else { Ok(()) }
    }

    /// Binds one directory of this root over itself without write access; nothing where there is none.
    pub(crate) fn protect(&self, path: &str) -> Result<()> {
        let Ok(place) = self.resolve(path, OFlag::O_PATH, Mode::empty()) else { return Ok(()) };
        let place = fd_path(&place);
        mount(Some(&place), &place, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
            .with_context(|| format!("binding {path}"))?;
        self.remount_read_only(path)
    }

    /// Hides a file behind /dev/null or a directory behind an empty one; nothing where there is none.
    pub(crate) fn mask(&self, path: &str) -> Result<()> {
        let Ok(place) = self.resolve(path, OFlag::O_PATH, Mode::empty()) else { return Ok(()) };
        let kind = nix::sys::stat::fstat(&place).with_context(|| format!("examining {path}"))?.st_mode;
        let place = fd_path(&place);
        let done = if kind & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() {
            mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::MS_RDONLY, Some("size=0k"))
        } else {
            mount(Some("/dev/null"), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        };
        done.with_context(|| format!("masking {path}"))
    }

    fn remount_read_only(&self, path: &str) -> Result<()> {
        // Resolved anew: the descriptor from before the mount names what is now below it.
        let place = self.resolve(path, OFlag::O_PATH, Mode::empty()).with_context(|| format!("opening {path}"))?;
        let flags =
            MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(None::<&str>, &fd_path(&place), None::<&str>, flags, None::<&str>).with_context(|| format!("making {path} read-only"))
    }

    /// A character device of mode 0666 in the directory `parent`.
    pub(crate) fn character_device(&self, parent: &str, name: &str, major: u64, minor: u64) -> Result<()> {
        let directory = self.directory(parent)?;
        let mode = Mode::from_bits_truncate(0o666);
        mknodat(&directory, name, SFlag::S_IFCHR, mode, nix::sys::stat::makedev(major, minor))
            .with_context(|| format!("creating {parent}/{name}"))
    }

    /// A symbolic link in the directory `parent`; one that is there already stays.
    pub(crate) fn link(&self, parent: &str, name: &str, target: &str) -> Result<()> {
        let directory = self.directory(parent)?;
        match nix::unistd::symlinkat(target, &directory, name) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("linking {parent}/{name}")),
        }
    }
}

/// A path that names what `descriptor` holds, for system calls that take no descriptor.
fn fd_path(descriptor: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd()))
}
