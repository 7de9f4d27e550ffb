//! What was asked, what upstreams saw of it and what clients got: the laws are checked against it.

use std::borrow::Cow;

use super::dice::{Dice, files};

/// What went wrong, for the message.
macro_rules! law {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}
pub(super) use law;

/// Which part of the configuration a request is for, by the first letter of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Passed on as it is.
    Plain,
    /// A static file.
    File,
    /// A static file, compressed.
    ZippedFile,
    /// Passed on, the answer compressed.
    Zipped,
    /// Passed on, words of the answer replaced.
    Substituted,
    /// Both, in that order.
    SubstitutedZipped,
    /// A page that includes another one of an upstream, and a file.
    Including,
    /// An upstream is asked for leave first.
    Guarded,
    /// An upstream gets a copy.
    Mirrored,
    /// Between two files.
    Framed,
    /// Passed on by `grpc_pass`.
    Called,
}

impl Kind {
    const ALL: &[Kind] = &[
        Kind::Plain,
        Kind::Plain,
        Kind::File,
        Kind::ZippedFile,
        Kind::Zipped,
        Kind::Substituted,
        Kind::SubstitutedZipped,
        Kind::Including,
        Kind::Guarded,
        Kind::Mirrored,
        Kind::Framed,
        // Only for upstreams that speak HTTP/2.
        Kind::Called,
    ];

    /// Whether it is for a static file.
    fn is_file(self) -> bool {
        matches!(self, Kind::File | Kind::ZippedFile)
    }

    /// The first part of the path.
    fn letter(self) -> char {
        match self {
            Kind::Plain => 'r',
            Kind::File => 's',
            Kind::ZippedFile => 't',
            Kind::Zipped => 'z',
            Kind::Substituted => 'f',
            Kind::SubstitutedZipped => 'g',
            Kind::Including => 'i',
            Kind::Guarded => 'q',
            Kind::Mirrored => 'm',
            Kind::Framed => 'a',
            Kind::Called => 'p',
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
        }
    }
}

/// What an upstream is asked for on behalf of a client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The request itself.
    Main,
    /// A piece of its response.
    Piece,
    /// Leave to go on with it.
    Check,
    /// Nothing: it is a copy.
    Mirror,
}

/// A client's request.
pub struct Record {
    pub kind: Kind,
    pub method: Method,
    pub body: &'static [u8],
    /// The body that an upstream answers with.
    pub content: &'static [u8],
    /// The number of its file.
    file: usize,
    /// The body of what subrequests ask upstreams for.
    pub piece: &'static [u8],
    /// Upstreams say no when they are asked for leave.
    pub is_denied: bool,
    /// An upstream said yes.
    was_allowed: bool,
    /// How often an upstream got all of it, and did not say that it left it alone; and all of its copy.
    whole: u32,
    copies: u32,
    status: Option<u16>,
    complete: bool,
}

/// A response as a client has it so far.
#[derive(Debug, Default)]
pub struct Receipt {
    pub status: u16,
    pub id: Option<Vec<u8>>,
    /// Its body is compressed.
    pub is_zipped: bool,
    pub body: Vec<u8>,
}

/// See the module's documentation.
pub struct Ledger {
    /// Peers fail in this seed.
    pub faults: bool,
    /// What is not idempotent may be sent again.
    pub may_repeat: bool,
    /// Upstreams speak HTTP/2.
    pub calls: bool,
    records: Vec<Record>,
}

impl Ledger {
    pub fn new(faults: bool, may_repeat: bool, calls: bool) -> Ledger {
        Ledger { faults, may_repeat, calls, records: Vec::new() }
    }

    /// One more request; its number, from 1.
    pub fn ask(&mut self, dice: &mut Dice) -> usize {
        let kind = *dice.pick(&Kind::ALL[..Kind::ALL.len() - usize::from(!self.calls)]);
        let methods = &[Method::Get, Method::Get, Method::Head, Method::Post, Method::Post];
        let method = *dice.pick(if kind.is_file() { &methods[..3] } else { methods });
        let body = if method == Method::Post { dice.body() } else { b"" };
        let file = dice.below(files().len());
        let content = if kind.is_file() { files()[file] } else { dice.body() };
        self.records.push(Record {
            kind,
            method,
            body,
            content,
            file,
            piece: dice.body(),
            is_denied: kind == Kind::Guarded && dice.one_in(3),
            was_allowed: false,
            whole: 0,
            copies: 0,
            status: None,
            complete: false,
        });
        self.records.len()
    }

    pub fn record(&self, id: usize) -> &Record {
        &self.records[id - 1]
    }

    fn record_mut(&mut self, id: usize) -> &mut Record {
        &mut self.records[id - 1]
    }

    /// The target of a request.
    pub fn target(&self, id: usize) -> String {
        let record = self.record(id);
        let letter = record.kind.letter();
        match record.kind {
            Kind::File | Kind::ZippedFile => format!("/{letter}/{}?id={id}", record.file),
            _ => format!("/{letter}/{id}"),
        }
    }

    /// Whose request an upstream was sent.
    pub fn recognise(&self, target: &[u8], method: &[u8]) -> Result<(usize, Role), String> {
        let shown = String::from_utf8_lossy(target);
        let number = target.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &target[at + 1..]);
        let id = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        law!((1..=self.records.len()).contains(&id), "an upstream was sent a request of nobody: {shown}");
        let record = self.record(id);
        let (role, kind, expected) = match target.get(..3) {
            Some(b"/n/") => (Role::Piece, Kind::Including, format!("/n/{id}")),
            Some(b"/ch") => (Role::Check, Kind::Guarded, format!("/check{}", self.target(id))),
            Some(b"/mi") => (Role::Mirror, Kind::Mirrored, format!("/mirror{}", self.target(id))),
            _ => (Role::Main, record.kind, self.target(id)),
        };
        law!(shown == expected && record.kind == kind, "request {id}: an upstream was sent {shown}");
        if role == Role::Main {
            law!(method == record.method.name().as_bytes(), "request {id}: its method became {method:?}");
            let is_allowed = record.kind != Kind::Guarded || record.was_allowed;
            law!(is_allowed, "request {id} went on without leave");
        }
        Ok((id, role))
    }

    /// An upstream has a whole request.
    pub fn request_is_whole(&mut self, id: usize, role: Role, body: &[u8]) -> Result<(), String> {
        let record = self.record_mut(id);
        let expected = match role {
            Role::Main | Role::Mirror => record.body,
            Role::Piece | Role::Check => b"",
        };
        law!(
            body == expected,
            "request {id}: an upstream got {} bytes of a body of {}",
            body.len(),
            expected.len()
        );
        match role {
            Role::Main => record.whole += 1,
            Role::Mirror => record.copies += 1,
            Role::Piece | Role::Check => {}
        }
        Ok(())
    }

    /// An upstream answers the request for leave.
    pub fn note_leave(&mut self, id: usize) {
        let record = self.record_mut(id);
        record.was_allowed |= !record.is_denied;
    }

    /// The final head of a response.
    pub fn take_head(&mut self, id: usize, receipt: &Receipt) -> Result<(), String> {
        let (faults, record) = (self.faults, self.record_mut(id));
        law!(record.status.is_none(), "request {id} got a second response");
        let status = receipt.status;
        record.status = Some(status);
        let good = if record.is_denied { 403 } else { 200 };
        let is_possible = status == good || faults && matches!(status, 400 | 408 | 499 | 500 | 502..=504);
        law!(is_possible, "request {id} ({:?}): status {status}, faults {faults}", record.kind);
        let is_own = receipt.id.as_deref() == Some(id.to_string().as_bytes());
        law!(status != 200 || is_own, "request {id} got the response of {:?}", receipt.id);
        Ok(())
    }

    /// A response that is framed as complete is there.
    pub fn take_end(&mut self, id: usize, receipt: &Receipt) -> Result<(), String> {
        let (faults, record) = (self.faults, self.record_mut(id));
        record.complete = true;
        let is_head = record.method == Method::Head;
        law!(!is_head || receipt.body.is_empty(), "request {id}: a body behind the head");
        if receipt.status == 200 && !is_head {
            let body = match receipt.is_zipped {
                true => unzip(&receipt.body).ok_or_else(|| format!("request {id}: gzip is cut or broken"))?,
                false => receipt.body.clone(),
            };
            let is_good = record.is_content(&body) || faults && record.is_content_of_faults(&body);
            law!(
                is_good,
                "request {id} ({:?}): {} bytes {:?}... instead of {:?} with {:?}...",
                record.kind,
                body.len(),
                String::from_utf8_lossy(&body[..body.len().min(300)]),
                record.content.len(),
                String::from_utf8_lossy(&record.content[..record.content.len().min(100)])
            );
        }
        Ok(())
    }

    /// How many requests there were, and how many got all of a good response.
    pub fn tally(&self) -> (usize, usize) {
        let is_good = |record: &&Record| record.complete && matches!(record.status, Some(200 | 403));
        (self.records.len(), self.records.iter().filter(is_good).count())
    }

    /// What must hold of all requests in the end.
    pub fn check(&self) -> Result<(), String> {
        for (record, id) in self.records.iter().zip(1..) {
            let may_repeat = record.method != Method::Post || record.body.is_empty() || self.may_repeat;
            let times = (record.whole, record.copies);
            law!(
                may_repeat || times.0 <= 1 && times.1 <= 1,
                "the body of request {id} and its copy were received {times:?} times"
            );
        }
        Ok(())
    }
}

impl Record {
    /// What an upstream answers.
    pub fn page(&self, id: usize) -> Cow<'static, [u8]> {
        match self.kind {
            Kind::Including => {
                let head = format!(
                    "<!--#include virtual=\"/n/{id}\" -->|<!--#include virtual=\"/s/1?id={id}\" -->|"
                );
                Cow::Owned([head.as_bytes(), self.content].concat())
            }
            _ => Cow::Borrowed(self.content),
        }
    }

    /// Whether this is the body of its response.
    fn is_content(&self, body: &[u8]) -> bool {
        let is_all = |parts: &[&[u8]]| {
            let rest = parts.iter().try_fold(body, |rest, part| rest.strip_prefix(*part));
            rest.is_some_and(<[u8]>::is_empty)
        };
        match self.kind {
            Kind::Substituted | Kind::SubstitutedZipped => {
                let text = std::str::from_utf8(self.content).unwrap_or_default();
                text.replace("reed ", "bulrushes").as_bytes() == body
            }
            Kind::Including => is_all(&[self.piece, b"|", files()[1], b"|", self.content]),
            Kind::Framed => is_all(&[files()[1], self.content, files()[2]]),
            _ => body == self.content,
        }
    }

    /// Whether this is what it becomes when something that it includes failed.
    fn is_content_of_faults(&self, body: &[u8]) -> bool {
        let tail = [b"|", files()[1], b"|", self.content].concat();
        let piece = body.strip_suffix(&tail[..]).filter(|_| self.kind == Kind::Including);
        piece.is_some_and(|piece| {
            piece.starts_with(b"<html>") && piece.ends_with(b"</html>\r\n")
                || piece == b"busy"
                || piece == b"[an error occurred while processing the directive]"
        })
    }
}

/// What was compressed; `None` if it is cut or broken.
fn unzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut inflate = zlib_rs::Inflate::new(true, 31);
    let (mut content, mut buffer) = (Vec::new(), [0; 8 * 1024]);
    loop {
        let (taken, given) = (inflate.total_in() as usize, inflate.total_out());
        let flush = zlib_rs::InflateFlush::NoFlush;
        let status = inflate.decompress(&bytes[taken..], &mut buffer, flush).ok()?;
        let count = (inflate.total_out() - given) as usize;
        content.extend_from_slice(&buffer[..count]);
        let is_all = inflate.total_in() as usize == bytes.len();
        match status {
            zlib_rs::Status::StreamEnd => return is_all.then_some(content),
            _ if is_all && count == 0 => return None,
            _ => {}
        }
    }
}
