//! A world in memory to try the engine in: a configuration, files, and one request after the other.
//!
//! ```text
//! let mut world = World::new("server { location / { root /srv; } }").file("/srv/a.txt", "text");
//! let reply = world.get("/a.txt");
//! assert_eq!((reply.status, reply.text()), (200, "text"));
//! ```
//!
//! The shell's part (looking files up, reading bodies, writing heads) is played here; requests are read and heads are
//! written by the real wire machine.

mod pages;
pub mod upstream;

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::base::clock::{Now, RenderedDates};
use crate::base::log::LogQueue;
use crate::base::password;
use crate::conf::files::MemoryFiles;
use crate::conf::render;
use crate::message::{Fields, RequestHead, ResponseFraming};
use crate::proto::h1::{Connection, Event, HeadLimits, RespondOptions};
use crate::proto::tls::TlsFacts;

use super::body::Body;
use super::build::{BuildOptions, Built, build};
use super::change::{Change, ChangeFailure, Changed};
use super::context::{Context, Env};
use super::exchange::{ConnectionFacts, Endpoint, Exchange, RequestBody};
use super::file::{
    DirectoryEntry, DirectoryListing, FailureReason, FileAnswer, FileCall, FileFailure, FileHandle, FileInfo,
    FileKind, OpenFile, Validators, Want,
};
use super::flow::{Answer, Need, Step};
use super::modules::auth_basic::PasswordAnswer;
use super::modules::headers;
use super::site::{AddressId, SiteHandle};
use super::upstream_call::Call;
use upstream::{PassedOn, Upstream, copy_of};

/// The time that it is: Tue, 14 Nov 2023 22:13:20 GMT.
pub const NOW: i64 = 1_700_000_000;
/// When every file was last changed: Sun, 13 Sep 2020 12:26:40 GMT.
pub const MODIFIED: i64 = 1_600_000_000;

/// What a path leads to.
#[derive(Clone)]
enum Node {
    File(Rc<MemoryFile>, u16),
    Directory,
    Failure(i32),
}

/// See the module's documentation.
pub struct World {
    /// What exchanges borrow; its clock may be set.
    pub env: Env,
    /// The client's end of the connection.
    pub peer: Endpoint,
    /// Our end of the connection.
    pub local: Endpoint,
    /// What the connection's TLS handshake agreed upon; none without TLS.
    pub tls: Option<Rc<TlsFacts>>,
    /// Paths that were asked for by the last request, each with what was wanted.
    pub lookups: Vec<(String, Want)>,
    /// What the last request passed on, oldest first.
    pub calls: Vec<PassedOn>,
    /// The call of the last request as it stood when the response began.
    pub answered_call: Option<Call>,
    /// Changes of files that the last request asked for; none is made.
    pub changes: Vec<Change>,
    /// Subrequests that nobody waits for, in all.
    pub ordered: Vec<crate::http::subrequest::Order>,
    /// What the next change comes to; else something is created.
    pub changed: Option<Result<Changed, ChangeFailure>>,
    /// What upstreams say to the next requests that are passed on.
    answers: VecDeque<Upstream>,
    site: SiteHandle,
    nodes: HashMap<Vec<u8>, Node>,
}

/// What came back.
#[derive(Debug, Default)]
pub struct Reply {
    /// The status; 0 if the connection was closed without an answer.
    pub status: u16,
    /// The head as it was sent.
    pub head: String,
    /// The body, without framing.
    pub body: Vec<u8>,
    /// The trailers, in order.
    pub trailers: Vec<(String, String)>,
    /// Lines for the error log.
    pub log: Vec<String>,
    /// Lines for all access logs.
    pub access: String,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    /// Lines for the error log without what they say of client and request.
    pub fn log_texts(&self) -> Vec<&str> {
        self.log.iter().map(|line| line.split(", client: ").next().unwrap_or(line)).collect()
    }

    /// The values of a field, joined by `|`; empty if there is none.
    pub fn field(&self, name: &str) -> String {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let values: Vec<&str> =
            lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect();
        values.join("|")
    }

    /// Whether the head has such a field.
    pub fn has(&self, name: &str) -> bool {
        self.head
            .lines()
            .any(|line| line.split_once(':').is_some_and(|(other, _)| other.eq_ignore_ascii_case(name)))
    }
}

fn build_http(http: &str, files: MemoryFiles) -> Built {
    build_whole(format!("error_log stderr notice; events {{ }} http {{ {http} }}").into_bytes(), files)
}

/// The site of a whole configuration, with what there is to say about it.
pub fn build_whole(text: Vec<u8>, files: MemoryFiles) -> Built {
    let mut files = files.with("/etc/thalweg/thalweg.conf", text);
    let options = BuildOptions {
        error_log: &crate::conf::log_target::LogTarget::Stderr,
        previous_logs: None,
        previous_tls: None,
        path: "/etc/thalweg/thalweg.conf",
        prefix: "/usr/share/thalweg/",
        command_line: "",
        hostname: b"testhost",
        privileged: true,
        resolve: None,
    };
    build(&mut files, &options)
}

fn told(built: &Built) -> Vec<String> {
    let says = |diagnostic| render::line(diagnostic, &built.sources);
    built.diagnostics.iter().map(says).collect()
}

/// What `-t` says about the content of an `http` block; each line as nginx shows it, without place.
pub fn complaints(http: &str) -> Vec<String> {
    let lines = told(&build_http(http, MemoryFiles::new()));
    lines
        .iter()
        .map(|line| line.strip_prefix("thalweg: ").unwrap_or(line))
        .map(|line| line.rsplit_once(" in /etc/").map_or(line, |(message, _)| message).to_owned())
        .collect()
}

impl World {
    /// A world with the content of an `http` block.
    pub fn new(http: &str) -> World {
        World::with_includes(http, MemoryFiles::new())
    }

    /// The same with files that the configuration includes.
    pub fn with_includes(http: &str, files: MemoryFiles) -> World {
        let built = build_http(http, files);
        let notes = told(&built);
        let Some(site) = built.site else { panic!("{}", notes.join("\n")) };
        let now = Now { monotonic_ms: 1_000_000, wall_secs: NOW, wall_ms_part: 0 };
        let dates = RenderedDates::new(jiff::tz::TimeZone::UTC, now);
        let address = |text: &str| Endpoint::Inet(text.parse::<SocketAddr>().expect("an address"));
        World {
            env: Env::new(now, dates, LogQueue::default(), 1, 4242, b"testhost"),
            peer: address("192.0.2.1:40000"),
            local: address("198.51.100.1:80"),
            tls: None,
            lookups: Vec::new(),
            calls: Vec::new(),
            answered_call: None,
            changes: Vec::new(),
            ordered: Vec::new(),
            changed: None,
            answers: VecDeque::new(),
            site: SiteHandle::new(Arc::new(site)),
            nodes: HashMap::from([(b"/".to_vec(), Node::Directory)]),
        }
    }

    /// Adds a file, and the folders that it lies in.
    #[must_use]
    pub fn file(self, path: &str, content: impl Into<Vec<u8>>) -> World {
        self.file_with_mode(path, content, 0o644)
    }

    /// Adds a file with these permission bits.
    #[must_use]
    pub fn file_with_mode(mut self, path: &str, content: impl Into<Vec<u8>>, mode: u16) -> World {
        let content = content.into();
        let validators = Validators::new(MODIFIED, content.len() as u64);
        self.nodes.insert(path.into(), Node::File(Rc::new(MemoryFile { content, validators }), mode));
        let folder = path.rfind('/').map_or("", |slash| &path[..slash]);
        self.directory(folder)
    }

    /// Adds a folder, and those that it lies in.
    #[must_use]
    pub fn directory(mut self, path: &str) -> World {
        let mut end = path.len();
        while end > 0 {
            self.nodes.insert(path[..end].into(), Node::Directory);
            end = path[..end].rfind('/').unwrap_or(0);
        }
        self
    }

    /// Makes looking at a path fail with this number of the system's errors.
    #[must_use]
    pub fn failing(mut self, path: &str, errno: i32) -> World {
        self.nodes.insert(path.into(), Node::Failure(errno));
        self
    }

    /// `GET target HTTP/1.1` of the host `example.com`.
    pub fn get(&mut self, target: &str) -> Reply {
        self.send(&format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n"))
    }

    /// The same with further field lines, each ending in `\r\n`.
    pub fn get_with(&mut self, target: &str, lines: &str) -> Reply {
        self.send(&format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n{lines}\r\n"))
    }

    /// Sends a request as it is and returns the answer.
    pub fn send(&mut self, request: &str) -> Reply {
        self.lookups.clear();
        self.calls.clear();
        self.changes.clear();
        self.env.logs.clear();
        let mut wire = Connection::new();
        let mut head = RequestHead::default();
        let mut input = request.as_bytes();
        let refusal = match wire.read(
            &mut input,
            &HeadLimits { allow_connect: true, ..HeadLimits::default() },
            &mut head,
        ) {
            Ok(Event::Head) => None,
            Ok(other) => panic!("no whole head in {request:?}: {other:?}"),
            Err(error) => Some(error.status),
        };
        let facts = ConnectionFacts {
            number: 7,
            requests: 1,
            accepted_ms: 0,
            peer: self.peer.clone(),
            local: self.local.clone(),
            proxy_protocol: None,
            secure: self.tls.is_some(),
            lacks_tls: false,
            tls: self.tls.clone(),
        };
        let started = self.env.now.monotonic_ms;
        let mut exchange = Exchange::begin(self.site.clone(), AddressId(0), facts, started, head);
        let mut step = match refusal {
            None => exchange.step(&mut self.env, None),
            Some(status) => exchange.refuse(&mut self.env, status),
        };
        step = self.satisfy(&mut exchange, step, &mut |exchange| {
            let body = read_body(&mut wire, &mut input);
            exchange.request_body_length = body.len() as u64;
            exchange.request_body = RequestBody::Memory(body);
        });
        match step {
            Step::Respond => self.answer(&mut wire, &mut exchange),
            _ => Reply { log: self.log_lines(), ..Reply::default() },
        }
    }

    /// Gives an exchange what it needs until it has a response, or has none.
    fn satisfy(
        &mut self,
        exchange: &mut Exchange,
        mut step: Step,
        read_body: &mut dyn FnMut(&mut Exchange),
    ) -> Step {
        // More needs than this for one request are a loop without an end.
        for _ in 0..200 {
            for order in std::mem::take(&mut exchange.background) {
                self.ordered.push(order);
            }
            let answer = match step {
                Step::Respond | Step::Close => return step,
                Step::Need(Need::File(want)) => Answer::File(self.look(&exchange.path, want)),
                Step::Need(Need::Directory) => Answer::Directory(self.list(&exchange.path)),
                Step::Need(Need::RequestBody) => {
                    read_body(exchange);
                    Answer::RequestBody(Ok(()))
                }
                Step::Need(Need::Subrequest) => Answer::Subrequest(self.serve_subrequest(exchange)),
                Step::Need(Need::Upstream) => Answer::Upstream(self.pass_on(exchange)),
                Step::Need(Need::Password) => Answer::Password(self.check_password(exchange)),
                Step::Need(Need::Read) => Answer::Read(exchange.reading.take().map(|range| {
                    let content = range.handle.content().expect("content in memory");
                    let start = content.len().min(range.offset as usize);
                    // Never all at once, so that handlers ask again.
                    content[start..content.len().min(start + (range.length as usize).min(1000))].to_vec()
                })),
                Step::Need(Need::Change) => {
                    let change = exchange.notes.dav.take_change().expect("a change");
                    self.changes.push(change);
                    Answer::Change(self.changed.take().unwrap_or(Ok(Changed::Created)))
                }
                Step::Need(Need::Delay(ms)) => {
                    self.env.now.monotonic_ms += ms;
                    Answer::Delay
                }
            };
            step = exchange.step(&mut self.env, Some(answer));
        }
        panic!("{exchange:?} has no end");
    }

    fn serve_subrequest(&mut self, exchange: &mut Exchange) -> Option<Box<Exchange>> {
        let order = *exchange.order.take().expect("an order");
        let (site, facts) = (self.site.clone(), exchange.connection.clone());
        let mut new = Exchange::begin(site, AddressId(0), facts, 0, RequestHead::default());
        new.begin_subrequest(exchange, order, self.env.now.monotonic_ms);
        let step = new.step(&mut self.env, None);
        let step = self.satisfy(&mut new, step, &mut |_| {});
        matches!(step, Step::Respond).then(|| Box::new(new))
    }

    fn answer(&mut self, wire: &mut Connection, exchange: &mut Exchange) -> Reply {
        let site = self.site.clone();
        self.answered_call = exchange.upstream.as_ref().and_then(|passed| passed.call.as_ref()).map(copy_of);
        let mut head = Vec::new();
        let options = RespondOptions {
            date: self.env.dates.http_date(),
            keep_alive_allowed: exchange.keep_alive,
            keep_alive_header: None,
            chunked_allowed: site.settings(exchange.location).core.chunked_transfer_encoding,
            trailers_expected: false,
            upgrade: exchange.upstream.as_ref().is_some_and(|passed| passed.switched),
        };
        let framing = wire.respond(&exchange.response, &options, &mut head);
        let body = match framing {
            ResponseFraming::None => Vec::new(),
            _ => self.body_of(exchange),
        };
        let mut trailers = Fields::default();
        if framing == ResponseFraming::Streamed {
            headers::trailers(exchange, &mut Context { site: &site, env: &mut self.env }, &mut trailers);
            exchange.pass_trailers(&mut trailers);
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Reply {
            status: exchange.response.status.0,
            head: text(&head),
            body,
            trailers: trailers.iter().map(|(_, name, value)| (text(name), text(value))).collect(),
            log: self.log_lines(),
            access: self.access_lines(exchange),
        }
    }

    fn access_lines(&mut self, exchange: &mut Exchange) -> String {
        exchange.log_access(&mut self.env);
        let lines = self.env.access.sinks().flat_map(|(_, lines)| lines.text.clone()).collect();
        self.env.access.clear();
        String::from_utf8(lines).expect("lines of text")
    }

    fn log_lines(&self) -> Vec<String> {
        let line = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        self.env
            .logs
            .messages()
            .map(|message| format!("[{}] {}", message.level.name(), line(message.text)))
            .collect()
    }

    fn check_password(&self, exchange: &Exchange) -> PasswordAnswer {
        let question = exchange.notes.password.as_deref().expect("a question");
        let file = match self.nodes.get(&question.path) {
            Some(Node::File(file, _)) => &file.content,
            Some(Node::Failure(errno)) => return PasswordAnswer::Failed(*errno),
            _ => return PasswordAnswer::Failed(2),
        };
        match password::find_hash(file, &question.user) {
            None => PasswordAnswer::UnknownUser,
            Some(hash) => PasswordAnswer::of(password::check(hash, &question.password)),
        }
    }

    fn look(&mut self, path: &[u8], want: Want) -> FileAnswer {
        self.lookups.push((String::from_utf8_lossy(path).into_owned(), want));
        let (plain, wants_folder) = match path {
            [rest @ .., b'/'] if !rest.is_empty() => (rest, true),
            path => (path, false),
        };
        let under_a_file = || {
            let mut ends = (1..plain.len()).filter(|end| plain[*end] == b'/');
            ends.any(|end| matches!(self.nodes.get(&plain[..end]), Some(Node::File(..))))
        };
        let failure = |errno| {
            let call = if want == Want::Open { FileCall::Open } else { FileCall::Stat };
            let reason = match errno {
                2 | 20 | 36 => FailureReason::NotFound,
                13 | 40 => FailureReason::Forbidden,
                _ => FailureReason::Internal,
            };
            FileAnswer::Failed(FileFailure { call, errno, reason })
        };
        let info = |kind, size, mode| FileInfo { kind, size, modified_secs: MODIFIED, mode, handle: None };
        match self.nodes.get(plain) {
            None if under_a_file() => failure(20),
            None => failure(2),
            Some(Node::Failure(errno)) => failure(*errno),
            Some(Node::Directory) => FileAnswer::Found(info(FileKind::Directory, 4096, 0o755)),
            Some(Node::File(..)) if wants_folder => failure(20),
            Some(Node::File(_, mode)) if want == Want::Open && mode & 0o444 == 0 => failure(13),
            Some(Node::File(file, mode)) => {
                let mut info = info(FileKind::File, file.content.len() as u64, *mode);
                info.handle = (want == Want::Open).then(|| FileHandle::new(file.clone()));
                FileAnswer::Found(info)
            }
        }
    }

    fn list(&self, path: &[u8]) -> Result<DirectoryListing, FileFailure> {
        let plain = path.strip_suffix(b"/").filter(|rest| !rest.is_empty()).unwrap_or(path);
        let failure = |errno, reason| Err(FileFailure { call: FileCall::OpenDirectory, errno, reason });
        match self.nodes.get(plain) {
            Some(Node::Directory) => {}
            None => return failure(2, FailureReason::NotFound),
            Some(Node::File(..)) => return failure(20, FailureReason::NotFound),
            Some(Node::Failure(13)) => return failure(13, FailureReason::Forbidden),
            Some(Node::Failure(errno)) => return failure(*errno, FailureReason::Internal),
        }
        let folder = [plain.strip_suffix(b"/").unwrap_or(plain), b"/"].concat();
        let mut listing = DirectoryListing::default();
        for (path, node) in &self.nodes {
            let Some(name) = path.strip_prefix(&*folder) else { continue };
            let (kind, size) = match node {
                _ if name.is_empty() || name.contains(&b'/') => continue,
                Node::File(file, _) => (FileKind::File, file.content.len() as u64),
                Node::Directory => (FileKind::Directory, 4096),
                Node::Failure(_) => (FileKind::Other, 0),
            };
            listing.entries.push(DirectoryEntry { name: name.to_vec(), kind, size, modified_secs: MODIFIED });
        }
        Ok(listing)
    }
}

fn read_body(wire: &mut Connection, input: &mut &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut unused = RequestHead::default();
    loop {
        match wire.read(input, &HeadLimits::default(), &mut unused) {
            Ok(Event::Body(bytes)) => body.extend_from_slice(bytes),
            Ok(Event::NeedMore) => panic!("the request's body is not all there"),
            _ => return body,
        }
    }
}

fn append_body(body: &Body, out: &mut Vec<u8>) {
    match body {
        Body::Empty | Body::Upstream(_) => {}
        Body::Static(bytes) => out.extend_from_slice(bytes),
        Body::Shared { bytes, offset } => out.extend_from_slice(&bytes[*offset..]),
        Body::Bytes(bytes) => out.extend_from_slice(bytes),
        Body::File(range) => {
            let content = range.handle.content().expect("files of these tests are in memory");
            out.extend_from_slice(&content[range.offset as usize..(range.offset + range.length) as usize]);
        }
        Body::Pieces(pieces) => pieces.iter().rev().for_each(|piece| append_body(piece, out)),
    }
}

/// A file whose content is in memory.
struct MemoryFile {
    content: Vec<u8>,
    validators: Validators,
}

impl OpenFile for MemoryFile {
    fn content(&self) -> Option<&[u8]> {
        Some(&self.content)
    }

    fn validators(&self) -> &Validators {
        &self.validators
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
