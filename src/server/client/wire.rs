//! The protocol that a request came in by, as far as the rest of a client must know: heads of responses and the framing
//! of bodies.

use crate::message::{Fields, RequestHead, ResponseFraming, ResponseHead, Status};
use crate::proto::h1::{self, After, Event, HeadLimits, HoldFull, RequestError, RespondOptions};

use super::h2::stream::StreamWire;
use super::pipe;

/// See the module's documentation.
pub enum Wire {
    /// HTTP/1: requests one behind the other.
    H1(h1::Connection),
    /// A stream of HTTP/2: one request.
    H2(StreamWire),
    /// None: a subrequest.
    Subrequest,
}

impl Wire {
    /// Reads a head, or more of a body.
    pub fn read<'a>(
        &mut self,
        input: &mut &'a [u8],
        limits: &HeadLimits,
        head: &mut RequestHead,
    ) -> Result<Event<'a>, RequestError> {
        match self {
            Wire::H1(wire) => wire.read(input, limits, head),
            Wire::H2(wire) => Ok(wire.read(input)),
            Wire::Subrequest => Ok(Event::Paused),
        }
    }

    /// Whether the body's beginning is acceptable.
    pub fn check_body(&mut self, input: &[u8]) -> Result<(), RequestError> {
        match self {
            Wire::H1(wire) => wire.check_body(input),
            Wire::H2(_) | Wire::Subrequest => Ok(()),
        }
    }

    /// Whether some of the request's body is outstanding.
    pub fn body_pending(&self) -> bool {
        match self {
            Wire::H1(wire) => wire.body_pending(),
            Wire::H2(wire) => wire.body_pending(),
            Wire::Subrequest => false,
        }
    }

    /// Whether the client waits for `100 Continue`.
    pub fn withholds_body(&self) -> bool {
        match self {
            Wire::H1(wire) => wire.withholds_body(),
            Wire::H2(wire) => wire.withholds_body(),
            Wire::Subrequest => false,
        }
    }

    /// Writes an interim response.
    pub fn interim(&mut self, status: Status, out: &mut Vec<u8>) {
        match self {
            Wire::H1(wire) => wire.interim(status, out),
            Wire::H2(wire) => wire.interim(status, None),
            Wire::Subrequest => {}
        }
    }

    /// Writes an interim response with fields.
    pub fn interim_with(&mut self, status: Status, fields: &Fields, out: &mut Vec<u8>) {
        match self {
            Wire::H1(wire) => wire.interim_with(status, fields, out),
            Wire::H2(wire) => wire.interim(status, Some(fields)),
            Wire::Subrequest => {}
        }
    }

    /// Writes the response's head; how its body is written, and how many bytes the head has.
    pub fn respond(
        &mut self,
        head: &ResponseHead,
        options: &RespondOptions<'_>,
        out: &mut Vec<u8>,
    ) -> (ResponseFraming, u64) {
        match self {
            Wire::H1(wire) => {
                let before = out.len();
                let framing = wire.respond(head, options, out);
                (framing, (out.len() - before) as u64)
            }
            Wire::H2(wire) => wire.respond(head, options),
            Wire::Subrequest => (pipe::respond(head, options), 0),
        }
    }

    /// Whether the connection goes on behind the response.
    pub fn persists(&self) -> bool {
        match self {
            Wire::H1(wire) => wire.persists(),
            Wire::H2(_) | Wire::Subrequest => true,
        }
    }

    /// What to do now that the response was sent whole.
    pub fn after_response(&self) -> After {
        match self {
            Wire::H1(wire) => wire.after_response(),
            Wire::H2(_) | Wire::Subrequest => After::Close,
        }
    }

    /// Gets ready for the next head.
    pub fn next_request(&mut self) {
        if let Wire::H1(wire) = self {
            wire.next_request();
        }
    }

    /// Whether nothing of a next request has come.
    pub fn is_idle(&self) -> bool {
        match self {
            Wire::H1(wire) => wire.is_idle(),
            Wire::H2(_) | Wire::Subrequest => false,
        }
    }

    /// Puts bytes away.
    pub fn hold(&mut self, bytes: &[u8]) -> Result<(), HoldFull> {
        match self {
            Wire::H1(wire) => wire.hold(bytes),
            // The windows bound them.
            Wire::H2(wire) => {
                wire.hold(bytes);
                Ok(())
            }
            Wire::Subrequest => Ok(()),
        }
    }

    /// Takes back what was put away.
    pub fn take_held(&mut self) -> Vec<u8> {
        match self {
            Wire::H1(wire) => wire.take_held(),
            Wire::H2(_) | Wire::Subrequest => Vec::new(),
        }
    }

    /// Whether `take_held` would give something.
    pub fn has_held(&self) -> bool {
        match self {
            Wire::H1(wire) => wire.has_held(),
            Wire::H2(_) | Wire::Subrequest => false,
        }
    }
}
