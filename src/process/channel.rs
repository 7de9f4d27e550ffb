//! What the server process tells the master: that it serves, and after each reload everything that a successor needs:
//! the listening sockets and the text of the running configuration.
//!
//! The other direction is signals. The channel is also how the server process learns that its master is gone.

use super::configuration::KeptText;
use super::invocation::Paths;
use crate::base::level::Level;
use crate::conf::log_target::LogTarget;
use crate::conf::main_settings::ErrorLog;
use crate::server::listeners::ListenerSet;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Descriptors in one message; the kernel takes up to 253.
const DESCRIPTORS_AT_ONCE: usize = 200;

/// Messages are one byte, and descriptors.
const READY: u8 = b'R';
const SOCKETS: u8 = b'S';
const STATE: u8 = b'T';

/// What the master keeps for the next server process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptState {
    pub text: KeptText,
    pub pid_path: PathBuf,
    pub error_logs: Vec<ErrorLog>,
}

impl KeptState {
    /// What a running configuration leaves behind.
    pub fn new(text: KeptText, main: &crate::conf::main_settings::MainSettings, paths: &Paths) -> Self {
        Self { text, pid_path: paths.prefix.join(&main.pid), error_logs: main.error_logs.clone() }
    }

    /// Lengths (64 bits, native) and bytes, one field behind the other: both sides are the same program.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut field = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u64).to_ne_bytes());
            out.extend_from_slice(bytes);
        };
        field(self.pid_path.as_os_str().as_encoded_bytes());
        field(&(self.error_logs.len() as u64).to_ne_bytes());
        for log in &self.error_logs {
            field(&log.target.word());
            field(log.level.name().as_bytes());
        }
        for (path, text) in &self.text.files {
            field(path.as_bytes());
            field(text);
        }
        out
    }

    /// `None` when the bytes are not what [`KeptState::encode`] makes.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut field = || -> Option<Option<&[u8]>> {
            if rest.is_empty() {
                return Some(None);
            }
            let (length, behind) = rest.split_first_chunk::<8>()?;
            let length = usize::try_from(u64::from_ne_bytes(*length)).ok()?;
            let (bytes, behind) = behind.split_at_checked(length)?;
            rest = behind;
            Some(Some(bytes))
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let pid_path = text(field()??)?.into();
        let logs = u64::from_ne_bytes(field()??.try_into().ok()?);
        let mut error_logs = Vec::new();
        for _ in 0..logs {
            let (word, level) = (field()??, field()??);
            let target = LogTarget::parse_error_log(word).ok()?;
            error_logs.push(ErrorLog { target, level: Level::parse(level)? });
        }
        let mut files = BTreeMap::new();
        while let Some(path) = field()? {
            files.insert(text(path)?, field()??.to_vec());
        }
        Some(Self { text: KeptText { files }, pid_path, error_logs })
    }
}

/// Makes the two ends: the master's, which does not block, and the server process's.
pub fn pair() -> io::Result<(MasterEnd, ServerEnd)> {
    let (master, server) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&master, true)?;
    Ok((MasterEnd { socket: master, sockets: Vec::new(), closed: false }, ServerEnd { socket: server }))
}

/// The server process's end.
#[derive(Debug)]
pub struct ServerEnd {
    socket: OwnedFd,
}

impl ServerEnd {
    /// Becomes readable when the master is gone.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// True when the master is gone; it never sends anything.
    pub fn is_closed(&self) -> bool {
        let mut byte = [0];
        matches!(rustix::net::recv(&self.socket, &mut byte[..], RecvFlags::DONTWAIT), Ok((0, _)))
    }

    /// All workers accept connections.
    pub fn ready(&self) -> io::Result<()> {
        self.send(READY, &[])
    }

    /// This runs from now on. The master has it as a whole or not at all.
    pub fn running(&self, state: &KeptState, listeners: &ListenerSet) -> io::Result<()> {
        let descriptors: Vec<BorrowedFd<'_>> = listeners.descriptors().collect();
        for part in descriptors.chunks(DESCRIPTORS_AT_ONCE) {
            self.send(SOCKETS, part)?;
        }
        let mut file = File::from(memfd_create("thalweg", MemfdFlags::CLOEXEC)?);
        file.write_all(&state.encode())?;
        self.send(STATE, &[file.as_fd()])
    }

    fn send(&self, kind: u8, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_AT_ONCE))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        sendmsg(&self.socket, &[IoSlice::new(&[kind])], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// What the master hears.
#[derive(Debug)]
pub enum News {
    Ready,
    /// The whole state of a running configuration.
    Running(KeptState, ListenerSet),
}

/// The master's end.
#[derive(Debug)]
pub struct MasterEnd {
    socket: OwnedFd,
    /// Sockets of a message whose end has not come.
    sockets: Vec<OwnedFd>,
    /// The server process is gone.
    closed: bool,
}

impl MasterEnd {
    /// Becomes readable when there are news; `None` when there will be none any more.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (!self.closed).then(|| self.socket.as_fd())
    }

    /// The next news, if there are any. It does not block.
    pub fn receive(&mut self) -> Option<News> {
        loop {
            let mut kind = [0];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_AT_ONCE))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut kind)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            );
            match received {
                Ok(message) if message.bytes == 0 => {
                    self.closed = true;
                    return None;
                }
                // More than was sent can't have come; a message that lost descriptors (EMFILE) is of no use.
                Ok(message) if message.flags.contains(ReturnFlags::CTRUNC) => {
                    self.sockets.clear();
                    continue;
                }
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => return None,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => {
                    self.closed = true;
                    return None;
                }
            }
            let mut descriptors = Vec::new();
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    descriptors.extend(received);
                }
            }
            match kind[0] {
                READY => return Some(News::Ready),
                SOCKETS => self.sockets.append(&mut descriptors),
                _ => {
                    let listeners = ListenerSet::from_descriptors(std::mem::take(&mut self.sockets));
                    let state = descriptors.pop().and_then(|file| read_state(file).ok().flatten());
                    if let Some(state) = state {
                        return Some(News::Running(state, listeners));
                    }
                }
            }
        }
    }
}

fn read_state(descriptor: OwnedFd) -> io::Result<Option<KeptState>> {
    let mut file = File::from(descriptor);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(KeptState::decode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::listen::{ListenAddress, SocketOptions, SocketPlan};
    use crate::server::listeners::count_by_address;

    fn state() -> KeptState {
        let files = [("/a.conf".to_owned(), b"x\0y".to_vec()), ("/b.conf".to_owned(), Vec::new())];
        let log = |target, level| ErrorLog { target, level };
        KeptState {
            text: KeptText { files: files.into() },
            pid_path: "/run/a.pid".into(),
            error_logs: vec![
                log(LogTarget::File(b"/e.log".to_vec()), Level::Info),
                log(LogTarget::Stderr, Level::Error),
                log(LogTarget::parse_error_log(b"syslog:server=x,tag=y").unwrap(), Level::Debug),
            ],
        }
    }

    #[test]
    fn a_state_survives_its_way_and_a_cut_one_is_refused() {
        let bytes = state().encode();
        assert_eq!(KeptState::decode(&bytes), Some(state()));
        assert_eq!(KeptState::decode(&[]), None);
        for cut in 1..bytes.len() {
            assert_ne!(KeptState::decode(&bytes[..cut]), Some(state()), "{cut}");
        }
    }

    #[test]
    fn the_master_gets_text_and_sockets_and_hears_the_end() {
        let (mut master, server) = pair().unwrap();
        assert!(master.receive().is_none() && master.descriptor().is_some());
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ListenAddress::Inet(probe.local_addr().unwrap());
        drop(probe);
        let plan = SocketPlan::new(address.clone(), SocketOptions::default());
        // More sockets than fit into one message.
        let listeners =
            ListenerSet::default().renew(&[plan], DESCRIPTORS_AT_ONCE + 1, &mut |_, _| {}).unwrap();
        server.ready().unwrap();
        server.running(&state(), &listeners).unwrap();
        assert!(!server.is_closed());
        drop(server);
        assert!(matches!(master.receive(), Some(News::Ready)));
        let Some(News::Running(kept, sockets)) = master.receive() else { panic!("no state") };
        assert_eq!(kept, state());
        assert_eq!(count_by_address(&sockets)[&address.to_string()], DESCRIPTORS_AT_ONCE + 1);
        assert!(master.receive().is_none() && master.descriptor().is_none());
    }

    #[test]
    fn the_server_process_sees_that_its_master_is_gone() {
        let (master, server) = pair().unwrap();
        drop(master);
        assert!(server.is_closed());
    }
}
