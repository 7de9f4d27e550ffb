//! A connection whose records the kernel makes and reads (kTLS), so that it sends files by itself.
//!
//! A connection begins with the library and is given to the kernel when it is about to send much of a file
//! (`ssl_conf_command Options KTLS`, where the kernel can): everything was sent that the library had encrypted, and
//! what came so far ends with a record. From then on the socket takes and gives plaintext like a bare one. What is not
//! plaintext comes with its type: a goodbye is the end, everything else ends the connection, renewed keys (which
//! kernels before 6.14 cannot take) included.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::base::level::Level;
use crate::proto::tls::{KernelSecrets, MAX_RECORD};
use crate::server::kernel_tls::support;
use crate::server::sys;
use crate::server::worker::resources::Resources;

use super::Client;
use super::transport::Transport;

/// Less of a file than this is not worth the change: some system calls, and keys that are set up anew.
const OFFLOAD_MIN: u64 = 128 * 1024;
/// More would bring AES-GCM near its bound within one response.
const OFFLOAD_MAX: u64 = 64 << 30;
/// Records after which the connection is not kept for another request.
const RECORDS_WORN: u64 = 1 << 22;
/// Records that AES-GCM may make with one key (RFC 8446, 5.5); the connection ends before.
const RECORDS_MAX: u64 = (1 << 24) - (1 << 16);

/// The types of records (RFC 8446, 5.1).
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;
/// The alert that nothing more comes: a warning, `close_notify`.
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
/// Records without content that one call skips.
const EMPTY_MAX: usize = 32;

/// See the module's documentation.
pub struct KernelTls {
    socket: OwnedFd,
    /// Records that were sent, rounded up; `None` where they are not to be counted.
    records: Cell<Option<u64>>,
    goodbye: Cell<Goodbye>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goodbye {
    /// There is more to say.
    NotYet,
    /// It waits for the socket.
    Owed,
    /// It was sent.
    Said,
}

impl KernelTls {
    /// Hands the keys over to a socket that was prepared for them.
    fn take_over(socket: OwnedFd, secrets: &KernelSecrets) -> std::io::Result<KernelTls> {
        sys::set_tls_keys(socket.as_fd(), true, secrets.transmit.as_bytes())?;
        sys::set_tls_keys(socket.as_fd(), false, secrets.receive.as_bytes())?;
        let records = Cell::new(secrets.suite.wears_out().then_some(secrets.sent_records));
        Ok(KernelTls { socket, records, goodbye: Cell::new(Goodbye::NotYet) })
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Receives plaintext; 0 at the end, by a goodbye or by the connection's.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        for _ in 0..EMPTY_MAX {
            let (count, kind) = sys::receive_record(self.socket(), buffer)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            match (kind, count) {
                (Some(APPLICATION_DATA), 0) => {}
                (Some(ALERT), 2) if buffer[1] == CLOSE_NOTIFY[1] => return Ok(0),
                (None | Some(APPLICATION_DATA), count) => return Ok(count),
                _ => return Err(Errno::CONNRESET),
            }
        }
        Err(Errno::CONNRESET)
    }

    /// Counts what one call has sent.
    pub fn count(&self, bytes: u64) -> Result<(), Errno> {
        let Some(records) = self.records.get() else { return Ok(()) };
        let records = records + bytes / MAX_RECORD as u64 + 1;
        self.records.set(Some(records));
        if records < RECORDS_MAX { Ok(()) } else { Err(Errno::CONNRESET) }
    }

    /// Whether the connection should end with the present response.
    pub fn is_worn(&self) -> bool {
        self.records.get().is_some_and(|records| records >= RECORDS_WORN)
    }

    /// The goodbye is to follow what was sent.
    pub fn owe_goodbye(&self) {
        if self.goodbye.get() == Goodbye::NotYet {
            self.goodbye.set(Goodbye::Owed);
        }
    }

    /// Whether it was promised and not sent.
    pub fn owes_goodbye(&self) -> bool {
        self.goodbye.get() == Goodbye::Owed
    }

    /// Sends it if it is owed. What the kernel took before and the network did not take yet leaves before it, so that a
    /// socket may be closed once this was possible.
    pub fn say_goodbye(&self) -> Result<(), Errno> {
        if !self.owes_goodbye() {
            return Ok(());
        }
        match sys::send_record(self.socket(), ALERT, &CLOSE_NOTIFY) {
            Ok(_) => self.goodbye.set(Goodbye::Said),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN | Errno::INTR) => {}
                other => return Err(other.unwrap_or(Errno::IO)),
            },
        }
        Ok(())
    }
}

impl Client {
    /// Gives the connection to the kernel if it can take it and `length` bytes of a file that are to be sent are worth
    /// it. Nothing that was gathered or encrypted may wait.
    pub(super) fn give_to_kernel(&mut self, length: u64, res: &mut Resources) -> Result<(), Errno> {
        let Transport::Tls(tls) = &mut self.transport else { return Ok(()) };
        if !(OFFLOAD_MIN..OFFLOAD_MAX).contains(&length) || !self.unsent.is_empty() || !res.out.is_empty() {
            return Ok(());
        }
        let Some(suite) = tls.kernel_suite() else { return Ok(()) };
        if !support().has(suite) || sys::attach_tls(tls.socket.as_fd()).is_err() {
            tls.stay();
            return Ok(());
        }
        let Transport::Tls(tls) = std::mem::replace(&mut self.transport, Transport::Gone) else {
            return Ok(());
        };
        let (socket, secrets) = tls.into_kernel();
        let result = match secrets {
            Ok(secrets) => KernelTls::take_over(socket, &secrets).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match result {
            Ok(kernel) => {
                self.transport = Transport::Kernel(Box::new(kernel));
                // What came meanwhile may have brought its event before.
                self.flags.unread = true;
                res.log_connection(
                    self,
                    Level::Debug,
                    format_args!("the kernel encrypts from here on ({suite:?})"),
                );
                Ok(())
            }
            Err(error) => {
                res.log_connection(
                    self,
                    Level::Alert,
                    format_args!("the kernel did not take TLS over: {error}"),
                );
                Err(Errno::CONNRESET)
            }
        }
    }
}
