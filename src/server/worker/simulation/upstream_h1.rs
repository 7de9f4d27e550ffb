//! An upstream's connection that speaks HTTP/1.

use crate::message::{FieldName, Method, RequestFraming, RequestHead, Version};
use crate::proto::h1;

use super::client_h1::write_chunks;
use super::dice::Dice;
use super::laws::{Ledger, Role, law};
use super::line::Line;
use super::upstream::{Answer, BREAKS, Ending};

/// See the module's documentation.
pub struct Connection {
    line: Option<Line>,
    wire: h1::Connection,
    head: RequestHead,
    input: Vec<u8>,
    /// The request that is being read, and its body so far.
    current: Option<(usize, Role, Vec<u8>)>,
    out: Vec<u8>,
    sent: usize,
    ending: Ending,
}

impl Connection {
    pub fn new(line: Line) -> Connection {
        Connection {
            line: Some(line),
            wire: h1::Connection::new(),
            head: RequestHead::default(),
            input: Vec::new(),
            current: None,
            out: Vec::new(),
            sent: 0,
            ending: Ending::Open,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.line.is_none()
    }

    /// Sends some, or reads some.
    pub fn step(&mut self, ledger: &mut Ledger, dice: &mut Dice) -> Result<(), String> {
        let (sends, reads) = (1 + dice.below(6_000), 1 + dice.below(6_000));
        let Some(line) = &mut self.line else { return Ok(()) };
        if self.sent < self.out.len() {
            match line.send(&self.out[self.sent..], sends) {
                Some(count) => self.sent += count,
                None => self.line = None,
            }
            return Ok(());
        }
        self.out.clear();
        self.sent = 0;
        match self.ending {
            Ending::Open => {}
            Ending::Silent => return Ok(()),
            Ending::Reset => {
                if let Some(line) = self.line.take() {
                    line.reset();
                }
                return Ok(());
            }
            Ending::Close => {
                self.line = None;
                return Ok(());
            }
        }
        if ledger.faults && dice.one_in(50) {
            // An idle connection, or one in the middle of a request, is closed.
            self.line = None;
            return Ok(());
        }
        if line.read(reads, &mut self.input).is_none() {
            self.line = None;
            return Ok(());
        }
        self.read_request(ledger, dice)
    }

    /// Takes what has come of requests apart; the answer to a whole one is put out.
    fn read_request(&mut self, ledger: &mut Ledger, dice: &mut Dice) -> Result<(), String> {
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        loop {
            let event = self.wire.read(&mut rest, &h1::HeadLimits::default(), &mut self.head);
            let event = event.map_err(|error| {
                let shown = String::from_utf8_lossy(&input);
                format!("an upstream was sent what is no request: {error:?} in {shown:?}")
            })?;
            let mut is_whole = false;
            match event {
                h1::Event::Head => {
                    let method = self.head.text(self.head.method_text);
                    let (id, role) = ledger.recognise(self.head.target(), method)?;
                    let has_both =
                        self.head.has(FieldName::TransferEncoding) && self.head.has(FieldName::ContentLength);
                    law!(!has_both, "both framings");
                    is_whole = self.head.framing == RequestFraming::None;
                    self.current = Some((id, role, Vec::new()));
                }
                h1::Event::Body(bytes) => {
                    if let Some((_, _, body)) = &mut self.current {
                        body.extend_from_slice(bytes);
                    }
                }
                h1::Event::BodyEnd => is_whole = true,
                h1::Event::NeedMore | h1::Event::Paused => break,
            }
            if is_whole {
                law!(rest.is_empty(), "bytes behind a request: {:?}", String::from_utf8_lossy(rest));
                return self.answer(ledger, dice);
            }
            if ledger.faults && dice.one_in(200) {
                // An answer before the request is complete, and a close.
                self.out =
                    b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy".to_vec();
                self.ending = Ending::Close;
                return Ok(());
            }
        }
        self.input = rest.to_vec();
        Ok(())
    }

    fn answer(&mut self, ledger: &mut Ledger, dice: &mut Dice) -> Result<(), String> {
        let Some((id, role, body)) = self.current.take() else { return Ok(()) };
        ledger.request_is_whole(id, role, &body)?;
        let mut answer = Answer::new(id, role, ledger);
        answer.is_head = self.head.method == Method::Head;
        self.wire = h1::Connection::new();
        if ledger.faults && dice.one_in(12) {
            let junk: &[&[u8]] = &[
                b"\x16\x03\x01junk",
                b"HTTP/1.1 abc\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
                b"",
            ];
            self.out.extend_from_slice(junk[dice.below(junk.len())]);
            self.ending = *dice.pick(BREAKS);
            return Ok(());
        }
        if role == Role::Check {
            ledger.note_leave(id);
        }
        self.write_answer(id, &answer, ledger.faults, dice);
        Ok(())
    }

    fn write_answer(&mut self, id: usize, answer: &Answer, faults: bool, dice: &mut Dice) {
        let is_http10 = self.head.version == Version::Http10;
        let out = &mut self.out;
        if !is_http10 && dice.one_in(6) {
            out.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
        }
        let closes = dice.one_in(5);
        let connection = if closes { "close" } else { "keep-alive" };
        let head = format!(
            "HTTP/1.1 {} OK\r\nX-Id: {id}\r\nContent-Type: text/plain\r\nConnection: {connection}\r\n",
            answer.status
        );
        out.extend_from_slice(head.as_bytes());
        let mut content = &answer.body[..];
        let length = content.len();
        let is_cut = faults && dice.one_in(10) && length > 0;
        if is_cut {
            content = &content[..dice.below(length)];
        }
        if answer.is_head {
            content = b"";
        }
        match dice.below(3) {
            0 if !is_http10 => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                write_chunks(content, dice, out);
                if !is_cut && !answer.is_head {
                    out.extend_from_slice(b"0\r\n\r\n");
                }
            }
            1 if closes && !is_cut => {
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(content);
            }
            _ => {
                out.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
                out.extend_from_slice(content);
            }
        }
        if is_cut && !answer.is_head {
            self.ending = *dice.pick(BREAKS);
        } else if closes || faults && dice.one_in(15) {
            self.ending = Ending::Close;
        }
    }
}
