//! What both sides do alike: bytes into the library, plaintext and bytes out of it.

use std::io::{BufRead, IoSlice, Write};
use std::ops::DerefMut;

use rustls::{ConnectionCommon, SideData};

use super::error::{Fault, TlsError};

/// How far the input led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// All of it is used; more must come.
    NeedMore,
    /// A server: a ClientHello is there, and the rest of the input waits. Look at `hello`, then `choose`.
    Hello,
    /// The peer said that it sends nothing more (`close_notify`). What follows is ignored.
    Closed,
}

/// Feeds all of `input`, appends the plaintext that it holds, and what is to be sent. The library takes 4 KiB at a
/// time, hence the loop; plaintext is never more than what was fed.
pub(super) fn feed<C, D>(
    connection: &mut C,
    input: &mut &[u8],
    plaintext: &mut Vec<u8>,
    output: &mut Vec<u8>,
    mut after_each: impl FnMut(&mut C, &mut Vec<u8>),
) -> Result<Received, TlsError>
where
    C: DerefMut<Target = ConnectionCommon<D>>,
    D: SideData,
{
    loop {
        // Without input there is work still: the library may hold bytes that stood behind a ClientHello.
        if !input.is_empty() {
            connection.read_tls(input).map_err(|error| TlsError::new(Fault::Internal, error.to_string()))?;
        }
        let state = match connection.process_new_packets() {
            Ok(state) => state,
            Err(error) => {
                // What was whole before it counts.
                drain(connection, plaintext);
                gather(connection, output);
                return Err(error.into());
            }
        };
        after_each(connection, plaintext);
        drain(connection, plaintext);
        gather(connection, output);
        if state.peer_has_closed() {
            *input = &[];
            return Ok(Received::Closed);
        }
        if input.is_empty() {
            return Ok(Received::NeedMore);
        }
    }
}

/// Appends the plaintext that the library holds.
fn drain<D: SideData>(connection: &mut ConnectionCommon<D>, plaintext: &mut Vec<u8>) {
    let mut reader = connection.reader();
    // An error says that there is nothing now: whether there will be is told by the state.
    while let Ok(chunk) = reader.fill_buf() {
        if chunk.is_empty() {
            break;
        }
        plaintext.extend_from_slice(chunk);
        let length = chunk.len();
        reader.consume(length);
    }
}

/// Appends the bytes that the library wants sent.
pub(super) fn gather<D>(connection: &mut ConnectionCommon<D>, output: &mut Vec<u8>) {
    while connection.wants_write() {
        // A `Vec` takes everything, so that nothing but an empty queue ends this.
        if !connection.write_tls(output).is_ok_and(|written| written > 0) {
            break;
        }
    }
}

/// Encrypts the pieces, one behind the other, into as few records as can be.
pub(super) fn write<D: SideData>(
    connection: &mut ConnectionCommon<D>,
    pieces: &[IoSlice<'_>],
    output: &mut Vec<u8>,
) {
    let mut rest: smallvec::SmallVec<[IoSlice<'_>; 16]> = pieces.iter().copied().collect();
    let mut rest = &mut rest[..];
    // Removes empty pieces in front, so that the loop ends with the last byte.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let taken = connection.writer().write_vectored(rest).unwrap_or(0);
        gather(connection, output);
        if taken == 0 {
            debug_assert!(false, "written to before the handshake was over");
            break;
        }
        IoSlice::advance_slices(&mut rest, taken);
    }
}
