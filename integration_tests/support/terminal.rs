//! A terminal of its own for a program: what a person would see, and what they type.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::child::{Child, Command};
use super::secrets::assert_none;

/// The terminal's side that people look at.
pub(crate) struct Terminal {
    ours: File,
    theirs: OwnedFd,
    shown: Vec<u8>,
}

impl Terminal {
    /// A terminal that is wide enough for every line.
    pub(crate) fn open() -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        tcsetwinsize(&ours, Winsize { ws_row: 50, ws_col: 400, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        Self { ours: File::from(ours), theirs: theirs.into(), shown: Vec::new() }
    }

    /// The side that a program is connected to.
    pub(crate) fn program_side(&self) -> OwnedFd {
        self.theirs.try_clone().unwrap()
    }

    /// Whether it shows what is typed.
    pub(crate) fn echoes(&self) -> bool {
        tcgetattr(&self.theirs).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// Types something.
    pub(crate) fn enter(&self, text: &str) {
        (&self.ours).write_all(text.as_bytes()).unwrap();
    }

    /// Waits until the program shows this.
    pub(crate) async fn until(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.shown).contains(text) {
            assert!(self.more().await, "no {text:?} in {:?}", String::from_utf8_lossy(&self.shown));
        }
    }

    /// Waits until all programs have left the terminal; what they have shown, in Unix lines.
    pub(crate) async fn end(self) -> String {
        let Self { ours, theirs, shown } = self;
        let mut rest = Self { ours, theirs: File::open("/dev/null").unwrap().into(), shown };
        drop(theirs);
        while rest.more().await {}
        assert_none(&rest.shown);
        String::from_utf8(rest.shown).unwrap().replace("\r\n", "\n")
    }

    /// Reads what comes next. False when no program is left, which is an error of the terminal.
    async fn more(&mut self) -> bool {
        let mut ours = self.ours.try_clone().unwrap();
        let read = move || {
            let mut piece = vec![0; 4_096];
            let length = ours.read(&mut piece).unwrap_or_default();
            piece.truncate(length);
            piece
        };
        let piece = tokio::task::spawn_blocking(read).await.unwrap();
        self.shown.extend_from_slice(&piece);
        !piece.is_empty()
    }
}

/// A terminal like those of today, without what the surroundings say about colours.
pub(crate) fn coloured(command: &mut Command) -> &mut Command {
    command.env("TERM", "xterm-256color")
}

/// Runs a program on a terminal, to its end. Returns its exit code and what it has shown.
pub(crate) async fn run_on_terminal(mut command: Command) -> (Option<i32>, String) {
    let terminal = Terminal::open();
    let mut child = start_on(&terminal, &mut command);
    drop(command);
    let shown = terminal.end().await;
    (child.wait().await.code(), shown)
}

/// Starts a program whose standard input, output and error are the terminal.
pub(crate) fn start_on(terminal: &Terminal, command: &mut Command) -> Child {
    command.on_terminal(&terminal.program_side()).spawn()
}
