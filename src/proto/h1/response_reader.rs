//! The client's side of one HTTP/1 connection: reading an upstream's responses.
//!
//! The verbs, in this order:
//!
//! 1. [`ResponseReader::begin`] when a request goes out, with what it asked.
//! 2. [`ResponseReader::read`] with every piece that comes in, again and again until it says `NeedMore` or `End`:
//!    `Interim` for every interim response, `Head`, then `Body` slices of the input, `Trailers` if there are any, `End`.
//!    What is left of the input after `End` was not asked for.
//! 3. [`ResponseReader::end_of_input`] when the upstream closes, [`ResponseReader::reset`] when the connection breaks.
//! 4. After `End`, [`ResponseReader::is_reusable`] says whether `begin` may follow.
//!
//! In between, [`ResponseReader::body_left`] and [`ResponseReader::skip`] let a body pass by another way (`splice`).

use crate::message::{Fields, ResponseFraming, ResponseHead};

use super::chunked::{ChunkError, ChunkLimits, ChunkedDecoder, ChunkedItem, parse_trailers};
use super::response_error::{ResponseError, ResponseFault};
use super::response_head::{self, PartialResponseHead};
use super::response_rules;

/// Most bytes of memory that a connection keeps from one response to the next; an upstream whose head came in pieces
/// once will do so again.
const KEPT_MEMORY: usize = 4096;

/// Bounds that are the same for every response of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseLimits {
    /// Most interim responses before the final one.
    pub interim_responses: u8,
    /// Bounds on chunk extensions and trailers.
    pub chunks: ChunkLimits,
}

impl Default for ResponseLimits {
    fn default() -> Self {
        ResponseLimits { interim_responses: 16, chunks: ChunkLimits::default() }
    }
}

/// What of a request decides how its response is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The method was HEAD.
    pub head: bool,
    /// The request carried an Upgrade field: a 101 response is welcome.
    pub upgrade: bool,
    /// The method was CONNECT: a 2xx response begins a tunnel.
    pub connect: bool,
    /// Most bytes of each head, its empty line included (`proxy_buffer_size`); at most 16 MiB count.
    pub head_bytes: usize,
}

/// What a final response's head means on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadFacts {
    /// How the body ends; `Streamed` is chunked. `UntilClose` for a tunnel.
    pub framing: ResponseFraming,
    /// Whether the connection lives on as far as the head says; [`ResponseReader::is_reusable`] has the last word.
    pub persistent: bool,
    /// A 101 that was asked for, or a 2xx to CONNECT: raw bytes follow in both directions.
    pub switched: bool,
    /// The `timeout` of a Keep-Alive field: how long the upstream promises to keep an idle connection.
    pub keep_alive_timeout_secs: Option<u64>,
    /// The version's minor number, 0 to 9.
    pub http_minor: u8,
}

/// What `read` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseEvent<'a> {
    /// The input is used up: feed more.
    NeedMore,
    /// An interim response (1xx, not 101): the head that was passed is filled with it. The next head comes.
    Interim,
    /// The final response's head: the head that was passed is filled.
    Head(HeadFacts),
    /// A piece of the body, never empty; it lies in the input.
    Body(&'a [u8]),
    /// Trailer fields came: [`ResponseReader::trailers`] has them until `begin`.
    Trailers,
    /// The response is complete. From now on every call answers this and takes nothing.
    End,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before the first request, or after a response.
    Idle,
    /// Before or within a head.
    Head,
    /// Within a body of known length; so many bytes are outstanding.
    Length(u64),
    Chunked(ChunkedDecoder),
    /// The trailers were announced, the end was not.
    AfterTrailers,
    /// Within a body that ends with the connection, or a tunnel.
    UntilClose {
        switched: bool,
    },
    Broken(ResponseFault, &'static str),
}

/// Reads the responses of one upstream connection, one at a time. Whole heads cost it no memory; else it holds one
/// partial head within its limit, or one trailer section, and keeps up to 4 KiB of that memory for the next response.
#[derive(Debug)]
pub struct ResponseReader {
    limits: ResponseLimits,
    asked: Asked,
    state: State,
    /// A head that has begun; after it, the trailer section as it came.
    partial: PartialResponseHead,
    interims: u8,
    has_begun: bool,
    persistent: bool,
    /// A response without a body announced one.
    in_doubt: bool,
    excess: bool,
}

impl ResponseReader {
    /// A connection before its first request.
    pub fn new(limits: ResponseLimits) -> ResponseReader {
        ResponseReader {
            limits,
            asked: Asked { head: false, upgrade: false, connect: false, head_bytes: 0 },
            state: State::Idle,
            partial: PartialResponseHead::default(),
            interims: 0,
            has_begun: false,
            persistent: true,
            in_doubt: false,
            excess: false,
        }
    }

    /// Gets ready for the response to a request. Only on a fresh connection, or where [`Self::is_reusable`].
    pub fn begin(&mut self, asked: Asked) {
        debug_assert!(matches!(self.state, State::Idle), "the response before is incomplete");
        self.asked = Asked { head_bytes: asked.head_bytes.min(super::limits::HEAD_CEILING), ..asked };
        self.state = State::Head;
        self.partial.reset(KEPT_MEMORY);
        self.interims = 0;
        self.has_begun = false;
        self.persistent = false;
        self.in_doubt = false;
        self.excess = false;
    }

    /// Takes the next event from the front of `input`. `head` is filled (after being cleared) when the event is
    /// `Interim` or `Head`; it may hold a refused head after an error, and is untouched otherwise.
    ///
    /// # Errors
    /// The response breaks the rules or a bound; from then on every call answers the same and takes nothing.
    pub fn read<'a>(
        &mut self,
        input: &mut &'a [u8],
        head: &mut ResponseHead,
    ) -> Result<ResponseEvent<'a>, ResponseError> {
        self.has_begun |= !input.is_empty() && !matches!(self.state, State::Idle);
        let result = match &mut self.state {
            State::Idle => {
                self.excess |= !input.is_empty();
                return Ok(ResponseEvent::End);
            }
            State::Broken(fault, what) => return Err(ResponseError::new(*fault, what)),
            State::Head => self.read_head(input, head),
            State::Length(0) | State::AfterTrailers => Ok(self.end(input)),
            _ if input.is_empty() => Ok(ResponseEvent::NeedMore),
            State::UntilClose { .. } => Ok(ResponseEvent::Body(std::mem::take(input))),
            State::Length(rest) => {
                let take = usize::try_from(*rest).map_or(input.len(), |rest| rest.min(input.len()));
                let (data, later) = input.split_at(take);
                *input = later;
                *rest -= take as u64;
                Ok(ResponseEvent::Body(data))
            }
            State::Chunked(decoder) => match decoder.read(input, Some(self.partial.buffer())) {
                Ok(ChunkedItem::NeedMore) => Ok(ResponseEvent::NeedMore),
                Ok(ChunkedItem::Data(data)) => Ok(ResponseEvent::Body(data)),
                Ok(ChunkedItem::End) if self.partial.is_empty() => Ok(self.end(input)),
                Ok(ChunkedItem::End) => {
                    self.state = State::AfterTrailers;
                    Ok(ResponseEvent::Trailers)
                }
                Err(error) => Err(chunk_error(error)),
            },
        };
        result.map_err(|error| self.break_off(error))
    }

    fn read_head<'a>(
        &mut self,
        input: &mut &'a [u8],
        head: &mut ResponseHead,
    ) -> Result<ResponseEvent<'a>, ResponseError> {
        if input.is_empty() {
            return Ok(ResponseEvent::NeedMore);
        }
        let limit = self.asked.head_bytes;
        let whole =
            if self.partial.is_empty() { response_head::parse_whole(input, limit, head) } else { None };
        let minor = match whole {
            Some((length, minor)) => {
                *input = &input[length..];
                minor
            }
            None => match self.partial.feed(input, limit, head)? {
                Some(minor) => {
                    self.partial.reset(KEPT_MEMORY);
                    minor
                }
                None => return Ok(ResponseEvent::NeedMore),
            },
        };
        if head.status.0 < 200 && head.status.0 != 101 {
            return self.interim(head);
        }
        let facts = response_rules::judge(head, minor, &self.asked)?;
        self.persistent = facts.persistent;
        self.state = match facts.framing {
            ResponseFraming::None => State::Length(0),
            ResponseFraming::Length(length) => State::Length(length),
            ResponseFraming::Streamed => State::Chunked(ChunkedDecoder::new(self.limits.chunks)),
            ResponseFraming::UntilClose => State::UntilClose { switched: facts.switched },
        };
        if facts.switched {
            // A tunnel may live for days: it holds nothing.
            self.partial.reset(0);
        }
        Ok(ResponseEvent::Head(facts))
    }

    fn interim<'a>(&mut self, head: &ResponseHead) -> Result<ResponseEvent<'a>, ResponseError> {
        if self.interims == self.limits.interim_responses {
            return Err(ResponseError::header("upstream sent too many interim responses"));
        }
        self.interims += 1;
        self.in_doubt |= response_rules::announces_body(&head.fields);
        Ok(ResponseEvent::Interim)
    }

    fn end<'a>(&mut self, input: &[u8]) -> ResponseEvent<'a> {
        self.state = State::Idle;
        self.excess |= !input.is_empty();
        ResponseEvent::End
    }

    fn break_off(&mut self, error: ResponseError) -> ResponseError {
        self.state = State::Broken(error.fault, error.what);
        self.persistent = false;
        self.partial.reset(0);
        error
    }

    /// The upstream closed its side in an orderly way. A body that ends with the connection is complete then, as is a
    /// tunnel; otherwise this is right only where no response is outstanding.
    ///
    /// # Errors
    /// Something is missing of the response.
    pub fn end_of_input(&mut self) -> Result<(), ResponseError> {
        self.persistent = false;
        let fault = match self.state {
            State::Idle | State::Length(0) | State::AfterTrailers => return Ok(()),
            State::UntilClose { .. } => {
                self.state = State::Idle;
                return Ok(());
            }
            State::Broken(fault, what) => return Err(ResponseError::new(fault, what)),
            State::Head if !self.has_begun => ResponseFault::NothingCame,
            State::Head => ResponseFault::HeaderTruncated,
            State::Length(_) | State::Chunked(_) => ResponseFault::BodyTruncated,
        };
        let what = match fault {
            ResponseFault::NothingCame => "upstream closed the connection before its response began",
            ResponseFault::HeaderTruncated => {
                "upstream prematurely closed connection within its response header"
            }
            _ => "upstream prematurely closed connection within its response body",
        };
        Err(self.break_off(ResponseError::new(fault, what)))
    }

    /// The connection broke (ECONNRESET and the like). As [`Self::end_of_input`], but a body that ends with the
    /// connection is not known to be complete; a tunnel just ends.
    ///
    /// # Errors
    /// Something is missing of the response, or may be.
    pub fn reset(&mut self) -> Result<(), ResponseError> {
        if let State::UntilClose { switched: false } = self.state {
            let what = "upstream's connection broke within a response body that ends with it";
            return Err(self.break_off(ResponseError::new(ResponseFault::BodyTruncated, what)));
        }
        self.end_of_input()
    }

    /// Whether a byte of the response that was asked for last has come.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Bytes that may come by another way than `read` now: what is outstanding of a body of known length, `u64::MAX`
    /// for a body that ends with the connection or a tunnel; `None` elsewhere.
    pub fn body_left(&self) -> Option<u64> {
        match self.state {
            State::Length(0) => None,
            State::Length(rest) => Some(rest),
            State::UntilClose { .. } => Some(u64::MAX),
            _ => None,
        }
    }

    /// So many bytes of the body came by another way; at most [`Self::body_left`].
    pub fn skip(&mut self, bytes: u64) {
        debug_assert!(self.body_left().is_some_and(|rest| bytes <= rest));
        if let State::Length(rest) = &mut self.state {
            *rest = rest.saturating_sub(bytes);
        }
    }

    /// Appends the trailer fields as they came, after `Trailers` and until `begin`. Which of them may pass on is the
    /// caller's to say: anything can stand here, framing fields included (RFC 9110 section 6.5.1).
    pub fn trailers(&self, fields: &mut Fields) {
        if matches!(self.state, State::Idle | State::AfterTrailers) {
            parse_trailers(self.partial.bytes(), fields);
        }
    }

    /// Whether another request may follow: the response is complete, its end was certain, it said nothing of closing,
    /// and nothing came behind it.
    pub fn is_reusable(&self) -> bool {
        matches!(self.state, State::Idle) && self.persistent && !self.in_doubt && !self.excess
    }

    /// Whether bytes came that no request asked for (seen by the `read` that answered `End`, or a later one).
    pub fn has_excess(&self) -> bool {
        self.excess
    }

    /// Lets go of the trailers, and of memory that is kept for the next response: for a connection that may be idle for
    /// long.
    pub fn release_memory(&mut self) {
        if !matches!(self.state, State::Head | State::Chunked(_)) {
            self.partial.reset(0);
        }
    }

    /// Bytes of memory held beside the machine itself.
    pub fn memory(&self) -> usize {
        self.partial.capacity()
    }
}

fn chunk_error(error: ChunkError) -> ResponseError {
    let (fault, what) = match error {
        ChunkError::Invalid => (ResponseFault::BodyInvalid, "upstream sent invalid chunked response"),
        ChunkError::ExtensionsTooLong => {
            (ResponseFault::BodyInvalid, "upstream sent too long chunk extensions")
        }
        ChunkError::TrailersTooLong => (ResponseFault::TrailersTooBig, "upstream sent too big trailers"),
    };
    ResponseError::new(fault, what)
}
