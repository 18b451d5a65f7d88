//! Child processes. This is the only way in which tests start a program, because whatever it prints
//! is searched for secrets here.

use std::ffi::OsStr;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::process::{ExitStatus, Output, Stdio};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::process::{ChildStdin, ChildStdout};

use super::secrets::{Search, assert_none};

/// Variables that change how the programs run or connect; a test sets those that it is about.
const SURROUNDINGS: &[&str] = &[
    "POSTHOG_API_KEY",
    "POSTHOG_HASH_KEY",
    "PATTERNS_WEBHOOK_URL",
    "PATTERNS_BEARER_TOKEN",
    "PATTERNS_SIGNING_SECRET",
    "LOG_LEVEL",
    "NO_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "CI",
    "TERM",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// A program with its arguments; its output is captured.
pub(crate) struct Command(tokio::process::Command, Option<OwnedFd>);

impl Command {
    /// The program without arguments and with nothing on standard input.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = tokio::process::Command::new(program);
        for name in SURROUNDINGS {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        Self(command, None)
    }

    /// Lets the test write to the program's standard input.
    pub(crate) fn with_input(mut self) -> Self {
        self.0.stdin(Stdio::piped());
        self
    }

    pub(crate) fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.0.arg(argument);
        self
    }

    pub(crate) fn args(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.0.args(arguments);
        self
    }

    pub(crate) fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.0.env(name, value);
        self
    }

    pub(crate) fn current_dir(&mut self, directory: &Path) -> &mut Self {
        self.0.current_dir(directory);
        self
    }

    /// Lets the program write its errors there, such as to a terminal. Nothing searches them.
    pub(crate) fn stderr_to(&mut self, file: OwnedFd) -> &mut Self {
        self.1 = Some(file);
        self
    }

    /// Connects standard input, output and error with a terminal.
    pub(crate) fn on_terminal(&mut self, terminal: &OwnedFd) -> &mut Self {
        let copy = || terminal.try_clone().unwrap();
        self.0.stdin(copy()).stdout(copy());
        self.stderr_to(copy())
    }

    /// Starts the program.
    pub(crate) fn spawn(&mut self) -> Child {
        let stderr = tempfile::tempfile().unwrap();
        // A file, since nobody has to read it for the program to go on.
        let target =
            self.1.as_ref().map_or_else(|| stderr.try_clone().unwrap().into(), |file| file.try_clone().unwrap());
        let mut inner = self.0.stderr(target).spawn().unwrap();
        // The last copies: when the program has ended, the other end sees it.
        self.0.stderr(Stdio::null());
        if self.1.take().is_some() {
            self.0.stdin(Stdio::null()).stdout(Stdio::piped());
        }
        let stdin = inner.stdin.take();
        let stdout = inner.stdout.take().map(|inner| Watched { inner, search: Search::default() });
        Child { inner, stdin, stdout, stderr }
    }

    /// Runs the program to its end.
    pub(crate) async fn output(&mut self) -> Output {
        self.spawn().wait_with_output().await
    }

    /// Runs the program to its successful end and returns what each of its writes to standard output
    /// has written.
    #[cfg(target_os = "linux")]
    pub(crate) async fn writes(&mut self) -> Vec<Vec<u8>> {
        // Every write is a datagram of its own.
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = tokio::net::UnixDatagram::from_std(ours).unwrap();
        self.0.stdout(std::os::fd::OwnedFd::from(theirs));
        let mut child = self.spawn();
        let (mut writes, mut search, mut buffer) = (Vec::new(), Search::default(), vec![0; 1 << 20]);
        loop {
            tokio::select! {
                biased;
                length = ours.recv(&mut buffer) => {
                    let bytes = &buffer[..length.unwrap()];
                    search.piece(bytes);
                    writes.push(bytes.to_vec());
                }
                status = child.wait() => {
                    assert!(status.success());
                    return writes;
                }
            }
        }
    }
}

/// A running program. It is killed when it is dropped.
pub(crate) struct Child {
    inner: tokio::process::Child,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<Watched>,
    stderr: std::fs::File,
}

impl Child {
    /// Process ID.
    pub(crate) fn id(&self) -> u32 {
        self.inner.id().unwrap()
    }

    /// Sends the program a signal.
    pub(crate) async fn signal(&self, number: i32) {
        let arguments = [format!("-{number}"), self.id().to_string()];
        assert!(tokio::process::Command::new("kill").args(arguments).status().await.unwrap().success());
    }

    /// Kills the program and waits for its end.
    pub(crate) async fn kill(&mut self) {
        self.inner.kill().await.unwrap();
    }

    /// Waits for the end.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        self.inner.wait().await.unwrap()
    }

    /// Reads what has not been read yet and waits for the end.
    pub(crate) async fn wait_with_output(mut self) -> Output {
        drop(self.stdin.take());
        let mut stdout = Vec::new();
        if let Some(mut unread) = self.stdout.take() {
            unread.read_to_end(&mut stdout).await.unwrap();
        }
        let status = self.wait().await;
        Output { status, stdout, stderr: self.errors() }
    }

    /// What has come on stderr.
    fn errors(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        self.stderr.rewind().unwrap();
        self.stderr.read_to_end(&mut text).unwrap();
        text
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // An error means that it has ended.
        drop(self.inner.start_kill());
        while self.inner.try_wait().is_ok_and(|status| status.is_none()) {
            std::thread::yield_now();
        }
        assert_none(&self.errors());
    }
}

/// The standard output of a program. Reading a secret from it fails the test.
pub(crate) struct Watched {
    inner: ChildStdout,
    search: Search,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        self.search.piece(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

/// The programs are started here and nowhere else.
#[test]
fn output_of_every_started_program_is_searched() {
    let folder = super::program::repository_file("integration_tests");
    let files = [&folder, &folder.join("support")].map(|folder| std::fs::read_dir(folder).unwrap());
    let mut seen = 0;
    for file in files.into_iter().flatten().map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "rs") || file.ends_with("support/child.rs") {
            continue;
        }
        seen += 1;
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let starts = line.contains("process::Command::new(") && !line.contains(r#"Command::new("kill")"#);
            assert!(
                !starts && !line.contains("use tokio::process::") && !line.contains("use std::process::Command"),
                "{}: `{line}`; use support::child::Command",
                file.display()
            );
        }
    }
    assert!(seen > 10, "{seen} files");
}

/// Prints a planted secret in a way of its own.
async fn run_script(script: &str) -> Output {
    Command::new("sh").args(["-c", script]).output().await
}

#[tokio::test]
#[should_panic(expected = "a secret was printed")]
async fn standard_output_is_searched() {
    run_script("printf 'key: ph'; sleep 0; printf 'x_full'").await;
}

#[tokio::test]
#[should_panic(expected = "a secret was printed")]
async fn standard_error_is_searched() {
    run_script("printf 'key: phx_full' >&2").await;
}

#[tokio::test]
#[should_panic(expected = "a secret was printed")]
async fn standard_error_of_a_killed_program_is_searched() {
    let mut child = Command::new("sh").args(["-c", "printf phx_full >&2; echo; exec sleep 60"]).spawn();
    let mut line = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut line).await.unwrap();
    child.kill().await;
}

#[tokio::test]
async fn output_without_secrets_is_accepted() {
    assert_eq!(run_script("printf harmless").await.stdout, b"harmless");
}
