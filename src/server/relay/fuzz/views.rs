//! What an upstream and a client make of the bytes that they get, read by strict machines, and the laws about it.

use crate::http::upstream_call::{Call, CallBody};
use crate::message::{FieldName, Fields, Method, RequestHead, ResponseHead, Version};
use crate::proto::h1::{self, HeadLimits, ResponseEvent, ResponseLimits, ResponseReader};

/// Field lines, names in lower case.
type Lines = Vec<(String, String)>;

/// Fields that are about one connection (RFC 9110 section 7.6.1).
const BETWEEN_NEIGHBOURS: [&str; 3] = ["keep-alive", "proxy-connection", "te"];

/// Lines of a request that we write ourselves, whatever the client's Connection names.
const OURS_IN_REQUESTS: [&str; 7] =
    ["host", "connection", "upgrade", "content-length", "transfer-encoding", "x-forwarded-for", "x-said"];

/// The same of a response.
const OURS_IN_RESPONSES: [&str; 8] = [
    "server",
    "date",
    "connection",
    "upgrade",
    "content-length",
    "transfer-encoding",
    "accept-ranges",
    "content-range",
];

/// What one exchange came to on both sides.
#[derive(Debug, PartialEq, Eq)]
pub struct Spoken {
    /// The requests that upstreams got.
    pub passed: Vec<Passed>,
    /// What the client got.
    pub answered: Answered,
}

/// What of a client's head decides about the rest.
pub struct Asked {
    version: Version,
    is_head: bool,
    asks_upgrade: bool,
    /// Names in its Connection, in lower case.
    nominated: Vec<String>,
}

impl Asked {
    /// Takes it from a head.
    pub fn by(head: &RequestHead) -> Asked {
        let nominated = nominated(&head.fields);
        Asked {
            version: head.version,
            is_head: head.method == Method::Head,
            asks_upgrade: head.version == Version::Http11
                && head.has(FieldName::Upgrade)
                && nominated.iter().any(|name| name == "upgrade"),
            nominated,
        }
    }
}

/// The names in a message's Connection fields, in lower case.
pub fn nominated(fields: &Fields) -> Vec<String> {
    let members = fields.all(FieldName::Connection).flat_map(|value| value.split(|byte| *byte == b','));
    members.map(|member| text(member.trim_ascii()).to_ascii_lowercase()).collect()
}

/// Whether no line has one of these names.
pub fn lacks(fields: &Fields, names: &[String]) -> bool {
    !lines(fields).iter().any(|(name, _)| names.contains(name))
}

/// A request as an upstream got it.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed {
    method: String,
    target: String,
    lines: Lines,
    body: Vec<u8>,
}

impl Passed {
    /// Reads what was sent for a call, which is one well-formed request; `is_whole` says that all of it was sent, and
    /// `body` is what the client has sent of its own.
    pub fn read(sent: &[u8], is_whole: bool, call: &Call, asked: &Asked, body: &[u8]) -> Passed {
        let limits = HeadLimits {
            header_buffer: 1 << 20,
            max_headers: 100_000,
            ignore_invalid_headers: false,
            underscores_in_headers: true,
            ..HeadLimits::default()
        };
        let shown = || sent.escape_ascii();
        let mut wire = h1::Connection::new();
        let mut head = RequestHead::default();
        let mut input = sent;
        assert_eq!(wire.read(&mut input, &limits, &mut head), Ok(h1::Event::Head), "{}", shown());
        let mut received = Vec::new();
        let is_complete = loop {
            match wire.read(&mut input, &limits, &mut RequestHead::default()) {
                Ok(h1::Event::Body(bytes)) => received.extend_from_slice(bytes),
                Ok(h1::Event::BodyEnd | h1::Event::Paused) => break true,
                Ok(h1::Event::NeedMore) => break false,
                other => panic!("{other:?} in {}", shown()),
            }
        };
        assert!(input.is_empty(), "more than one request: {}", shown());
        assert_eq!(is_complete, is_whole, "{}", shown());
        match &call.body {
            CallBody::None => assert!(received.is_empty(), "{}", shown()),
            CallBody::Bytes(bytes) => assert_eq!(received, *bytes),
            CallBody::Read | CallBody::Streamed { .. } => assert_eq!(received, body),
        }
        assert_eq!(call.is_head, head.method == Method::Head);

        let lines = lines(&head.fields);
        let count = |wanted: &str| lines.iter().filter(|(name, _)| name == wanted).count();
        assert_eq!(count("host"), 1, "{}", shown());
        assert!(count("content-length") + count("transfer-encoding") <= 1, "{}", shown());
        assert!(count("connection") <= 1 && count("upgrade") <= 1, "{}", shown());
        for (name, value) in &lines {
            assert!(!BETWEEN_NEIGHBOURS.contains(&&name[..]) && name != "trailer", "{}", shown());
            match &name[..] {
                "connection" => {
                    assert!(value == "close" || value == "upgrade" && asked.asks_upgrade, "{}", shown())
                }
                "upgrade" => assert!(asked.asks_upgrade && count("connection") == 1, "{}", shown()),
                name if OURS_IN_REQUESTS.contains(&name) => {}
                _ => assert!(!asked.nominated.contains(name), "{name} passes: {}", shown()),
            }
        }
        let (method, target) = (text(head.text(head.method_text)), text(head.target()));
        Passed { method, target, lines, body: received }
    }

    /// Method, target and body.
    #[cfg(test)]
    pub fn start(&self) -> (&str, &str, &[u8]) {
        (&self.method, &self.target, &self.body)
    }
}

/// What the client got.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answered {
    interim: Vec<(u16, Lines)>,
    head: Option<(u16, String, Lines)>,
    body: Vec<u8>,
    trailers: Lines,
    is_complete: bool,
}

impl Answered {
    /// Reads what was sent to the client. `source` is the upstream's head, where its response is what was passed on;
    /// `is_whole` says that the response came to its end.
    pub fn read(sent: &[u8], asked: &Asked, source: Option<&ResponseHead>, is_whole: bool) -> Answered {
        let mut answered = Answered::default();
        if asked.version == Version::Http09 {
            // Nothing but a body.
            return Answered { body: sent.to_vec(), is_complete: is_whole, ..answered };
        }
        let shown = || sent.escape_ascii();
        let limits = ResponseLimits { interim_responses: u8::MAX, ..ResponseLimits::default() };
        let mut reader = ResponseReader::new(limits);
        reader.begin(h1::Asked {
            head: asked.is_head,
            upgrade: asked.asks_upgrade,
            connect: false,
            head_bytes: 1 << 20,
        });
        let mut head = ResponseHead::default();
        let mut input = sent;
        answered.is_complete = loop {
            match reader.read(&mut input, &mut head) {
                Ok(ResponseEvent::Interim) => answered.interim.push((head.status.0, lines(&head.fields))),
                Ok(ResponseEvent::Head(_)) => {
                    let reason = head.reason.map_or(String::new(), |span| text(head.text(span)));
                    answered.head = Some((head.status.0, reason, lines(&head.fields)));
                }
                Ok(ResponseEvent::Body(bytes)) => answered.body.extend_from_slice(bytes),
                Ok(ResponseEvent::Trailers) => {
                    let mut fields = Fields::default();
                    reader.trailers(&mut fields);
                    answered.trailers = lines(&fields);
                }
                Ok(ResponseEvent::End) => break true,
                // What is cut short where only the end of the connection tells is reset.
                Ok(ResponseEvent::NeedMore) if is_whole => break reader.end_of_input().is_ok(),
                Ok(ResponseEvent::NeedMore) => break reader.reset().is_ok(),
                Err(error) => panic!("{error}: {}", shown()),
            }
        };
        assert!(input.is_empty(), "more than one response: {}", shown());
        assert_eq!(answered.is_complete, is_whole, "{}", shown());
        answered.check(asked, source, &shown().to_string());
        answered
    }

    /// Status, body, and whether it is complete.
    #[cfg(test)]
    pub fn summary(&self) -> (Option<u16>, &[u8], bool) {
        (self.head.as_ref().map(|(status, ..)| *status), &self.body, self.is_complete)
    }

    fn check(&self, asked: &Asked, source: Option<&ResponseHead>, shown: &str) {
        let nominated = source.map_or(Vec::new(), |head| nominated(&head.fields));
        let Some((status, _, lines)) = &self.head else { return };
        for (name, _) in self.interim.iter().flat_map(|(_, lines)| lines).chain(&self.trailers) {
            let about_connection = ["connection", "upgrade", "transfer-encoding", "content-length"];
            assert!(!about_connection.contains(&&name[..]), "{name}: {shown}");
        }
        let all = self.interim.iter().flat_map(|(_, lines)| lines).chain(&self.trailers).chain(lines);
        for (name, _) in all {
            assert!(!BETWEEN_NEIGHBOURS.contains(&&name[..]), "{name} passes: {shown}");
        }
        let count = |wanted: &str| lines.iter().filter(|(name, _)| name == wanted).count();
        assert_eq!(count("connection"), 1, "{shown}");
        assert!(count("content-length") + count("transfer-encoding") <= 1, "{shown}");
        assert!(count("date") <= 1 || source.is_some(), "{shown}");
        for (name, value) in lines.iter().chain(&self.trailers) {
            match &name[..] {
                "connection" => assert!(
                    matches!(&value[..], "keep-alive" | "close") && *status != 101
                        || value == "upgrade" && *status == 101,
                    "{shown}"
                ),
                "upgrade" => assert!(*status == 101 && asked.asks_upgrade, "{shown}"),
                name if OURS_IN_RESPONSES.contains(&name) => {}
                _ => assert!(!nominated.contains(name), "{name} passes: {shown}"),
            }
        }
        if asked.is_head || matches!(status, 204 | 304) {
            assert!(self.body.is_empty() && count("transfer-encoding") == 0, "{shown}");
        }
        assert!(*status != 204 || count("content-length") == 0, "{shown}");
        assert!(*status != 101 || asked.asks_upgrade, "{shown}");
        if asked.version == Version::Http10 {
            assert!(self.interim.is_empty() && count("transfer-encoding") == 0, "{shown}");
        }
    }
}

fn lines(fields: &Fields) -> Lines {
    fields.iter().map(|(_, name, value)| (text(name).to_ascii_lowercase(), text(value))).collect()
}

/// Bytes as they would be written in a program, so that all of them can be told apart.
fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
