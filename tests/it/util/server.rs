//! The program under test as a process: started in a fresh folder, stopped with all its children when dropped.

use super::config::{Filling, Program, complete};
use super::{PATIENCE, Reserved, eventually};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// How many ports a configuration may name: `{port}` = `{port1}` to `{port9}`.
const PORTS: usize = 9;

/// The modification time of [`Builder::file`]'s files: 2024-01-02 03:04:05 UTC, so that ETags are the same everywhere.
pub const FIXED_TIME: Duration = Duration::from_secs(1_704_164_645);

/// A server's settings before it starts.
pub struct Builder {
    program: Program,
    text: String,
    master: bool,
    daemon: bool,
    wait: bool,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
}

impl Builder {
    pub(super) fn new(program: Program, text: &str) -> Self {
        Self {
            program,
            text: text.to_owned(),
            master: true,
            daemon: false,
            wait: true,
            arguments: Vec::new(),
            environment: Vec::new(),
            files: Vec::new(),
        }
    }

    /// `master_process on` (the default) or `off`.
    pub fn master(mut self, on: bool) -> Self {
        self.master = on;
        self
    }

    /// `daemon on`: the started process goes away and the pid file names the one that stays. Default: off.
    pub fn daemon(mut self, on: bool) -> Self {
        self.daemon = on;
        self
    }

    /// Whether to wait until the first port accepts connections (or, if the text names none, the pid file is there).
    pub fn wait(mut self, on: bool) -> Self {
        self.wait = on;
        self
    }

    /// One more argument of the command line.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// One variable of the environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file below the folder, there before the start, with the modification time [`FIXED_TIME`].
    pub fn file(mut self, path: &str, contents: impl AsRef<[u8]>) -> Self {
        self.files.push((path.to_owned(), contents.as_ref().to_vec()));
        self
    }

    /// Starts the program.
    ///
    /// # Panics
    /// When it ends at once or does not answer within [`PATIENCE`]; the message has its output and error log.
    #[track_caller]
    pub fn start(self) -> Server {
        let (mut server, text) = self.prepare();
        server.write("nginx.conf", text.as_bytes());
        let mut command = server.command(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command.stdout(server.create("stdout"));
        command.stderr(server.create("stderr"));
        let child = command.process_group(0).spawn().expect("start the program");
        server.guard = Some(guard(child.id()));
        server.child = Some(child);
        if self.wait {
            server.wait_until_up(self.text.contains("{port}") || self.text.contains("{port1}"));
        }
        server
    }

    /// Runs the program to its end with these further arguments (for example `-t`) and returns what it said.
    #[track_caller]
    pub fn run(self, arguments: &[&str]) -> Output {
        let (server, text) = self.prepare();
        server.write("nginx.conf", text.as_bytes());
        let all: Vec<String> =
            self.arguments.iter().cloned().chain(arguments.iter().map(|one| (*one).to_owned())).collect();
        let mut command = server.command(&all);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut output = finish(&mut command);
        output.root = server.root().to_owned();
        output
    }

    fn prepare(&self) -> (Server, String) {
        let folder = tempfile::Builder::new().prefix("thalweg-").rand_bytes(8).tempdir().expect("folder");
        // Workers may run as another user: they must get in, and write logs and temporary files.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("permissions");
        let ports: Vec<Reserved> = (0..PORTS).map(|_| Reserved::new()).collect();
        let server =
            Server { program: self.program, folder, ports, child: None, guard: None, daemon: self.daemon };
        for (path, contents) in &self.files {
            server.write_at(path, contents, SystemTime::UNIX_EPOCH + FIXED_TIME);
        }
        let text = server.complete(&self.text, self.master);
        (server, text)
    }
}

/// What a program that ran to its end left behind.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// The folder that it ran in (gone by now); messages name files below it.
    pub root: PathBuf,
}

/// Whether the tests ask our server. With `IT_SUBJECT=nginx` in the environment they ask nginx: what passes then too is
/// nginx's behaviour.
pub fn subject_is_ours() -> bool {
    std::env::var_os("IT_SUBJECT").is_none_or(|subject| subject != "nginx")
}

/// A running server. Its whole process group is killed when it is dropped, also when the test itself is killed.
pub struct Server {
    program: Program,
    folder: tempfile::TempDir,
    ports: Vec<Reserved>,
    child: Option<Child>,
    guard: Option<Child>,
    daemon: bool,
}

impl Server {
    /// Starts the built `thalweg` with this text (see [`complete`] for placeholders) and waits until it answers.
    #[track_caller]
    pub fn start(text: &str) -> Self {
        Self::builder(text).start()
    }

    /// Settings for a start that differs from the usual.
    ///
    /// With `IT_SUBJECT=nginx` in the environment it is nginx that is started: a test's expectations are held
    /// against the reference that way. What a test says of Thalweg alone fails then.
    pub fn builder(text: &str) -> Builder {
        Builder::new(if subject_is_ours() { Program::Thalweg } else { Program::Nginx }, text)
    }

    /// The port that `{port}` stands for.
    pub fn port(&self) -> u16 {
        self.ports[0].port()
    }

    /// The port that `{portN}` stands for, 1 to 9.
    pub fn port_of(&self, number: usize) -> u16 {
        self.ports[number - 1].port()
    }

    /// The folder that `{root}` stands for.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// A path below the folder.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// Writes a file below the folder, making its parents.
    #[track_caller]
    pub fn write(&self, path: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("has a parent")).expect("make folders");
        std::fs::write(&path, contents).expect("write file");
        path
    }

    /// The same, with a modification time.
    #[track_caller]
    pub fn write_at(&self, path: &str, contents: impl AsRef<[u8]>, modified: SystemTime) {
        let path = self.write(path, contents);
        let file = std::fs::File::options().write(true).open(path).expect("open file");
        file.set_modified(modified).expect("set the modification time");
    }

    /// The process id of the started process (the master, with `master_process on`), or the pid file's with `daemon on`.
    pub fn pid(&self) -> Pid {
        let number = if self.daemon {
            self.read("server.pid").trim().parse().expect("a process id")
        } else {
            i32::try_from(self.child.as_ref().expect("started").id()).expect("a process id")
        };
        Pid::from_raw(number).expect("a process id")
    }

    /// The processes that the main one started, in the order of `/proc`.
    pub fn children(&self) -> Vec<Pid> {
        let pid = self.pid().as_raw_nonzero();
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_whitespace().filter_map(|one| Pid::from_raw(one.parse().ok()?)).collect()
    }

    /// Sends a signal to the main process.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("send a signal");
    }

    /// Asks for a reload of the configuration file as it is now. It takes effect a moment later.
    #[track_caller]
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Replaces the configuration (same placeholders, same folder, same ports) without telling the server.
    #[track_caller]
    pub fn configure(&self, text: &str) {
        let text = self.complete(text, true);
        self.write("nginx.conf", text);
    }

    /// Waits for the main process to end.
    ///
    /// # Panics
    /// When it does not end within [`PATIENCE`].
    #[track_caller]
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("started");
        wait(child).unwrap_or_else(|| panic!("the server did not end\n{}", self.report()))
    }

    /// Whether the started process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("wait").is_none())
    }

    /// The error log so far; empty when there is none yet.
    pub fn error_log(&self) -> String {
        self.read("error.log")
    }

    /// The access log so far. Servers write it after the response: see [`Server::access_log_lines`].
    pub fn access_log(&self) -> String {
        self.read("access.log")
    }

    /// Waits until the access log has at least `count` lines and returns them.
    #[track_caller]
    pub fn access_log_lines(&self, count: usize) -> Vec<String> {
        eventually("access log lines", || self.access_log().matches('\n').count() >= count);
        self.access_log().lines().map(str::to_owned).collect()
    }

    /// What the process wrote to its standard error.
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    /// What the process wrote to its standard output.
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// The text of a file below the folder; empty when there is none. Bytes that are not UTF-8 are replaced.
    pub fn read(&self, path: &str) -> String {
        std::fs::read(self.path(path))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The configuration's text, completed for this server's folder and ports.
    pub fn complete(&self, text: &str, master: bool) -> String {
        let ports: Vec<u16> = self.ports.iter().map(Reserved::port).collect();
        complete(
            text,
            &Filling { program: self.program, root: self.root(), ports: &ports, master, daemon: self.daemon },
        )
    }

    fn command(&self, arguments: &[String]) -> Command {
        let root = self.root();
        let mut command = Command::new(match self.program {
            Program::Thalweg => env!("CARGO_BIN_EXE_thalweg"),
            Program::Nginx => super::nginx::BINARY,
        });
        command.arg("-p").arg(root).arg("-c").arg(root.join("nginx.conf"));
        command.arg("-e").arg(root.join("error.log")).args(arguments).current_dir(root);
        command
    }

    fn create(&self, path: &str) -> std::fs::File {
        std::fs::File::create(self.path(path)).expect("create a file for output")
    }

    #[track_caller]
    fn wait_until_up(&mut self, by_port: bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let up = if by_port {
                TcpStream::connect((Ipv4Addr::LOCALHOST, self.port())).is_ok()
            } else {
                !self.read("server.pid").is_empty()
            };
            if up {
                return;
            }
            let ended = !self.daemon && !self.is_running();
            if ended || Instant::now() > deadline {
                let what = if ended { "ended at once" } else { "did not answer" };
                panic!("the server {what}\n{}", self.report());
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    fn report(&self) -> String {
        let parts = ["nginx.conf", "stderr", "error.log"];
        parts.map(|part| format!("--- {part}\n{}", self.read(part))).join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(group) = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0)) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait();
        if self.daemon {
            kill_by_folder(self.root());
        }
        if let Some(mut guard) = self.guard.take() {
            let _ = guard.kill();
            let _ = guard.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        }
    }
}

/// A shell that waits for the end of this test process (its standard input closes then, however it ends) and kills
/// the server's process group. Killed itself when the server is dropped in the usual way.
pub fn guard(group: u32) -> Child {
    Command::new("sh")
        .arg("-c")
        .arg("read -r line; kill -9 -- -\"$0\" 2>/dev/null")
        .arg(group.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("start the guard")
}

/// A daemon has left its process group. Its working directory or its arguments still name the folder, which no other
/// server has.
fn kill_by_folder(folder: &Path) {
    let root = folder.to_str().expect("UTF-8").as_bytes();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else { continue };
        if number == i32::try_from(std::process::id()).ok() {
            continue;
        }
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if cwd.starts_with(folder) || memchr::memmem::find(&arguments, root).is_some() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

#[track_caller]
fn finish(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.process_group(0).spawn().expect("start the program");
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    let read = |stream: &mut dyn Read| {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (status, stdout, stderr) = std::thread::scope(|scope| {
        let stdout = scope.spawn(move || read(&mut stdout));
        let stderr = scope.spawn(move || read(&mut stderr));
        let status = wait(&mut child);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        (status, stdout.join().expect("reader"), stderr.join().expect("reader"))
    });
    let status = status.unwrap_or_else(|| panic!("the program did not end: {stdout}{stderr}"));
    Output { status, stdout, stderr, root: PathBuf::new() }
}
