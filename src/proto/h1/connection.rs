//! One client connection: reading requests, framing responses.

use crate::message::{
    Fields, Method, RequestFraming, RequestHead, ResponseFraming, ResponseHead, Status, Version,
};

use super::chunked::{ChunkedDecoder, ChunkedItem};
use super::encode::{self, RespondOptions};
use super::error::RequestError;
use super::head::{self, PartialHead, Progress};
use super::limits::HeadLimits;
use super::persistence::{self, After, BodyProgress, RequestFacts};

/// Most bytes that may be put away by [`Connection::hold`]: what one read of the shell can bring, twice.
pub const HOLD_LIMIT: usize = 256 * 1024;

/// What `read` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The input is used up: feed more.
    NeedMore,
    /// The head that was passed is filled.
    Head,
    /// A piece of the body, never empty; it lies in the input.
    Body(&'a [u8]),
    /// The body is complete. Comes once, and only where the head announced a body.
    BodyEnd,
    /// This request is read whole (or was refused): nothing is taken before `next_request`.
    Paused,
}

/// Bytes that could not be put away: the caller reads faster than it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldFull;

#[derive(Clone, Copy, Debug)]
enum Reading {
    /// Before or within a head.
    Head,
    /// Within a body of known length; so many bytes are outstanding.
    Length(u64),
    Chunked(ChunkedDecoder),
    /// The request is complete.
    Complete,
    /// The request was refused.
    Broken,
}

#[derive(Debug)]
enum Held {
    Nothing,
    /// A head that has begun.
    Partial(Box<PartialHead>),
    /// Bytes that wait for their turn.
    Later(Vec<u8>),
}

/// The server's side of one HTTP/1 connection. Idle, it owns no memory beside itself.
#[derive(Debug)]
pub struct Connection {
    reading: Reading,
    held: Held,
    version: Version,
    is_head: bool,
    asks_close: bool,
    asks_keep_alive: bool,
    /// The client waits for `100 Continue` and has sent no byte of its body yet.
    withholds_body: bool,
    persists: bool,
}

impl Default for Connection {
    fn default() -> Self {
        Connection::new()
    }
}

impl Connection {
    /// A connection before its first request.
    pub fn new() -> Connection {
        Connection {
            reading: Reading::Head,
            held: Held::Nothing,
            version: Version::Http11,
            is_head: false,
            asks_close: false,
            asks_keep_alive: false,
            withholds_body: false,
            persists: false,
        }
    }

    /// Takes the next event from the front of `input`. `head` is filled (after being cleared) when the event is
    /// [`Event::Head`] or an error in a head, and untouched otherwise.
    ///
    /// # Errors
    /// The request is refused; from then on every call answers [`Event::Paused`] and takes nothing.
    pub fn read<'a>(
        &mut self,
        input: &mut &'a [u8],
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<Event<'a>, RequestError> {
        let result = match &mut self.reading {
            Reading::Head => {
                let result = self.read_head(input, limits, head);
                if result.is_err() {
                    // The answer is still framed for what was asked, as far as that is known.
                    self.version = head.version;
                    self.is_head = head.method == Method::Head;
                    self.withholds_body = false;
                }
                result
            }
            Reading::Length(0) => {
                self.reading = Reading::Complete;
                Ok(Event::BodyEnd)
            }
            Reading::Length(_) if input.is_empty() => Ok(Event::NeedMore),
            Reading::Length(rest) => {
                self.withholds_body = false;
                let take = usize::try_from(*rest).map_or(input.len(), |rest| rest.min(input.len()));
                let (data, later) = input.split_at(take);
                *input = later;
                *rest -= take as u64;
                Ok(Event::Body(data))
            }
            Reading::Chunked(decoder) => {
                self.withholds_body &= input.is_empty();
                match decoder.read(input, None) {
                    Ok(ChunkedItem::NeedMore) => Ok(Event::NeedMore),
                    Ok(ChunkedItem::Data(data)) => Ok(Event::Body(data)),
                    Ok(ChunkedItem::End) => {
                        self.reading = Reading::Complete;
                        Ok(Event::BodyEnd)
                    }
                    Err(_) => Err(invalid_chunks()),
                }
            }
            Reading::Complete | Reading::Broken => Ok(Event::Paused),
        };
        if result.is_err() {
            self.reading = Reading::Broken;
            self.held = Held::Nothing;
        }
        result
    }

    fn read_head<'a>(
        &mut self,
        input: &mut &'a [u8],
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<Event<'a>, RequestError> {
        if !matches!(self.held, Held::Partial(_)) {
            debug_assert!(matches!(self.held, Held::Nothing), "held bytes come before fresh ones");
            // Empty lines before a request line are skipped (RFC 9112 section 2.2); they cost no memory.
            let skip = input.iter().take_while(|&&byte| matches!(byte, b'\r' | b'\n')).count();
            *input = &input[skip..];
            if input.is_empty() {
                return Ok(Event::NeedMore);
            }
            if let Some(length) = head::parse_whole(input, limits, head)? {
                *input = &input[length..];
                return Ok(self.begin(head));
            }
            self.held = Held::Partial(Box::default());
        }
        let Held::Partial(partial) = &mut self.held else { return Ok(Event::NeedMore) };
        match partial.feed(input, limits, head)? {
            Progress::NeedMore => Ok(Event::NeedMore),
            Progress::Complete => {
                self.held = Held::Nothing;
                Ok(self.begin(head))
            }
        }
    }

    /// Looks ahead at the bytes that came right behind a head, right after [`Event::Head`] and before the request is
    /// served: a body that is known to be broken is refused, not answered as if it had been understood.
    ///
    /// # Errors
    /// The request is refused as by [`Connection::read`].
    pub fn check_body(&mut self, input: &[u8]) -> Result<(), RequestError> {
        let Reading::Chunked(mut decoder) = self.reading else { return Ok(()) };
        let mut ahead = input;
        while !ahead.is_empty() {
            match decoder.read(&mut ahead, None) {
                Ok(ChunkedItem::Data(_)) => {}
                Ok(ChunkedItem::NeedMore | ChunkedItem::End) => break,
                Err(_) => {
                    self.reading = Reading::Broken;
                    return Err(invalid_chunks());
                }
            }
        }
        Ok(())
    }

    /// Remembers what the response will depend on, and gets ready for the body.
    fn begin<'a>(&mut self, head: &RequestHead) -> Event<'a> {
        let (asks_close, asks_keep_alive) = super::rules::connection_tokens(head);
        self.version = head.version;
        self.is_head = head.method == Method::Head;
        self.asks_close = asks_close;
        self.asks_keep_alive = asks_keep_alive;
        self.withholds_body = head.expects_continue;
        self.persists = false;
        self.reading = match head.framing {
            RequestFraming::None => Reading::Complete,
            RequestFraming::Length(length) => Reading::Length(length),
            RequestFraming::Streamed => Reading::Chunked(ChunkedDecoder::default()),
        };
        Event::Head
    }

    /// Appends an interim response without fields; nothing for clients before HTTP/1.1. After `100 Continue` the client
    /// counts as sending its body.
    pub fn interim(&mut self, status: Status, out: &mut Vec<u8>) {
        if self.version >= Version::Http11 {
            encode::interim(status, out);
            if status == Status::CONTINUE {
                self.withholds_body = false;
            }
        }
    }

    /// Appends an interim response with fields; nothing for clients before HTTP/1.1.
    pub fn interim_with(&mut self, status: Status, fields: &Fields, out: &mut Vec<u8>) {
        if self.version >= Version::Http11 {
            encode::interim_with(status, fields, out);
        }
    }

    /// Whether the client waits for `100 Continue` and has sent none of its body so far.
    pub fn withholds_body(&self) -> bool {
        self.withholds_body && matches!(self.reading, Reading::Length(_) | Reading::Chunked(_))
    }

    /// Whether bytes of this request's body are outstanding.
    pub fn body_pending(&self) -> bool {
        matches!(self.body_progress(), BodyProgress::Pending | BodyProgress::Withheld)
    }

    /// Appends the response's head to `out`, decides on keep-alive, and says how the body is to be written. To a
    /// HTTP/0.9 client nothing is appended: the body is all it gets.
    pub fn respond(
        &mut self,
        response: &ResponseHead,
        options: &RespondOptions<'_>,
        out: &mut Vec<u8>,
    ) -> ResponseFraming {
        let mut framing = encode::response_framing(self.version, self.is_head, response, options);
        if self.version == Version::Http09 && framing != ResponseFraming::None {
            framing = ResponseFraming::UntilClose;
        }
        let request = RequestFacts {
            version: self.version,
            asks_close: self.asks_close,
            asks_keep_alive: self.asks_keep_alive,
            body: self.body_progress(),
        };
        self.persists = persistence::may_persist(request, options.keep_alive_allowed, framing);
        if self.version != Version::Http09 {
            encode::response_head(response, framing, self.persists, options, out);
        }
        framing
    }

    /// Whether the response's head announced a persistent connection.
    pub fn persists(&self) -> bool {
        self.persists
    }

    /// Gives keep-alive up after `respond`: the response could not be finished as announced, or the server is going.
    pub fn give_up_keep_alive(&mut self) {
        self.persists = false;
    }

    /// What to do now that the response was sent whole; to be asked again after a discarded body.
    pub fn after_response(&self) -> After {
        persistence::after_response(self.persists, self.body_progress())
    }

    /// Gets ready for the next head. Only after [`After::KeepAlive`].
    pub fn next_request(&mut self) {
        let complete = self.body_progress() == BodyProgress::Complete;
        debug_assert!(complete && self.persists);
        if complete {
            self.reading = Reading::Head;
            self.persists = false;
        }
    }

    /// Whether nothing of a next request has come: an idle connection that may be closed without loss.
    pub fn is_idle(&self) -> bool {
        matches!((&self.reading, &self.held), (Reading::Head, Held::Nothing))
    }

    /// Puts bytes away that can't be read yet (behind those put away before), until `take_held`. Not for bytes within
    /// a head: `read` takes those.
    ///
    /// # Errors
    /// More than [`HOLD_LIMIT`] bytes; nothing is kept of `bytes` then.
    pub fn hold(&mut self, bytes: &[u8]) -> Result<(), HoldFull> {
        if bytes.is_empty() {
            return Ok(());
        }
        match &mut self.held {
            Held::Later(held) if held.len() + bytes.len() <= HOLD_LIMIT => held.extend_from_slice(bytes),
            Held::Nothing if bytes.len() <= HOLD_LIMIT => self.held = Held::Later(bytes.to_vec()),
            _ => return Err(HoldFull),
        }
        Ok(())
    }

    /// Takes back what was put away; empty (and without memory) if there is nothing. To be fed before fresh bytes.
    pub fn take_held(&mut self) -> Vec<u8> {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Later(held) => held,
            other => {
                self.held = other;
                Vec::new()
            }
        }
    }

    /// Whether `take_held` would give something.
    pub fn has_held(&self) -> bool {
        matches!(self.held, Held::Later(_))
    }

    fn body_progress(&self) -> BodyProgress {
        match self.reading {
            Reading::Complete | Reading::Length(0) => BodyProgress::Complete,
            Reading::Chunked(decoder) if decoder.is_ended() => BodyProgress::Complete,
            Reading::Length(_) | Reading::Chunked(_) if self.withholds_body => BodyProgress::Withheld,
            Reading::Length(_) | Reading::Chunked(_) => BodyProgress::Pending,
            Reading::Head | Reading::Broken => BodyProgress::Broken,
        }
    }
}

fn invalid_chunks() -> RequestError {
    RequestError::body(Status::BAD_REQUEST, "client sent invalid chunked body")
}
