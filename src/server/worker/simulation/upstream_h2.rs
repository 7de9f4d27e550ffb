//! An upstream's connection that speaks HTTP/2.

use std::borrow::Cow;

use crate::message::{Fields, Method, RequestFraming, RequestHead, ResponseHead, Status};
use crate::proto::h1::{HeadLimits, RespondOptions};
use crate::proto::h2::{self, ErrorCode, Frame, ServerEvent, StreamKey};

use super::dice::Dice;
use super::laws::{Ledger, Role, law};
use super::line::Line;
use super::upstream::{Answer, BREAKS, Ending};

const DATE: &[u8; 29] = b"Tue, 14 Nov 2023 22:13:20 GMT";

/// See the module's documentation.
pub struct Connection {
    line: Option<Line>,
    machine: h2::Server,
    head: RequestHead,
    input: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    calls: Vec<Call>,
    is_slow: bool,
    ending: Ending,
}

/// A request and its answer.
struct Call {
    id: usize,
    role: Role,
    key: StreamKey,
    is_head: bool,
    body: Vec<u8>,
    /// Bytes of it that were not given back to the windows.
    held: usize,
    answer: Option<Cow<'static, [u8]>>,
    sent: usize,
    /// The stream is reset after so many bytes.
    cut_at: Option<usize>,
    trailers: bool,
}

impl Connection {
    pub fn new(line: Line, now_ms: u64, dice: &mut Dice) -> Connection {
        let mut machine = h2::Server::new(h2::Config {
            max_concurrent_streams: *dice.pick(&[1, 3, 100]),
            stream_window: *dice.pick(&[1_024, 65_535]),
            connection_window: *dice.pick(&[65_535, 1 << 20]),
            window_timeout_ms: 1 << 40,
            ..h2::Config::default()
        });
        let mut out = Vec::new();
        machine.start(now_ms, &mut out);
        Connection {
            line: Some(line),
            machine,
            head: RequestHead::default(),
            input: Vec::new(),
            out,
            sent: 0,
            calls: Vec::new(),
            is_slow: dice.one_in(3),
            ending: Ending::Open,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.line.is_none()
    }

    /// Sends some, reads some.
    pub fn step(&mut self, now_ms: u64, ledger: &mut Ledger, dice: &mut Dice) -> Result<(), String> {
        if self.line.is_none() || self.ending == Ending::Silent {
            return Ok(());
        }
        if ledger.faults && dice.one_in(30) {
            self.fail(dice);
        }
        if dice.one_in(60) {
            self.machine.shut_down(now_ms, &mut self.out);
        }
        self.give_back(dice);
        self.send_bodies(dice);
        self.write(dice);
        let Some(line) = &mut self.line else { return Ok(()) };
        if line.read(1 + dice.below(9_000), &mut self.input).is_none() {
            self.line = None;
        }
        self.take_input(now_ms, ledger, dice)?;
        if self.machine.is_drained() && self.out.is_empty() {
            self.line = None;
        }
        Ok(())
    }

    /// Does what no upstream should.
    fn fail(&mut self, dice: &mut Dice) {
        let at = dice.below(self.calls.len() + 1);
        let key = self.calls.get(at).map(|call| call.key);
        let out = &mut self.out;
        match (dice.below(8), key) {
            (0 | 1, Some(key)) => {
                let codes = &[ErrorCode::CANCEL, ErrorCode::INTERNAL_ERROR, ErrorCode::NO_ERROR];
                self.machine.reset(key, *dice.pick(codes), out);
                self.calls.remove(at);
            }
            (2, _) => self.machine.leave(out),
            (3, _) => {
                let junk: &[&[u8]] = &[
                    b"HTTP/1.1 400 Bad Request\r\n\r\n",
                    b"\0\0\x08\x07\0\0\0\0\x05",
                    b"\0\0\0\x01\x05\0\0\0\x63",
                ];
                out.extend_from_slice(junk[dice.below(junk.len())]);
                self.ending = *dice.pick(BREAKS);
            }
            (4, Some(key)) => {
                Frame::Headers { stream: key.id(), ends: true, whole: true, fragment: b"\x88\x88" }
                    .write(out);
                self.ending = Ending::Close;
            }
            (5, _) => self.ending = *dice.pick(BREAKS),
            (6, _) => Frame::Ping { ack: false, opaque: *b"any one?" }.write(out),
            _ => {}
        }
    }

    fn give_back(&mut self, dice: &mut Dice) {
        for call in self.calls.iter_mut().filter(|call| call.held > 0) {
            let count = match self.is_slow {
                true if dice.one_in(2) => 0,
                true => 1 + dice.below(call.held),
                false => call.held,
            };
            call.held -= count;
            self.machine.consumed(call.key, count, &mut self.out);
        }
    }

    fn send_bodies(&mut self, dice: &mut Dice) {
        for _ in 0..4 {
            let Some((key, room)) = self.machine.next_turn() else { return };
            let Some(call) = self.calls.iter_mut().find(|call| call.key == key) else {
                self.machine.set_has_data(key, false);
                continue;
            };
            let body = call.answer.as_deref().unwrap_or_default();
            let most = call.cut_at.map_or(body.len(), |at| at.min(body.len()));
            let count = (most - call.sent).min(room).min(1 + dice.below(8_000));
            let piece = &body[call.sent..call.sent + count];
            let is_last = call.sent + count == body.len();
            let ends = is_last && !call.trailers;
            call.sent += self.machine.send_data(key, piece, ends, &mut self.out);
            if call.cut_at.is_some_and(|at| call.sent >= at) {
                self.machine.reset(key, ErrorCode::INTERNAL_ERROR, &mut self.out);
            } else if is_last && call.trailers {
                let mut fields = Fields::default();
                fields.push(b"x-sum", b"1");
                self.machine.send_trailers(key, &fields, &mut self.out);
            }
            self.machine.set_has_data(key, !is_last);
        }
        self.calls.retain(|call| self.machine.is_open(call.key));
    }

    fn write(&mut self, dice: &mut Dice) {
        let Some(line) = &mut self.line else { return };
        match line.send(&self.out[self.sent..], 1 + dice.below(8_000)) {
            Some(count) => self.sent += count,
            None => self.line = None,
        }
        if self.sent < self.out.len() {
            return;
        }
        self.out.clear();
        self.sent = 0;
        if matches!(self.ending, Ending::Close | Ending::Reset)
            && let Some(line) = self.line.take()
            && self.ending == Ending::Reset
        {
            line.reset();
        }
    }

    fn take_input(&mut self, now_ms: u64, ledger: &mut Ledger, dice: &mut Dice) -> Result<(), String> {
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        loop {
            let Connection { machine, head, out, .. } = self;
            let event = machine.read(&mut rest, now_ms, &HeadLimits::default(), head, out);
            let event = event.map_err(|error| format!("an upstream was sent bad frames: {error:?}"))?;
            match event {
                ServerEvent::NeedMore | ServerEvent::Closed => return Ok(()),
                ServerEvent::Head { stream, .. } => self.begin(stream, ledger, dice)?,
                ServerEvent::Refused { error, .. } => {
                    return Err(format!("an upstream was sent what is no request: {error:?}"));
                }
                ServerEvent::Data { stream, data } => {
                    if let Some(call) = self.calls.iter_mut().find(|call| call.key == stream) {
                        call.body.extend_from_slice(data);
                        call.held += data.len();
                    }
                }
                ServerEvent::End { stream, .. } => self.answer(stream, ledger, dice)?,
                ServerEvent::Lost { stream, .. } => self.calls.retain(|call| call.key != stream),
                ServerEvent::Rejected { reason, .. } => {
                    // It may not have heard yet how many there may be.
                    law!(reason.contains("MAX_CONCURRENT"), "an upstream rejected a request: {reason}");
                }
            }
        }
    }

    fn begin(&mut self, key: StreamKey, ledger: &mut Ledger, dice: &mut Dice) -> Result<(), String> {
        let method = self.head.text(self.head.method_text);
        let (id, role) = ledger.recognise(self.head.target(), method)?;
        if ledger.faults && dice.one_in(20) {
            self.machine.reset(key, ErrorCode::REFUSED_STREAM, &mut self.out);
            return Ok(());
        }
        self.calls.push(Call {
            id,
            role,
            key,
            is_head: self.head.method == Method::Head,
            body: Vec::new(),
            held: 0,
            answer: None,
            sent: 0,
            cut_at: None,
            trailers: false,
        });
        match self.head.framing {
            RequestFraming::None => self.answer(key, ledger, dice),
            _ if ledger.faults && dice.one_in(20) => {
                // An answer before the request is complete.
                self.respond(key, 503, Cow::Borrowed(b"busy"), dice);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn answer(&mut self, key: StreamKey, ledger: &mut Ledger, dice: &mut Dice) -> Result<(), String> {
        let Some(call) = self.calls.iter_mut().find(|call| call.key == key) else { return Ok(()) };
        let (id, role) = (call.id, call.role);
        ledger.request_is_whole(id, role, &call.body)?;
        if call.answer.is_some() {
            return Ok(());
        }
        let answer = Answer::new(id, role, ledger);
        if role == Role::Check {
            ledger.note_leave(id);
        }
        if ledger.faults && dice.one_in(10) {
            call.cut_at = Some(dice.below(answer.body.len() + 1)).filter(|at| *at < answer.body.len());
        }
        self.respond(key, answer.status, answer.body, dice);
        Ok(())
    }

    fn respond(&mut self, key: StreamKey, status: u16, body: Cow<'static, [u8]>, dice: &mut Dice) {
        let Some(call) = self.calls.iter_mut().find(|call| call.key == key) else { return };
        let out = &mut self.out;
        if dice.one_in(6) {
            let mut fields = Fields::default();
            fields.push(b"link", b"</x>");
            self.machine.interim(key, Status(103), Some(&fields), out);
        }
        let mut head = ResponseHead { status: Status(status), ..ResponseHead::default() };
        head.fields.push(b"x-id", call.id.to_string().as_bytes());
        head.set_content_type(b"text/plain");
        if dice.one_in(2) {
            head.set_content_length(body.len() as u64);
        }
        call.trailers = !call.is_head && dice.one_in(3);
        let options = RespondOptions {
            date: DATE,
            keep_alive_allowed: true,
            keep_alive_header: None,
            chunked_allowed: true,
            trailers_expected: call.trailers,
            upgrade: false,
        };
        self.machine.respond(key, &head, &options, out);
        call.answer = Some(body);
        self.machine.set_has_data(key, true);
    }
}
