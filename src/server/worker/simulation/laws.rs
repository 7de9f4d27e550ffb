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
}

impl Kind {
    const ALL: &[Kind] = &[Kind::Plain, Kind::Plain, Kind::File];

    /// The first part of the path.
    fn letter(self) -> char {
        match self {
            Kind::Plain => 'r',
            Kind::File => 's',
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
    /// How often an upstream got all of it, and did not say that it left it alone.
    whole: u32,
    status: Option<u16>,
    complete: bool,
}

/// A response as a client has it so far.
#[derive(Debug, Default)]
pub struct Receipt {
    pub status: u16,
    pub id: Option<Vec<u8>>,
    pub body: Vec<u8>,
}

/// See the module's documentation.
pub struct Ledger {
    /// Peers fail in this seed.
    pub faults: bool,
    /// What is not idempotent may be sent again.
    pub may_repeat: bool,
    records: Vec<Record>,
}

impl Ledger {
    pub fn new(faults: bool, may_repeat: bool) -> Ledger {
        Ledger { faults, may_repeat, records: Vec::new() }
    }

    /// One more request; its number, from 1.
    pub fn ask(&mut self, dice: &mut Dice) -> usize {
        let kind = *dice.pick(Kind::ALL);
        let methods = &[Method::Get, Method::Get, Method::Head, Method::Post, Method::Post];
        let method = *dice.pick(if kind == Kind::File { &methods[..3] } else { methods });
        let body = if method == Method::Post { dice.body() } else { b"" };
        let file = dice.below(files().len());
        let content = if kind == Kind::File { files()[file] } else { dice.body() };
        let record = Record { kind, method, body, content, file, whole: 0, status: None, complete: false };
        self.records.push(record);
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
            Kind::File => format!("/{letter}/{}?id={id}", record.file),
            _ => format!("/{letter}/{id}"),
        }
    }

    /// Whose request an upstream was sent.
    pub fn recognise(&self, target: &[u8], method: &[u8]) -> Result<(usize, Role), String> {
        let shown = String::from_utf8_lossy(target);
        let number = target.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &target[at + 1..]);
        let id = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        law!((1..=self.records.len()).contains(&id), "an upstream was sent a request of nobody: {shown}");
        let role = Role::Main;
        let record = self.record(id);
        law!(shown == self.target(id), "request {id}: an upstream was sent {shown}");
        law!(method == record.method.name().as_bytes(), "request {id}: its method became {method:?}");
        Ok((id, role))
    }

    /// An upstream has a whole request.
    pub fn request_is_whole(&mut self, id: usize, role: Role, body: &[u8]) -> Result<(), String> {
        let record = self.record_mut(id);
        let expected = match role {
            Role::Main => record.body,
        };
        law!(
            body == expected,
            "request {id}: an upstream got {} bytes of a body of {}",
            body.len(),
            expected.len()
        );
        record.whole += 1;
        Ok(())
    }

    /// The final head of a response.
    pub fn take_head(&mut self, id: usize, receipt: &Receipt) -> Result<(), String> {
        let (faults, record) = (self.faults, self.record_mut(id));
        law!(record.status.is_none(), "request {id} got a second response");
        let status = receipt.status;
        record.status = Some(status);
        law!(matches!(status, 200 | 400 | 408 | 499 | 502 | 503 | 504), "request {id}: status {status}");
        law!(faults || status == 200, "request {id}: {status} without any fault");
        let is_own = receipt.id.as_deref() == Some(id.to_string().as_bytes());
        law!(status != 200 || is_own, "request {id} got the response of {:?}", receipt.id);
        Ok(())
    }

    /// A response that is framed as complete is there.
    pub fn take_end(&mut self, id: usize, receipt: &Receipt) -> Result<(), String> {
        let record = self.record_mut(id);
        record.complete = true;
        if receipt.status == 200 {
            let expected =
                if record.method == Method::Head { Cow::Borrowed(&b""[..]) } else { record.expected() };
            law!(
                receipt.body == *expected,
                "request {id} ({:?}): {} bytes as if they were all {}",
                record.kind,
                receipt.body.len(),
                expected.len()
            );
        }
        Ok(())
    }

    /// How many requests there were, and how many got all of a good response.
    pub fn tally(&self) -> (usize, usize) {
        let is_good = |record: &&Record| record.complete && record.status == Some(200);
        (self.records.len(), self.records.iter().filter(is_good).count())
    }

    /// What must hold of all requests in the end.
    pub fn check(&self) -> Result<(), String> {
        for (record, id) in self.records.iter().zip(1..) {
            law!(
                record.method != Method::Post
                    || record.body.is_empty()
                    || record.whole <= 1
                    || self.may_repeat,
                "the body of request {id} was received {} times",
                record.whole
            );
        }
        Ok(())
    }
}

impl Record {
    /// The body of its response.
    fn expected(&self) -> Cow<'static, [u8]> {
        match self.kind {
            Kind::Plain | Kind::File => Cow::Borrowed(self.content),
        }
    }
}
