//! The lab's virtio-serial ports, each a socket here: what the command prints, its results as a tar stream, and lines about the machine itself.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use anyhow::Context;

/// What `xtask/lab/start` says on its control port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// The machine is prepared; the command runs from here on.
    Ready,
    Beat,
    /// It could not be prepared; its console says why.
    Failed,
    Exit(u8),
    Cut,
    Reboot,
    /// The machine is gone.
    Closed,
}

impl Said {
    fn parse(line: &str) -> Option<Self> {
        Some(match line.trim_end().split_once(' ').unwrap_or((line.trim_end(), "")) {
            ("ready", "") => Self::Ready,
            ("beat", "") => Self::Beat,
            ("failed", "") => Self::Failed,
            ("cut", "") => Self::Cut,
            ("reboot", "") => Self::Reboot,
            ("exit", status) => Self::Exit(status.parse().ok()?),
            _ => return None,
        })
    }
}

/// The names of the ports, in the order of their devices.
pub(super) const NAMES: [&str; 4] = ["lab.out", "lab.err", "lab.files", "lab.control"];

/// Sockets that QEMU connects to.
pub(super) struct Listeners {
    directory: PathBuf,
    listeners: [UnixListener; 4],
}

impl Listeners {
    pub(super) fn bind(directory: &Path) -> io::Result<Self> {
        let bind = |name: &str| {
            let path = socket(directory, name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            UnixListener::bind(path)
        };
        let [out, err, files, control] = NAMES;
        Ok(Self { directory: directory.to_owned(), listeners: [bind(out)?, bind(err)?, bind(files)?, bind(control)?] })
    }

    pub(super) fn socket(&self, name: &str) -> PathBuf {
        socket(&self.directory, name)
    }

    /// Serves the ports until QEMU ends. `out` receives the files of the command.
    pub(super) fn serve(self, out: &Path) -> Ports {
        let [stdout, stderr, files, control] = self.listeners;
        let (sender, said) = mpsc::channel();
        let out = out.to_owned();
        let threads = vec![
            thread::spawn(move || copy(accept(&stdout)?, io::stdout())),
            thread::spawn(move || copy(accept(&stderr)?, io::stderr())),
            thread::spawn(move || unpack(accept(&files)?, &out)),
            thread::spawn(move || listen(accept(&control)?, &sender)),
        ];
        Ports { said, threads }
    }
}

fn socket(directory: &Path, name: &str) -> PathBuf {
    directory.join(name)
}

pub(super) struct Ports {
    pub said: Receiver<Said>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Ports {
    /// To be called when QEMU has ended: what it had taken from the machine has then arrived.
    pub(super) fn drain(self) -> anyhow::Result<()> {
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("a port's thread panicked"))??;
        }
        Ok(())
    }
}

fn accept(listener: &UnixListener) -> anyhow::Result<UnixStream> {
    Ok(listener.accept().context("waiting for QEMU's ports")?.0)
}

fn copy(mut from: UnixStream, mut to: impl Write) -> anyhow::Result<()> {
    let mut buffer = [0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count]).and_then(|()| to.flush()).context("handing on what the command prints")?,
            // QEMU was killed with bytes of ours unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error).context("reading what the command prints"),
        }
    }
}

/// Results come once, as a tar stream, or not at all.
fn unpack(mut from: UnixStream, to: &Path) -> anyhow::Result<()> {
    let mut first = [0; 512];
    if from.read_exact(&mut first).is_err() {
        return Ok(());
    }
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    let mut tar = Command::new("tar")
        .args(["--extract", "--no-same-owner", "--directory"])
        .arg(to)
        .stdin(Stdio::piped())
        .spawn()
        .context("running tar")?;
    if let Some(mut input) = tar.stdin.take() {
        // tar may end before the stream's padding does.
        let _ = input.write_all(&first).and_then(|()| io::copy(&mut from, &mut input).map(|_| ()));
    }
    let status = tar.wait()?;
    anyhow::ensure!(status.success(), "the command's results could not be unpacked");
    Ok(())
}

fn listen(from: UnixStream, tell: &Sender<Said>) -> anyhow::Result<()> {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        match Said::parse(&line) {
            // The receiver goes when the attempt has ended; nobody wants to know more.
            Some(said) => drop(tell.send(said)),
            None => eprintln!("lab: the machine says {line:?}"),
        }
    }
    drop(tell.send(Said::Closed));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_control_port() {
        assert_eq!(Said::parse("exit 7\n"), Some(Said::Exit(7)));
        assert_eq!(Said::parse("beat"), Some(Said::Beat));
        assert_eq!(Said::parse("exit 300"), None);
        assert_eq!(Said::parse("beat 1"), None);
    }
}
