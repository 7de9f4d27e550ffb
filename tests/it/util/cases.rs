//! A table of requests with the answers that both servers must give: what is expected stands in the test, and where
//! nginx is installed, whole answers are compared with it too.

use super::client::{Client, Response};
use super::nginx;
use super::parity::Parity;
use super::server::{Builder, Server};
use std::fmt::Write;

/// What is done to a server's folder before the requests.
type Preparation = Box<dyn Fn(&Server)>;

/// A configuration, files, and requests with their expected answers.
///
/// An answer is written as `STATUS`, then (after a space) the `Location` if there is one, else the body unless it is a
/// built-in page, then each field of [`Cases::show`] that is there as ` [Name: value]`. `{root}` and `{port}` stand for
/// themselves.
pub struct Cases {
    parity: Parity,
    requests: Vec<(Vec<u8>, String)>,
    shown: Vec<String>,
    only_ours: Option<&'static str>,
    before: Vec<Preparation>,
}

impl Cases {
    /// A table under this configuration, with the placeholders of the harness.
    pub fn new(text: &str) -> Self {
        Self {
            parity: Parity::new(text),
            requests: Vec::new(),
            shown: Vec::new(),
            only_ours: None,
            before: Vec::new(),
        }
    }

    /// A file that both have, with the same modification time.
    pub fn file(mut self, path: &str, contents: impl AsRef<[u8]>) -> Self {
        self.parity = self.parity.file(path, contents);
        self
    }

    /// Something done to each server's folder before the requests.
    pub fn before(mut self, prepare: impl Fn(&Server) + 'static) -> Self {
        self.before.push(Box::new(prepare));
        self
    }

    /// Fields that the expected answers name.
    pub fn show(mut self, names: &[&str]) -> Self {
        self.shown.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// A field that need not be the same.
    pub fn ignore(mut self, name: &str) -> Self {
        self.parity = self.parity.ignore(name);
        self
    }

    /// Bodies need not be the same.
    pub fn ignore_bodies(mut self) -> Self {
        self.parity = self.parity.ignore_bodies();
        self
    }

    /// nginx 1.22 answers otherwise, or can't be asked; the reason says why.
    pub fn only_ours(mut self, reason: &'static str) -> Self {
        self.only_ours = Some(reason);
        self
    }

    /// Raw bytes on a connection of their own, and the answer.
    pub fn request(mut self, bytes: impl AsRef<[u8]>, expected: &str) -> Self {
        self.requests.push((bytes.as_ref().to_vec(), expected.to_owned()));
        self
    }

    /// A GET with `Host: localhost`.
    pub fn get(self, target: &str, expected: &str) -> Self {
        self.get_with(target, "", expected)
    }

    /// A GET of this host; an empty one sends an empty `Host`.
    pub fn host(self, host: &str, target: &str, expected: &str) -> Self {
        self.request(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"), expected)
    }

    /// A GET with `Host: localhost` and these further field lines, separated by `|`.
    pub fn get_with(self, target: &str, fields: &str, expected: &str) -> Self {
        let fields: String =
            fields.split('|').filter(|line| !line.is_empty()).map(|line| format!("{line}\r\n")).collect();
        self.request(
            format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}Connection: close\r\n\r\n"),
            expected,
        )
    }

    /// Asks the server, then, where it is installed and comparable, nginx.
    ///
    /// # Panics
    /// With all answers that were not as expected, and all that differ.
    #[track_caller]
    pub fn check(self) {
        if self.only_ours.is_some() && !super::server::subject_is_ours() {
            return;
        }
        let mut report = String::new();
        let subject = self.start(Server::builder(self.parity.text()));
        self.ask(&subject, "answers", &mut report);
        if self.only_ours.is_none() && nginx::available() && super::server::subject_is_ours() {
            let reference = self.start(Builder::new(super::config::Program::Nginx, self.parity.text()));
            self.ask(&reference, "nginx answers", &mut report);
            for (bytes, _) in &self.requests {
                self.parity.compare(&reference, &subject, bytes, 1, &mut report);
            }
        }
        if !report.is_empty() {
            let log = subject.error_log();
            panic!("{report}\n--- error log\n{}", log.lines().take(40).collect::<Vec<_>>().join("\n"));
        }
    }

    fn start(&self, builder: Builder) -> Server {
        let server = self.parity.with_files(builder).start();
        for prepare in &self.before {
            prepare(&server);
        }
        server
    }

    fn ask(&self, server: &Server, who: &str, report: &mut String) {
        for (bytes, expected) in &self.requests {
            let expected = expected
                .replace("{root}", server.root().to_str().expect("UTF-8"))
                .replace("{port}", &server.port().to_string())
                .replace("{port2}", &server.port_of(2).to_string());
            let mut client = Client::connect(server.port());
            client.try_send(bytes);
            let method = if bytes.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
            let found = match client.response_to(method) {
                Ok(response) => self.summary(&response),
                Err(error) => format!("({error})"),
            };
            if found != expected {
                let request = String::from_utf8_lossy(bytes);
                let _ = writeln!(report, "{request:?}\n  {who} {found:?}\n  expected {expected:?}");
            }
        }
    }

    fn summary(&self, response: &Response) -> String {
        let mut text = response.status.to_string();
        let body = response.text();
        if let Some(location) = response.header("location") {
            let _ = write!(text, " {location}");
        } else if !body.is_empty() && !body.starts_with("<html>\r\n<head><title>") {
            let _ = write!(text, " {body}");
        }
        for name in &self.shown {
            for value in response.header_all(name) {
                let _ = write!(text, " [{name}: {value}]");
            }
        }
        text
    }
}
