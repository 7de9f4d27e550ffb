//! `mp4`: MPEG-4 videos from a time within them. `?start=SECONDS` and `?end=SECONDS` are answered by a new head, made of
//! the file's own (`cut.rs`), and the part of the file's media data that belongs to it.

mod atoms;
mod cut;
#[cfg(test)]
mod tests;

use crate::base::level::Level;
use crate::conf::directive::Arity;
use crate::http::body::Body;
use crate::http::build::arguments::{flag, size};
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::file::{FileInfo, FileRange};
use crate::http::flow::{Answer, Flow, Need};
use crate::http::settings::contexts::{HTTP_SERVER_LOCATION, LOCATION};
use crate::http::settings::settings;
use crate::message::Status;

use super::core_variables::find_argument;
use super::static_files;

use atoms::{Fault, Head, LONGEST_HEAD};
use cut::{Cut, cut};

pub use cut::{Wanted, law_a_cut_movie_can_be_cut_again};

settings! {
    module mp4;
    fields {
        /// Whether files are cut to the times that the arguments `start` and `end` name.
        enabled: bool = false, own;
            "mp4" LOCATION, Arity::exactly(0), default "", once |_, _| Ok(true);
        /// How many bytes of a file's head are read at a time.
        buffer_size: u64 = 512 * 1024, inherit;
            "mp4_buffer_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "512k", once size;
        /// The largest head that is taken, in bytes.
        max_buffer_size: u64 = 10 << 20, inherit;
            "mp4_max_buffer_size" HTTP_SERVER_LOCATION, Arity::exactly(1), default "10m", once size;
        /// Whether what is sent begins at a key frame, and is shown from the time that was asked for.
        start_key_frame: bool = false, inherit;
            "mp4_start_key_frame" HTTP_SERVER_LOCATION, Arity::FLAG, default "off", once flag;
    }
}

/// Where the cutting of a video stands.
pub type Note = Option<Box<Scan>>;

/// A `ftyp` atom is no larger, in bytes.
const LARGEST_FTYP: u64 = 1024;
/// A file has no more atoms before what is looked for.
const MOST_ATOMS: u32 = 1000;

/// Looks for the atoms at a file's top.
pub struct Scan {
    file: FileInfo,
    wanted: Wanted,
    buffer_size: u64,
    max_buffer_size: u64,
    /// Where the next atom begins.
    position: u64,
    seen: u32,
    /// What was read, and where that begins.
    window: Vec<u8>,
    window_at: u64,
    ftyp: Vec<u8>,
    moov: Option<Vec<u8>>,
    has_mdat: bool,
}

/// What to read: an offset and at most so many bytes.
type Missing = (u64, u64);

/// The content handler.
pub fn handle(exchange: &mut Exchange, context: &mut Context, answer: Option<Answer>) -> Flow {
    let settings = &context.site.settings(exchange.location).mp4;
    if !settings.enabled {
        return Flow::Next;
    }
    let scan = match (answer, exchange.notes.mp4.take()) {
        (Some(Answer::Read(read)), Some(mut scan)) => match read.filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => {
                scan.window.extend_from_slice(&bytes);
                scan
            }
            None => return refuse(exchange, context, "mp4 file was truncated"),
        },
        (answer, _) => {
            let file = match static_files::found(exchange, context, answer) {
                Ok(file) => file,
                Err(flow) => return flow,
            };
            exchange.respond_with_file(context, file.clone());
            match wanted(&exchange.args, settings.start_key_frame) {
                Some(wanted) => Box::new(Scan::new(file, wanted, settings)),
                None => return Flow::Respond,
            }
        }
    };
    go_on(exchange, context, scan)
}

fn go_on(exchange: &mut Exchange, context: &mut Context, mut scan: Box<Scan>) -> Flow {
    let found = match scan.advance() {
        Ok(None) => scan.cut(),
        Ok(Some((offset, length))) => {
            let Some(handle) = scan.file.handle.clone() else {
                return Flow::Status(Status::INTERNAL_SERVER_ERROR);
            };
            exchange.reading = Some(FileRange { handle, offset, length });
            exchange.notes.mp4 = Some(scan);
            return Flow::Need(Need::Read);
        }
        Err(fault) => Err(fault),
    };
    match found {
        Ok(Cut { head, start, end }) => {
            let data = exchange.body.slice(start, end - start);
            exchange.respond_with_pieces(context, vec![data, Body::Bytes(head)], scan.file.modified_secs);
            Flow::Respond
        }
        Err(fault) => refuse(exchange, context, fault),
    }
}

fn refuse(exchange: &mut Exchange, context: &mut Context, fault: Fault) -> Flow {
    let path = String::from_utf8_lossy(&exchange.path).into_owned();
    exchange.log(context, Level::Error, format_args!("{fault} in \"{path}\""));
    Flow::Status(Status::INTERNAL_SERVER_ERROR)
}

/// What the arguments ask for; `None` for the whole file.
fn wanted(args: &[u8], key_frame: bool) -> Option<Wanted> {
    let start = find_argument(args, b"start").and_then(milliseconds);
    let end = find_argument(args, b"end").and_then(milliseconds).filter(|end| *end > 0);
    let start_ms = match (start, end) {
        (None, None) => return None,
        (start, _) => start.unwrap_or(0),
    };
    let length_ms = end.and_then(|end| end.checked_sub(start_ms)).filter(|length| *length > 0);
    Some(Wanted { start_ms, length_ms, key_frame })
}

/// Seconds with a fraction of any number of digits, of which three count.
fn milliseconds(text: &[u8]) -> Option<u64> {
    let (whole, fraction) = match memchr::memchr(b'.', text) {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    if text.is_empty() || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { crate::base::ascii::parse_u64(whole)? };
    let digits = (0..3).map(|at| u64::from(fraction.get(at).map_or(0, |digit| digit - b'0')));
    whole.checked_mul(1000)?.checked_add(digits.fold(0, |sum, digit| sum * 10 + digit))
}

impl Scan {
    fn new(file: FileInfo, wanted: Wanted, settings: &Settings) -> Scan {
        Scan {
            file,
            wanted,
            buffer_size: settings.buffer_size.max(LONGEST_HEAD as u64),
            max_buffer_size: settings.max_buffer_size,
            position: 0,
            seen: 0,
            window: Vec::new(),
            window_at: 0,
            ftyp: Vec::new(),
            moov: None,
            has_mdat: false,
        }
    }

    /// Goes on until all is found or more must be read.
    fn advance(&mut self) -> Result<Option<Missing>, Fault> {
        while self.moov.is_none() || !self.has_mdat {
            let left = self.file.size.saturating_sub(self.position);
            if left < 8 {
                break;
            }
            self.seen += 1;
            if self.seen > MOST_ATOMS {
                return Err("mp4 file has too many atoms");
            }
            let bytes = match self.bytes(self.position, left.min(LONGEST_HEAD as u64)) {
                Ok(bytes) => bytes,
                Err(missing) => {
                    self.seen -= 1;
                    return Ok(Some(missing));
                }
            };
            let Some(head) = Head::read(bytes, left)? else { break };
            let bound = match &head.kind {
                b"ftyp" => LARGEST_FTYP,
                b"moov" => self.max_buffer_size,
                _ => 0,
            };
            if bound > 0 {
                if head.length > bound {
                    return Err(if head.kind == *b"moov" {
                        "mp4 moov atom is too large, you may want to increase mp4_max_buffer_size"
                    } else {
                        "mp4 ftyp atom is too large"
                    });
                }
                let atom = match self.bytes(self.position, head.length) {
                    Ok(atom) => atom.to_vec(),
                    Err(missing) => {
                        self.seen -= 1;
                        return Ok(Some(missing));
                    }
                };
                if head.kind == *b"moov" {
                    self.moov = Some(atom[head.head_length as usize..].to_vec());
                } else {
                    self.ftyp = atom;
                }
            }
            self.has_mdat |= head.kind == *b"mdat";
            self.position += head.length;
        }
        Ok(None)
    }

    fn cut(&self) -> Result<Cut, Fault> {
        let moov = self.moov.as_deref().ok_or("no mp4 moov atom was found")?;
        if !self.has_mdat {
            return Err("no mp4 mdat atom was found");
        }
        cut(&self.ftyp, moov, self.file.size, self.wanted)
    }

    /// These bytes of the file, which must lie within; else what must be read for them.
    fn bytes(&mut self, offset: u64, length: u64) -> Result<&[u8], Missing> {
        if offset < self.window_at || offset > self.window_at + self.window.len() as u64 {
            self.window.clear();
            self.window_at = offset;
        }
        let (has, wants) = (self.window_at + self.window.len() as u64, offset + length);
        if has < wants {
            let left = self.file.size - has;
            return Err((has, (wants - has).max(self.buffer_size).min(left)));
        }
        let from = (offset - self.window_at) as usize;
        Ok(&self.window[from..from + length as usize])
    }
}
