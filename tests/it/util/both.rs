//! Both servers under one configuration, asked the same, their answers compared without their content codings.

use super::client::{Client, Response};
use super::codings::gunzip;
use super::nginx;
use super::server::{Builder, Server};
use std::cell::RefCell;
use std::fmt::Write;

/// Two servers under one configuration; one where there is no nginx to compare with.
pub struct Both {
    /// Ours.
    pub ours: Server,
    nginx: Option<Server>,
    report: RefCell<String>,
}

/// Fields that the two need not have in common: a compressed body may be announced with its length here.
const IGNORED: [&str; 5] = ["date", "server", "connection", "transfer-encoding", "keep-alive"];

impl Both {
    /// Starts both with these files.
    #[track_caller]
    pub fn start(text: &str, files: &[(&str, &[u8])]) -> Both {
        let with_files = |builder: Builder| {
            files.iter().fold(builder, |builder, (path, contents)| builder.file(path, contents)).start()
        };
        let compares = nginx::available() && super::subject_is_ours();
        Both {
            ours: with_files(Server::builder(text)),
            nginx: compares.then(|| with_files(nginx::Nginx::builder(text))),
            report: RefCell::default(),
        }
    }

    /// The servers: ours, and nginx where there is one.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(&self.ours).chain(&self.nginx)
    }

    /// Sends a request head with these field lines (separated by `|`) to both; gives our answer, decoded. What differs
    /// is kept for [`Both::check`].
    pub fn ask(&self, request_line: &str, fields: &str) -> Response {
        let lines: String =
            fields.split('|').filter(|line| !line.is_empty()).map(|line| format!("{line}\r\n")).collect();
        let bytes = format!("{request_line}\r\nHost: localhost\r\n{lines}Connection: close\r\n\r\n");
        let (found, shown) = ask_one(&self.ours, &bytes);
        if let Some(nginx) = &self.nginx {
            let (_, expected) = ask_one(nginx, &bytes);
            let lacks_length =
                |lines: &[String]| lines.iter().all(|line| !line.starts_with("content-length"));
            let either = lacks_length(&shown) || lacks_length(&expected);
            let told = |lines: Vec<String>| -> Vec<String> {
                lines.into_iter().filter(|line| !either || !line.starts_with("content-length")).collect()
            };
            let (shown, expected) = (told(shown), told(expected));
            if shown != expected {
                let mut report = self.report.borrow_mut();
                let _ =
                    writeln!(report, "{request_line} | {fields}\n  nginx {expected:?}\n  ours  {shown:?}");
            }
        }
        found
    }

    /// A GET for HTTP/1.1.
    pub fn get(&self, target: &str, fields: &str) -> Response {
        self.ask(&format!("GET {target} HTTP/1.1"), fields)
    }

    /// A HEAD for HTTP/1.1.
    pub fn head(&self, target: &str, fields: &str) -> Response {
        self.ask(&format!("HEAD {target} HTTP/1.1"), fields)
    }

    /// # Panics
    /// With all that differed.
    #[track_caller]
    pub fn check(self) {
        let report = self.report.borrow();
        assert!(report.is_empty(), "answers differ\n{report}\n--- error log\n{}", self.ours.error_log());
    }
}

/// The answer with its body decoded, and what is compared of it.
fn ask_one(server: &Server, bytes: &str) -> (Response, Vec<String>) {
    let mut client = Client::connect(server.port());
    client.try_send(bytes);
    let method = bytes.split(' ').next().unwrap_or_default();
    let mut response = match client.response_to(method) {
        Ok(response) => response,
        Err(error) => return (Response::default(), vec![error]),
    };
    if method != "HEAD" && response.header("content-encoding") == Some("gzip") {
        response.body = gunzip(&response.body);
    }
    let names_server = |response: &Response| {
        response.text().contains("<hr><center>") || method == "HEAD" && response.status >= 300
    };
    let mut shown: Vec<String> = response
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| {
            let is_foreign = name == "content-length" && names_server(&response);
            !is_foreign && !IGNORED.contains(&&name[..])
        })
        .map(|(name, value)| format!("{name}: {}", value.replace(&server.port().to_string(), "{port}")))
        .collect();
    shown.sort();
    shown.insert(0, response.status.to_string());
    if !names_server(&response) {
        let length = response.body.len();
        let start = &response.body[..length.min(300)];
        shown.push(format!("{length} bytes: {}", start.escape_ascii()));
        shown.push(format!(
            "sum {}",
            response.body.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte))
        ));
    }
    (response, shown)
}
