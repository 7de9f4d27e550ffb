//! The same configuration and the same bytes to nginx and to Thalweg, and a readable list of what differs.

use super::client::{Client, Response};
use super::config::Program;
use super::nginx;
use super::server::{Builder, Server};
use std::fmt::Write;

/// A comparison: files, requests, and what is known to differ.
pub struct Parity {
    text: String,
    files: Vec<(String, Vec<u8>)>,
    requests: Vec<(Vec<u8>, usize)>,
    ignored: Vec<String>,
    ignored_bodies: bool,
    strict_order: bool,
    subject: Program,
}

impl Parity {
    /// A comparison under this configuration, with the placeholders of the harness.
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            files: Vec::new(),
            requests: Vec::new(),
            ignored: vec!["date".to_owned()],
            ignored_bodies: false,
            strict_order: false,
            subject: if super::server::subject_is_ours() { Program::Thalweg } else { Program::Nginx },
        }
    }

    /// A file that both have, with the same modification time.
    pub fn file(mut self, path: &str, contents: impl AsRef<[u8]>) -> Self {
        self.files.push((path.to_owned(), contents.as_ref().to_vec()));
        self
    }

    /// Bytes to send on a connection of their own; one response is read.
    pub fn request(self, bytes: impl AsRef<[u8]>) -> Self {
        self.pipelined(bytes, 1)
    }

    /// The same for bytes that ask for `count` responses.
    pub fn pipelined(mut self, bytes: impl AsRef<[u8]>, count: usize) -> Self {
        self.requests.push((bytes.as_ref().to_vec(), count));
        self
    }

    /// GETs of these paths (HTTP/1.1, `Host: localhost`, keep-alive).
    pub fn get(mut self, paths: &[&str]) -> Self {
        for path in paths {
            self = self.request(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        }
        self
    }

    /// A field that may differ, be missing, or be one too many.
    pub fn ignore(mut self, name: &str) -> Self {
        self.ignored.push(name.to_ascii_lowercase());
        self
    }

    /// Bodies (and so their lengths) may differ.
    pub fn ignore_bodies(mut self) -> Self {
        self.ignored_bodies = true;
        self.ignore("content-length")
    }

    /// Fields must come in the same order too.
    pub fn strict_order(mut self) -> Self {
        self.strict_order = true;
        self
    }

    /// Compares nginx with itself: for the harness's own tests.
    pub fn against_itself(mut self) -> Self {
        self.subject = Program::Nginx;
        self
    }

    /// Runs both and compares. Where no nginx is installed, nothing happens.
    ///
    /// # Panics
    /// With the requests and both answers wherever they differ.
    #[track_caller]
    pub fn check(self) {
        if !nginx::available() {
            eprintln!("no nginx here: parity not compared");
            return;
        }
        if !super::server::subject_is_ours() {
            return;
        }
        let report = self.differences();
        assert!(report.is_empty(), "answers differ (- nginx, + ours)\n{report}");
    }

    /// What differs, as text; empty when nothing does.
    pub fn differences(&self) -> String {
        let reference = self.start(Program::Nginx);
        let subject = self.start(self.subject);
        let mut report = String::new();
        for (bytes, count) in &self.requests {
            self.compare(&reference, &subject, bytes, *count, &mut report);
        }
        report
    }

    /// Sends the bytes to both and adds what differs to the report.
    pub(super) fn compare(
        &self,
        reference: &Server,
        subject: &Server,
        bytes: &[u8],
        count: usize,
        report: &mut String,
    ) {
        let expected = self.answer(reference, bytes, count);
        let found = self.answer(subject, bytes, count);
        if expected != found {
            let _ = writeln!(report, "request {:?}", String::from_utf8_lossy(bytes));
            diff(report, &expected, &found);
        }
    }

    /// The configuration.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The builder with the comparison's files.
    pub(super) fn with_files(&self, builder: Builder) -> Builder {
        self.files.iter().fold(builder, |builder, (path, contents)| builder.file(path, contents))
    }

    fn start(&self, program: Program) -> Server {
        self.with_files(Builder::new(program, &self.text)).start()
    }

    /// The answers as comparable lines.
    fn answer(&self, server: &Server, bytes: &[u8], count: usize) -> Vec<String> {
        let mut client = Client::connect(server.port());
        client.try_send(bytes);
        let mut lines = Vec::new();
        for request in methods(bytes).into_iter().chain(std::iter::repeat("GET".to_owned())).take(count) {
            match client.response_to(&request) {
                Ok(response) => {
                    self.describe(server, &request, &response, &mut lines);
                    let closes =
                        response.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
                    if closes && !response.until_close {
                        match client.response_to("GET") {
                            Err(error) if error.starts_with("closed") => lines.push("(closed)".to_owned()),
                            other => lines.push(format!("(not closed: {other:?})")),
                        }
                        break;
                    }
                }
                Err(error) => {
                    lines.push(format!("(no response: {error})"));
                    break;
                }
            }
        }
        lines
    }

    fn describe(&self, server: &Server, method: &str, response: &Response, lines: &mut Vec<String>) {
        for status in &response.interim {
            lines.push(format!("(interim {status})"));
        }
        lines.push(format!("{} {} {}", response.version, response.status, response.reason));
        let boundary = response
            .header("content-type")
            .and_then(|value| value.split_once("boundary="))
            .map(|(_, boundary)| boundary.to_owned());
        let general = |text: &str| {
            let mut text = text.replace(server.root().to_str().expect("UTF-8"), "{root}");
            text = text.replace(&format!(":{}", server.port()), ":{port}");
            if let Some(boundary) = &boundary {
                text = text.replace(boundary.as_str(), "{boundary}");
            }
            text
        };

        let body = general(&response.text());
        let named = nameless(&body);
        // The page that a HEAD is not sent would name the server too.
        let body_names_server = named != body || method == "HEAD" && response.status >= 300;
        let mut fields = Vec::new();
        for (name, value) in &response.headers {
            let lower = name.to_ascii_lowercase();
            if self.ignored.contains(&lower) {
                continue;
            }
            let length_differs = lower == "content-length" && (body_names_server || self.ignored_bodies);
            fields.push(match lower.as_str() {
                "server" => format!("{name}: {}", nameless(value)),
                _ if length_differs => format!("{name}: {{length}}"),
                _ => format!("{name}: {}", general(value)),
            });
        }
        if !self.strict_order {
            fields.sort();
        }
        lines.extend(fields);
        lines.extend(response.trailers.iter().map(|(name, value)| format!("(trailer) {name}: {value}")));
        lines.push(String::new());
        if !self.ignored_bodies {
            lines.extend(named.lines().map(str::to_owned));
            // Bytes that are not text are compared by their number and sum, so that a difference shows at all.
            let sum = response
                .body
                .iter()
                .fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            if std::str::from_utf8(&response.body).is_err() {
                lines.push(format!("(binary, {} bytes, sum {sum:x})", response.body.len()));
            }
        }
    }
}

/// The text with either program's name and version replaced, so that error pages compare.
fn nameless(text: &str) -> String {
    let mut text = text.to_owned();
    for name in ["nginx", "thalweg"] {
        let mut from = 0;
        while let Some(at) = text[from..].find(name).map(|at| at + from) {
            let after = &text[at + name.len()..];
            let version = if let Some(rest) = after.strip_prefix('/') {
                1 + rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len())
            } else {
                0
            };
            text.replace_range(at..at + name.len() + version, "{server}");
            from = at + "{server}".len();
        }
    }
    text
}

/// The methods of the requests in these bytes: HEAD decides how its response is read.
fn methods(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.split("\r\n").filter(|line| line.contains(" HTTP/1."));
    lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// Both lists with what only one has marked: by the longest common subsequence, for short lists.
fn diff(report: &mut String, left: &[String], right: &[String]) {
    let mut lengths = vec![vec![0usize; right.len() + 1]; left.len() + 1];
    for (i, a) in left.iter().enumerate().rev() {
        for (j, b) in right.iter().enumerate().rev() {
            lengths[i][j] =
                if a == b { lengths[i + 1][j + 1] + 1 } else { lengths[i + 1][j].max(lengths[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < left.len() || j < right.len() {
        if i < left.len() && j < right.len() && left[i] == right[j] {
            let _ = writeln!(report, "    {}", left[i]);
            (i, j) = (i + 1, j + 1);
        } else if j == right.len() || (i < left.len() && lengths[i + 1][j] >= lengths[i][j + 1]) {
            let _ = writeln!(report, "  - {}", left[i]);
            i += 1;
        } else {
            let _ = writeln!(report, "  + {}", right[j]);
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_are_set_aside() {
        assert_eq!(nameless("<center>nginx/1.22.1</center>"), nameless("<center>thalweg/0.1.0</center>"));
        assert_eq!(nameless("thalweg"), "{server}");
    }

    #[test]
    fn a_difference_shows_both_sides() {
        let mut report = String::new();
        diff(&mut report, &["a".into(), "b".into()], &["a".into(), "c".into()]);
        assert_eq!(report, "    a\n  - b\n  + c\n");
    }
}
