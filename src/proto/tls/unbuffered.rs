//! A server's connection whose library keeps no buffers: its buffered kind holds 4 KiB for the next read as long as a
//! connection lives, which is half of what an idle one costs.
//!
//! The library works in place on what came and was not used up. Mostly that is nothing, and records are decrypted in
//! scratch space of the thread; what is left of them, a part of a record or of a handshake message, is kept.

use std::cell::Cell;
use std::io::IoSlice;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use smallvec::SmallVec;

use super::error::{Fault, TlsError};
use super::machine::Received;

/// The most that is kept of a handshake message, in bytes: the library's own bound of its buffered kind.
const MOST_PENDING: usize = 0xffff;
/// The most that encryption adds to a record, in bytes (header, explicit nonce, type, tag).
const RECORD_OVERHEAD: usize = 32;
/// Scratch space of more bytes than this is not kept.
const MOST_SCRATCH: usize = 256 << 10;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

pub(super) struct Unbuffered {
    connection: UnbufferedServerConnection,
    /// What came and is not whole.
    pending: Vec<u8>,
    /// The peer sends nothing more.
    peer_closed: bool,
    /// Early data came.
    early: bool,
}

impl Unbuffered {
    /// `first` is what came before: the ClientHello, and whatever stood behind it. It is looked at with what comes next,
    /// be that nothing.
    pub fn new(connection: UnbufferedServerConnection, first: Vec<u8>) -> Unbuffered {
        Unbuffered { connection, pending: first, peer_closed: false, early: false }
    }

    /// What the library knows.
    pub fn connection(&self) -> &UnbufferedServerConnection {
        &self.connection
    }

    /// Gives it up.
    pub fn into_connection(self) -> UnbufferedServerConnection {
        self.connection
    }

    /// Whether early data came.
    pub fn had_early_data(&self) -> bool {
        self.early
    }

    /// Whether every record that began has ended, and nothing waits to be looked at.
    pub fn is_between_records(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes all of `input`, appends the plaintext in it, and what is to be sent: an alert where there is an error.
    pub fn receive(
        &mut self,
        input: &mut &[u8],
        plaintext: &mut Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Result<Received, TlsError> {
        let fresh = std::mem::take(input);
        if self.peer_closed {
            return Ok(Received::Closed);
        }
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(fresh);
            let mut bytes = std::mem::take(&mut self.pending);
            let used = self.process(&mut bytes, plaintext, output)?;
            bytes.drain(..used);
            if !bytes.is_empty() {
                self.pending = bytes;
            }
        } else {
            let mut bytes = SCRATCH.take();
            bytes.clear();
            bytes.extend_from_slice(fresh);
            let result = self.process(&mut bytes, plaintext, output);
            if let Ok(used) = result {
                self.pending.extend_from_slice(&bytes[used..]);
            }
            if bytes.capacity() <= MOST_SCRATCH {
                SCRATCH.set(bytes);
            }
            result?;
        }
        if self.pending.len() > MOST_PENDING {
            return Err(TlsError::new(Fault::Broken, "too long a handshake message"));
        }
        match self.peer_closed {
            true => {
                self.pending = Vec::new();
                Ok(Received::Closed)
            }
            false => Ok(Received::NeedMore),
        }
    }

    /// Works on all of `bytes`; returns how many of them are used up.
    fn process(
        &mut self,
        bytes: &mut [u8],
        plaintext: &mut Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Result<usize, TlsError> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut bytes[used..]);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        plaintext.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                }
                Ok(ConnectionState::ReadEarlyData(mut early)) => {
                    self.early = true;
                    // The library's limit on early data bounds it.
                    while let Some(record) = early.next_record() {
                        let record = record?;
                        plaintext.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, output),
                Ok(ConnectionState::TransmitTlsData(transmitted)) => transmitted.done(),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.peer_closed = true;
                    return Ok(used + discard);
                }
                Ok(_) => return Ok(used + discard),
                Err(error) => {
                    // The alert that tells the peer. The library looks at no record as long as it has something to say.
                    let rest = &mut bytes[used + discard..];
                    while self.connection.wants_write()
                        && let Ok(ConnectionState::EncodeTlsData(data)) =
                            self.connection.process_tls_records(rest).state
                    {
                        encode(data, output);
                    }
                    return Err(error.into());
                }
            }
            used += discard;
        }
    }

    /// Encrypts the pieces, one behind the other, into as few records of `record_size` bytes as can be. Nothing is
    /// written before the handshake lets it.
    pub fn write(&mut self, pieces: &[IoSlice<'_>], record_size: usize, output: &mut Vec<u8>) {
        let Some(last) = pieces.iter().rposition(|piece| !piece.is_empty()) else { return };
        self.with_traffic(output, |traffic, output| {
            // The library takes one slice: what is smaller than a record is gathered.
            let mut gathered: SmallVec<[u8; 2048]> = SmallVec::new();
            for (at, piece) in pieces.iter().enumerate() {
                let mut rest: &[u8] = piece;
                if !gathered.is_empty() {
                    let (front, behind) = rest.split_at(rest.len().min(record_size - gathered.len()));
                    gathered.extend_from_slice(front);
                    rest = behind;
                    if gathered.len() == record_size {
                        encrypt(traffic, &gathered, record_size, output);
                        gathered.clear();
                    }
                }
                let is_last = at == last && gathered.is_empty();
                let whole = if is_last { rest.len() } else { rest.len() / record_size * record_size };
                encrypt(traffic, &rest[..whole], record_size, output);
                gathered.extend_from_slice(&rest[whole..]);
            }
            encrypt(traffic, &gathered, record_size, output);
        });
    }

    /// Appends the notice that nothing more is sent (`close_notify`).
    pub fn close(&mut self, output: &mut Vec<u8>) {
        self.with_traffic(output, |traffic, output| {
            append(output, 2 + RECORD_OVERHEAD, |room| traffic.queue_close_notify(room));
        });
    }

    /// Appends what the library wants sent, then what `write` has to say, if that may be said now.
    fn with_traffic(
        &mut self,
        output: &mut Vec<u8>,
        write: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>, &mut Vec<u8>),
    ) {
        loop {
            // No record in these bytes is whole, so that nothing comes of them.
            match self.connection.process_tls_records(&mut self.pending).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => return write(&mut traffic, output),
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, output),
                Ok(ConnectionState::TransmitTlsData(transmitted)) => transmitted.done(),
                // Both sides have said goodbye: there is nobody left.
                Ok(ConnectionState::Closed) => return,
                _ => {
                    debug_assert!(false, "written to before the handshake was over");
                    return;
                }
            }
        }
    }
}

fn encode(mut data: EncodeTlsData<'_, ServerConnectionData>, output: &mut Vec<u8>) {
    // It tells its length by refusing to be written nowhere.
    if let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) {
        let start = output.len();
        output.resize(start + needed.required_size, 0);
        let written = data.encode(&mut output[start..]).unwrap_or(0);
        output.truncate(start + written);
    }
}

fn encrypt(
    traffic: &mut WriteTraffic<'_, ServerConnectionData>,
    bytes: &[u8],
    record_size: usize,
    output: &mut Vec<u8>,
) {
    if !bytes.is_empty() {
        let most = bytes.len() + bytes.len().div_ceil(record_size) * RECORD_OVERHEAD;
        append(output, most, |room| traffic.encrypt(bytes, room));
    }
}

/// Appends what `write` writes into `room` bytes, or into as many as it says that it needs. Keys that are used up leave
/// nothing to be done: the library has ended the connection with an alert.
fn append(
    output: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) {
    let start = output.len();
    for _ in 0..2 {
        output.resize(start + room, 0);
        match write(&mut output[start..]) {
            Ok(written) => return output.truncate(start + written),
            Err(EncryptError::InsufficientSize(needed)) => room = needed.required_size,
            Err(EncryptError::EncryptExhausted) => break,
        }
    }
    output.truncate(start);
}
