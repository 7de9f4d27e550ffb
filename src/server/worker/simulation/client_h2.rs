//! A client that speaks HTTP/2 with prior knowledge: requests in parallel, windows of every size, priorities, and in some
//! seeds everything that a hostile one may do.

use std::collections::VecDeque;

use crate::message::{Fields, RequestFraming, ResponseHead};
use crate::proto::h2::{self, ClientEvent, ErrorCode, Frame, NewRequest, StreamKey};

use super::dice::Dice;
use super::laws::{Ledger, Method, Receipt, law};
use super::line::{Address, Line};

/// Bytes of a response's head that it takes.
const HEAD_BYTES: usize = 16 * 1024;
/// SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW_SIZE: u16 = 4;

/// See the module's documentation.
pub struct Client {
    line: Option<Line>,
    machine: h2::Client,
    stream_window: u32,
    /// It gives window back at once, or now and then.
    is_slow: bool,
    out: Vec<u8>,
    sent: usize,
    /// After so many bytes in all it resets the connection, in the middle of a frame mostly.
    breaks_at: Option<usize>,
    total_sent: usize,
    input: Vec<u8>,
    head: ResponseHead,
    waiting: VecDeque<usize>,
    streams: Vec<Stream>,
    /// It told the server that it allows streams no window.
    shut_windows: bool,
    /// It broke the protocol: nothing needs to be answered any more.
    is_cursed: bool,
    /// The server takes no new requests.
    is_left: bool,
}

struct Stream {
    id: usize,
    key: StreamKey,
    /// What is left of the request's body.
    body: &'static [u8],
    receipt: Receipt,
    /// Bytes of the response that were not given back to the windows.
    held: usize,
    is_over: bool,
    /// It was given up, by this side or by the server in a way that lets the client ask again.
    is_excused: bool,
}

impl Client {
    pub fn new(front: &Address, now_ms: u64, ledger: &mut Ledger, dice: &mut Dice) -> Client {
        let stream_window = *dice.pick(&[1_024, 20_000, 65_535, 1 << 20]);
        let mut machine = h2::Client::new(h2::Config {
            stream_window,
            connection_window: *dice.pick(&[65_535, 1 << 20]),
            ..h2::Config::default()
        });
        let mut out = Vec::new();
        machine.start(now_ms, &mut out);
        let waiting: VecDeque<usize> = (0..1 + dice.below(6)).map(|_| ledger.ask(dice)).collect();
        let uploads: usize = waiting.iter().map(|id| ledger.record(*id).body.len()).sum();
        Client {
            line: Some(front.connect(None)),
            machine,
            stream_window,
            is_slow: dice.one_in(3),
            out,
            sent: 0,
            breaks_at: (ledger.faults && dice.one_in(5)).then(|| dice.below(uploads + 300)),
            total_sent: 0,
            input: Vec::new(),
            head: ResponseHead::default(),
            waiting,
            streams: Vec::new(),
            shut_windows: false,
            is_cursed: false,
            is_left: false,
        }
    }

    /// Whether nothing more is to come.
    pub fn is_done(&self) -> bool {
        let is_asked = self.waiting.is_empty() || self.is_left;
        self.line.is_none()
            || is_asked && self.out.is_empty() && self.streams.iter().all(|stream| stream.is_over)
    }

    /// Asks, sends some, reads some.
    pub fn step(&mut self, now_ms: u64, ledger: &mut Ledger, dice: &mut Dice) -> Result<(), String> {
        if self.line.is_none() {
            return Ok(());
        }
        if dice.one_in(2) {
            self.ask(ledger, dice)?;
        }
        self.give_back(dice);
        self.play(ledger.faults, dice);
        self.send_bodies(dice);
        self.write(dice);
        let Some(line) = &mut self.line else { return Ok(()) };
        let is_open = line.read(1 + dice.below(12_000), &mut self.input).is_some();
        self.take_input(now_ms, ledger)?;
        if !is_open {
            self.line = None;
        }
        Ok(())
    }

    fn ask(&mut self, ledger: &Ledger, dice: &mut Dice) -> Result<(), String> {
        if self.machine.free_streams() == 0 || self.is_left {
            return Ok(());
        }
        let Some(id) = self.waiting.pop_front() else { return Ok(()) };
        let record = ledger.record(id);
        let (target, length) = (ledger.target(id), record.body.len());
        let mut fields = Fields::default();
        if dice.one_in(3) {
            fields.push(b"priority", dice.pick(&["u=0", "u=7, i", "i", "junk="]).as_bytes());
        }
        if dice.one_in(2) {
            fields.push(b"accept-encoding", b"gzip");
        }
        let framing = match record.method {
            Method::Post if dice.one_in(2) => RequestFraming::Streamed,
            Method::Post => RequestFraming::Length(length as u64),
            _ => RequestFraming::None,
        };
        let request = NewRequest {
            method: record.method.name().as_bytes(),
            scheme: b"http",
            authority: b"a",
            path: target.as_bytes(),
            protocol: None,
            fields: &fields,
            framing,
        };
        let key = self.machine.request(&request, &mut self.out);
        let key = key.map_err(|error| format!("request {id} can't be sent: {error}"))?;
        if framing == RequestFraming::Streamed && length == 0 {
            self.machine.send_data(key, b"", true, &mut self.out);
        }
        self.machine.set_has_data(key, length > 0);
        self.streams.push(Stream {
            id,
            key,
            body: record.body,
            receipt: Receipt::default(),
            held: 0,
            is_over: false,
            is_excused: false,
        });
        Ok(())
    }

    /// Gives window back for what was read.
    fn give_back(&mut self, dice: &mut Dice) {
        for stream in self.streams.iter_mut().filter(|stream| stream.held > 0) {
            let count = match self.is_slow {
                true if dice.one_in(2) => 0,
                true => 1 + dice.below(stream.held),
                false => stream.held,
            };
            stream.held -= count;
            self.machine.consumed(stream.key, count, &mut self.out);
        }
    }

    /// What clients do beside asking, and what only hostile ones do.
    fn play(&mut self, faults: bool, dice: &mut Dice) {
        if !dice.one_in(8) {
            return;
        }
        let at = dice.below(self.streams.len() + 1);
        let key = self.streams.get(at).map(|stream| stream.key);
        let out = &mut self.out;
        match (dice.below(8), key) {
            (0, _) => Frame::Ping { ack: false, opaque: *b"how far?" }.write(out),
            (1, Some(key)) => {
                Frame::PriorityUpdate { stream: key.id(), value: b"u=1, i" }.write(out);
            }
            (2, _) => Frame::Unknown.write(out),
            (3, _) => self.turn_windows(),
            (4, _) if self.waiting.is_empty() && !self.is_left => {
                self.machine.leave(out);
                self.is_left = true;
            }
            (5 | 6, Some(key)) if faults => {
                self.machine.reset(key, ErrorCode::CANCEL, out);
                self.streams[at].is_over = true;
                self.streams[at].is_excused = true;
            }
            (7, _) if faults && dice.one_in(4) => self.curse(key, dice),
            _ => {}
        }
    }

    /// Allows streams no window, or as much as before.
    fn turn_windows(&mut self) {
        self.shut_windows = !self.shut_windows;
        let window = if self.shut_windows { 0 } else { self.stream_window };
        let mut parameter = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        parameter.extend_from_slice(&window.to_be_bytes());
        Frame::Settings(&parameter).write(&mut self.out);
    }

    /// Does what no client may.
    fn curse(&mut self, key: Option<StreamKey>, dice: &mut Dice) {
        self.is_cursed = true;
        // What comes on a stream whose request is not whole yet would be its body.
        let is_whole = |stream: &Stream| Some(stream.key) == key && stream.body.is_empty();
        let stream = key.filter(|_| self.streams.iter().any(is_whole)).map_or(7_777, StreamKey::id);
        let out = &mut self.out;
        match dice.below(9) {
            0 => Frame::Data { stream, ends: true, data: b"behind the end" }.write(out),
            1 => Frame::WindowUpdate { stream, increment: 0x7fff_ffff }.write(out),
            2 => Frame::WindowUpdate { stream: 0, increment: 0 }.write(out),
            3 => Frame::Headers { stream, ends: false, whole: true, fragment: b"\xff\xff\xff" }.write(out),
            4 => Frame::Headers { stream: 4, ends: true, whole: true, fragment: b"\x82" }.write(out),
            5 => Frame::Continuation { stream, whole: true, fragment: b"" }.write(out),
            6 => Frame::Reset { stream: 99_999, code: ErrorCode::CANCEL }.write(out),
            7 => {
                for _ in 0..300 {
                    Frame::Ping { ack: false, opaque: [0; 8] }.write(out);
                }
            }
            _ => out.extend_from_slice(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01GET / HTTP/1.1\r\n\r\n"),
        }
    }

    fn send_bodies(&mut self, dice: &mut Dice) {
        for _ in 0..4 {
            let Some((key, room)) = self.machine.next_turn() else { return };
            let Some(stream) = self.streams.iter_mut().find(|stream| stream.key == key) else { return };
            let count = stream.body.len().min(room).min(1 + dice.below(8_000));
            let (piece, rest) = stream.body.split_at(count);
            let sent = self.machine.send_data(key, piece, rest.is_empty(), &mut self.out);
            stream.body = &stream.body[sent..];
            self.machine.set_has_data(key, !stream.body.is_empty());
        }
    }

    fn write(&mut self, dice: &mut Dice) {
        let mut most = 1 + dice.below(6_000);
        if let Some(at) = self.breaks_at {
            most = most.min(at - self.total_sent.min(at));
        }
        let Some(line) = &mut self.line else { return };
        if self.sent < self.out.len() {
            match line.send(&self.out[self.sent..], most) {
                Some(count) => {
                    self.sent += count;
                    self.total_sent += count;
                }
                None => self.sent = self.out.len(),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        if self.breaks_at.is_some_and(|at| self.total_sent >= at)
            && let Some(line) = self.line.take()
            && dice.one_in(2)
        {
            line.reset();
        }
    }

    fn take_input(&mut self, now_ms: u64, ledger: &mut Ledger) -> Result<(), String> {
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        loop {
            let Client { machine, head, out, .. } = self;
            let event = machine.read(&mut rest, now_ms, HEAD_BYTES, head, out);
            if event.is_err() && self.is_cursed {
                // Answers to a flood, say.
                self.line = None;
                return Ok(());
            }
            let event = event.map_err(|error| format!("a client was sent bad frames: {error:?}"))?;
            let position = |key| self.streams.iter().position(|stream| stream.key == key);
            let (key, found) = match event {
                ClientEvent::NeedMore | ClientEvent::Closed => return Ok(()),
                ClientEvent::GoingAway { .. } => {
                    self.is_left = true;
                    continue;
                }
                ClientEvent::Interim { .. } => continue,
                ClientEvent::Head { stream, .. } => (stream, Found::Head),
                ClientEvent::Data { stream, data } => (stream, Found::Data(data)),
                ClientEvent::End { stream, .. } => (stream, Found::End),
                ClientEvent::Lost { stream, loss } => (stream, Found::Lost(loss)),
            };
            let Some(at) = position(key) else { return Err(format!("an event for no stream: {found:?}")) };
            let stream = &mut self.streams[at];
            match found {
                Found::Head => {
                    stream.receipt.read_head(&self.head);
                    ledger.take_head(stream.id, &stream.receipt)?;
                }
                Found::Data(data) => {
                    stream.receipt.body.extend_from_slice(data);
                    stream.held += data.len();
                }
                Found::End => {
                    ledger.take_end(stream.id, &stream.receipt)?;
                    stream.is_over = true;
                    // What is left of the request is of no use to anyone.
                    if !stream.body.is_empty() {
                        self.machine.reset(key, ErrorCode::NO_ERROR, &mut self.out);
                    }
                }
                Found::Lost(loss) => {
                    stream.is_excused |= !stream.is_over && !loss.may_be_processed;
                    law!(
                        stream.is_over || stream.is_excused || ledger.faults || self.is_cursed,
                        "request {} lost its stream: {loss:?}",
                        stream.id
                    );
                    stream.is_over = true;
                }
            }
        }
    }

    /// What must hold in the end.
    pub fn judge(&self, ledger: &Ledger) -> Result<(), String> {
        if ledger.faults {
            return Ok(());
        }
        law!(
            self.is_left || self.waiting.is_empty(),
            "{} requests could not be asked, closed: {}",
            self.waiting.len(),
            self.line.is_none()
        );
        for stream in &self.streams {
            law!(
                stream.is_over,
                "request {} has {} bytes of a response with status {}, slow {}, window {}, shut {}, closed {}",
                stream.id,
                stream.receipt.body.len(),
                stream.receipt.status,
                self.is_slow,
                self.stream_window,
                self.shut_windows,
                self.line.is_none()
            );
        }
        Ok(())
    }
}

/// What came for a stream.
#[derive(Debug)]
enum Found<'a> {
    Head,
    Data(&'a [u8]),
    End,
    Lost(h2::StreamLoss),
}
