//! A client that speaks HTTP/1.1: some requests, one after the other or pipelined, sent and read bit by bit.

use crate::message::{FieldName, ResponseHead};
use crate::proto::h1;

use super::dice::Dice;
use super::laws::{Ledger, Method, Receipt, law};
use super::line::{Address, Line};

/// See the module's documentation.
pub struct Client {
    line: Option<Line>,
    /// What is to be sent, and how much of it was.
    script: Vec<u8>,
    sent: usize,
    /// After so many bytes it resets the connection.
    breaks_at: Option<usize>,
    is_slow: bool,
    asked: Vec<usize>,
    answered: usize,
    input: Vec<u8>,
    reader: h1::ResponseReader,
    head: ResponseHead,
    /// A response has begun to be read.
    receipt: Option<Receipt>,
    /// A response said that it is the last one.
    is_last: bool,
}

impl Client {
    pub fn new(front: &Address, ledger: &mut Ledger, dice: &mut Dice) -> Client {
        let is_slow = dice.one_in(4);
        let (mut script, mut asked) = (Vec::new(), Vec::new());
        for _ in 0..1 + dice.below(4) {
            let id = ledger.ask(dice);
            write_request(id, ledger, dice, &mut script);
            asked.push(id);
        }
        let breaks_at = (ledger.faults && dice.one_in(5)).then(|| dice.below(script.len() + 1));
        Client {
            line: Some(front.connect(is_slow.then_some(32 * 1024))),
            script,
            sent: 0,
            breaks_at,
            is_slow,
            asked,
            answered: 0,
            input: Vec::new(),
            reader: h1::ResponseReader::new(h1::ResponseLimits::default()),
            head: ResponseHead::default(),
            receipt: None,
            is_last: false,
        }
    }

    /// Whether nothing more is to come.
    pub fn is_done(&self) -> bool {
        self.line.is_none() || self.sent == self.script.len() && self.answered == self.asked.len()
    }

    /// Sends some, reads some.
    pub fn step(&mut self, ledger: &mut Ledger, dice: &mut Dice) -> Result<(), String> {
        let (sends, reads) = (1 + dice.below(4_000), 1 + dice.below(9_000));
        let Some(line) = &mut self.line else { return Ok(()) };
        let most = self.breaks_at.map_or(sends, |at| sends.min(at - self.sent.min(at)));
        if self.sent < self.script.len() {
            match line.send(&self.script[self.sent..], most) {
                Some(count) => self.sent += count,
                None => self.sent = self.script.len(),
            }
        }
        if self.breaks_at.is_some_and(|at| self.sent >= at) {
            if let Some(line) = self.line.take() {
                line.reset();
            }
            return Ok(());
        }
        let most = if self.is_slow { reads.min(1500) } else { reads };
        if line.read(most, &mut self.input).is_none() {
            self.line = None;
        }
        self.take_input(ledger)
    }

    fn take_input(&mut self, ledger: &mut Ledger) -> Result<(), String> {
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        let result = self.take_responses(&mut rest, ledger);
        self.input = rest.to_vec();
        result
    }

    fn take_responses(&mut self, input: &mut &[u8], ledger: &mut Ledger) -> Result<(), String> {
        loop {
            if self.receipt.is_none() && input.is_empty() {
                return Ok(());
            }
            let shown = || String::from_utf8_lossy(&input[..input.len().min(80)]).into_owned();
            law!(!self.is_last || self.receipt.is_some(), "bytes behind the last response: {}", shown());
            let Some(&id) = self.asked.get(self.answered) else {
                return Err(format!("a response that nobody asked for: {}", shown()));
            };
            let receipt = match &mut self.receipt {
                Some(receipt) => receipt,
                None => {
                    let head = ledger.record(id).method == Method::Head;
                    let asked = h1::Asked { head, upgrade: false, connect: false, head_bytes: 16 * 1024 };
                    self.reader.begin(asked);
                    self.receipt.insert(Receipt::default())
                }
            };
            match self.reader.read(input, &mut self.head) {
                Ok(h1::ResponseEvent::NeedMore) => return Ok(()),
                Ok(h1::ResponseEvent::Interim | h1::ResponseEvent::Trailers) => {}
                Ok(h1::ResponseEvent::Head(_)) => {
                    receipt.read_head(&self.head);
                    let connection = self.head.fields.first(FieldName::Connection);
                    self.is_last = connection.is_some_and(|value| value == b"close");
                    ledger.take_head(id, receipt)?;
                }
                Ok(h1::ResponseEvent::Body(bytes)) => receipt.body.extend_from_slice(bytes),
                Ok(h1::ResponseEvent::End) => {
                    ledger.take_end(id, receipt)?;
                    self.receipt = None;
                    self.answered += 1;
                }
                Err(error) => return Err(format!("request {id}: a client was sent {error:?}")),
            }
        }
    }

    /// What must hold in the end.
    pub fn judge(&self, ledger: &Ledger) -> Result<(), String> {
        law!(
            ledger.faults || self.is_last || self.answered == self.asked.len(),
            "{} of the requests {:?} were answered, then {:?}, {} of {} bytes sent, slow {}, closed {}",
            self.answered,
            self.asked,
            self.receipt.as_ref().map(|receipt| (receipt.status, receipt.body.len())),
            self.sent,
            self.script.len(),
            self.is_slow,
            self.line.is_none()
        );
        Ok(())
    }
}

fn write_request(id: usize, ledger: &Ledger, dice: &mut Dice, out: &mut Vec<u8>) {
    let record = ledger.record(id);
    let head = format!("{} {} HTTP/1.1\r\nHost: a\r\n", record.method.name(), ledger.target(id));
    out.extend_from_slice(head.as_bytes());
    if dice.one_in(2) {
        out.extend_from_slice(b"Accept-Encoding: gzip\r\n");
    }
    if record.method != Method::Post {
        out.extend_from_slice(b"\r\n");
    } else if dice.one_in(2) {
        out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", record.body.len()).as_bytes());
        out.extend_from_slice(record.body);
    } else {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        write_chunks(record.body, dice, out);
        out.extend_from_slice(b"0\r\n\r\n");
    }
}

/// The chunks of a body, without the last one.
pub fn write_chunks(body: &[u8], dice: &mut Dice, out: &mut Vec<u8>) {
    for piece in body.chunks(1 + dice.below(4_000)) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
}
