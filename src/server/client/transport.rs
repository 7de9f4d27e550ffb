//! The way to a client: a bare socket, one under TLS (the library's or the kernel's), a stream of HTTP/2, or a pipe.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown};

use super::h2::stream::StreamEnd;
use super::kernel_tls::KernelTls;
use super::pipe::PipeEnd;
use super::tls::TlsSocket;

/// See the module's documentation.
pub enum Transport {
    /// Bytes go as they are.
    Plain(OwnedFd),
    /// Bytes are encrypted.
    Tls(Box<TlsSocket>),
    /// The kernel encrypts them.
    Kernel(Box<KernelTls>),
    /// Bytes go in frames of an HTTP/2 connection's stream.
    Stream(StreamEnd),
    /// Bytes go to another request.
    Pipe(PipeEnd),
    /// It was taken out.
    Gone,
}

impl Transport {
    /// The socket under it.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Transport::Plain(socket) => Some(socket.as_fd()),
            Transport::Tls(tls) => Some(tls.socket.as_fd()),
            Transport::Kernel(kernel) => Some(kernel.socket()),
            Transport::Stream(_) | Transport::Pipe(_) | Transport::Gone => None,
        }
    }

    /// Receives bytes of the wire, decrypted ones where the kernel does that.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        if let Transport::Kernel(kernel) = self {
            return kernel.receive(buffer);
        }
        let socket = self.socket().ok_or(Errno::NOTCONN)?;
        rustix::net::recv(socket, buffer, RecvFlags::empty()).map(|(count, _)| count)
    }

    /// Tells the peer that nothing more comes.
    pub fn shut_down(&self) -> Result<(), Errno> {
        rustix::net::shutdown(self.socket().ok_or(Errno::NOTCONN)?, Shutdown::Write)
    }

    /// A TLS connection that turned out to be none.
    pub fn drop_tls(&mut self) {
        *self = match std::mem::replace(self, Transport::Gone) {
            Transport::Tls(tls) => Transport::Plain(tls.socket),
            other => other,
        };
    }

    /// The socket if it takes plaintext, so that the kernel may send files by itself.
    pub fn plain(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Transport::Plain(socket) => Some(socket.as_fd()),
            Transport::Kernel(kernel) => Some(kernel.socket()),
            Transport::Tls(_) | Transport::Stream(_) | Transport::Pipe(_) | Transport::Gone => None,
        }
    }

    /// Notes what the kernel has sent of a file.
    pub fn count_sent(&self, bytes: u64) -> Result<(), Errno> {
        match self {
            Transport::Kernel(kernel) => kernel.count(bytes),
            _ => Ok(()),
        }
    }

    /// Whether a goodbye of TLS was promised that the kernel has not taken yet.
    pub fn owes_goodbye(&self) -> bool {
        matches!(self, Transport::Kernel(kernel) if kernel.owes_goodbye())
    }

    /// Whether the peer has said within TLS that it sends nothing more.
    pub fn has_ended(&self) -> bool {
        matches!(self, Transport::Tls(tls) if tls.has_ended())
    }
}
