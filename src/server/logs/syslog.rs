//! Lines to a syslog server: RFC 3164, one datagram a line, over UDP or a Unix socket, never waiting.
//!
//! A line that can't be sent is lost, as datagrams are; a failure is reported once when it begins, and the number of
//! lost lines when lines flow again.

use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;

use super::file::error_text;
use super::report::Reports;
use crate::base::level::Level;
use crate::conf::log_target::SyslogTarget;

/// Longest datagram in bytes; longer lines are cut, so that a long request can't keep itself out of the log (UDP over
/// IPv4 takes 65,507).
const DATAGRAM_MAX: usize = 65_000;
/// After a failure to connect, so many milliseconds pass before the next try.
const RECONNECT_MS: u64 = 1000;

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// Where datagrams go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    Udp(SocketAddr),
    Unix(Vec<u8>),
}

#[derive(Debug)]
pub(super) struct SyslogSink {
    address: SyslogAddress,
    target: SyslogTarget,
    socket: Option<Socket>,
    datagram: Vec<u8>,
    reconnect_at: u64,
    is_failing: bool,
    lost: u64,
}

/// One syslog server for a thread that has no loop.
#[derive(Debug)]
pub struct PlainSyslog {
    sink: SyslogSink,
    hostname: Vec<u8>,
    started: std::time::Instant,
}

impl PlainSyslog {
    /// Sends nothing yet.
    pub fn new(address: SyslogAddress, target: SyslogTarget) -> PlainSyslog {
        PlainSyslog {
            sink: SyslogSink::new(address, target),
            hostname: rustix::system::uname().nodename().to_bytes().to_vec(),
            started: std::time::Instant::now(),
        }
    }

    /// Sends a line; one that can't be sent is lost. `time` is the error log's.
    pub fn send(&mut self, level: Level, line: &[u8], time: &[u8; 19]) {
        let now_ms = self.started.elapsed().as_millis() as u64;
        self.sink.send(level, line, &self.hostname, time, now_ms, &mut Reports::default());
    }
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl SyslogSink {
    pub(super) fn new(address: SyslogAddress, target: SyslogTarget) -> SyslogSink {
        SyslogSink {
            address,
            target,
            socket: None,
            datagram: Vec::new(),
            reconnect_at: 0,
            is_failing: false,
            lost: 0,
        }
    }

    /// Severity of access lines.
    pub(super) fn access_level(&self) -> Level {
        self.target.severity
    }

    /// Sends one line. `time` is the error log's (`2026/11/21 02:26:00`).
    pub(super) fn send(
        &mut self,
        level: Level,
        line: &[u8],
        hostname: &[u8],
        time: &[u8; 19],
        now_ms: u64,
        reports: &mut Reports,
    ) {
        self.render(level, line, hostname, time);
        match self.try_send(now_ms) {
            Ok(()) => self.recovered(reports),
            Err(None) => self.lost += 1,
            Err(Some(error)) => {
                self.lost += 1;
                // A full socket buffer is no failure of the server's: counted, and told with the next report.
                if error.kind() == io::ErrorKind::WouldBlock {
                    return;
                }
                self.socket = None;
                self.reconnect_at = now_ms.saturating_add(RECONNECT_MS);
                if !self.is_failing {
                    self.is_failing = true;
                    let text =
                        format!("send() to syslog server {} failed {}", self.name(), error_text(&error));
                    reports.add(Level::Alert, text);
                }
            }
        }
    }

    fn recovered(&mut self, reports: &mut Reports) {
        self.is_failing = false;
        if self.lost > 0 {
            let text = format!("{} lines to syslog server {} were lost", self.lost, self.name());
            reports.add(Level::Alert, text);
            self.lost = 0;
        }
    }

    /// `Err(None)`: still within the pause after a failure.
    fn try_send(&mut self, now_ms: u64) -> Result<(), Option<io::Error>> {
        if let Some(socket) = &self.socket {
            match socket.send(&self.datagram) {
                // The refusal may answer an earlier datagram, or the server's socket was made anew: connect again.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.socket = None,
                sent => return sent.map_err(Some),
            }
        }
        if now_ms < self.reconnect_at {
            return Err(None);
        }
        let socket = Socket::connect(&self.address).map_err(Some)?;
        let sent = socket.send(&self.datagram).map_err(Some);
        self.socket = Some(socket);
        sent
    }

    fn render(&mut self, level: Level, line: &[u8], hostname: &[u8], time: &[u8; 19]) {
        let out = &mut self.datagram;
        out.clear();
        let priority = u32::from(self.target.facility) * 8 + u32::from(level.syslog_severity());
        // Writing to memory doesn't fail.
        let _ = write!(out, "<{priority}>");
        out.extend_from_slice(&syslog_time(time));
        out.push(b' ');
        if !self.target.without_hostname {
            out.extend_from_slice(hostname);
            out.push(b' ');
        }
        out.extend_from_slice(&self.target.tag);
        out.extend_from_slice(b": ");
        out.extend_from_slice(line);
        out.truncate(DATAGRAM_MAX);
    }

    fn name(&self) -> String {
        match &self.address {
            SyslogAddress::Udp(address) => format!("\"{address}\""),
            SyslogAddress::Unix(path) => format!("\"unix:{}\"", String::from_utf8_lossy(path)),
        }
    }
}

impl Socket {
    fn connect(address: &SyslogAddress) -> io::Result<Socket> {
        match address {
            SyslogAddress::Udp(address) => {
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                socket.connect(address)?;
                Ok(Socket::Udp(socket))
            }
            SyslogAddress::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(std::ffi::OsStr::from_bytes(path))?;
                Ok(Socket::Unix(socket))
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        match self {
            Socket::Udp(socket) => socket.send(datagram),
            Socket::Unix(socket) => socket.send(datagram),
        }
        .map(|_| ())
    }
}

/// `2026/11/21 02:26:00` as RFC 3164 writes it: `Nov 21 02:26:00`, a day below ten with a space before it.
fn syslog_time(time: &[u8; 19]) -> [u8; 15] {
    let mut out = *b"Jan  1 00:00:00";
    let month = usize::from(time[5].wrapping_sub(b'0')) * 10 + usize::from(time[6].wrapping_sub(b'0'));
    out[..3].copy_from_slice(MONTHS[(month + 11) % 12]);
    out[4] = if time[8] == b'0' { b' ' } else { time[8] };
    out[5] = time[9];
    out[7..].copy_from_slice(&time[11..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &[u8; 19] = b"2026/11/21 02:26:00";

    fn target(parameters: &str) -> SyslogTarget {
        SyslogTarget::parse(format!("server=127.0.0.1,{parameters}").as_bytes()).unwrap()
    }

    struct Unix {
        folder: tempfile::TempDir,
        sink: SyslogSink,
        reports: Reports,
    }

    impl Unix {
        fn new(parameters: &str) -> Unix {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("s").as_os_str().as_bytes().to_vec();
            let sink = SyslogSink::new(SyslogAddress::Unix(path), target(parameters));
            Unix { folder, sink, reports: Reports::default() }
        }

        fn listen(&self) -> UnixDatagram {
            let socket = UnixDatagram::bind(self.folder.path().join("s")).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        }

        fn send(&mut self, line: &[u8], now_ms: u64) {
            self.sink.send(Level::Info, line, b"host", TIME, now_ms, &mut self.reports);
        }
    }

    fn receive(socket: &UnixDatagram) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 1 << 17];
        let length = socket.recv(&mut buffer).ok()?;
        buffer.truncate(length);
        Some(buffer)
    }

    #[test]
    fn lines_over_udp_have_nginx_shape() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = SyslogAddress::Udp(server.local_addr().unwrap());
        let mut sink = SyslogSink::new(address, target("tag=foo"));
        let mut reports = Reports::default();
        sink.send(Level::Error, b"message", b"vm", TIME, 0, &mut reports);
        let mut buffer = [0; 200];
        let length = server.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"<187>Nov 21 02:26:00 vm foo: message");
        assert!(reports.is_empty());
    }

    #[test]
    fn facility_and_nohostname_show_in_a_line() {
        let mut unix = Unix::new("facility=user,nohostname");
        let server = unix.listen();
        unix.send(b"message", 0);
        assert_eq!(receive(&server).unwrap(), b"<14>Nov 21 02:26:00 nginx: message");
    }

    #[test]
    fn a_day_below_ten_has_a_space() {
        assert_eq!(&syslog_time(b"2026/02/03 04:05:06"), b"Feb  3 04:05:06");
        assert_eq!(&syslog_time(b"2026/12/10 04:05:06"), b"Dec 10 04:05:06");
    }

    #[test]
    fn a_missing_server_is_reported_once_and_found_again() {
        let mut unix = Unix::new("tag=t");
        for now_ms in 0..5000 {
            unix.send(b"lost", now_ms);
        }
        let reports = unix.reports.take();
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert!(reports[0].text.ends_with("failed (2: No such file or directory)"), "{reports:?}");
        let server = unix.listen();
        unix.send(b"found", 6000);
        assert!(receive(&server).unwrap().ends_with(b"t: found"));
        assert!(unix.reports.take()[0].text.starts_with("5000 lines to syslog server"));
    }

    #[test]
    fn a_server_that_was_restarted_gets_the_next_line() {
        let mut unix = Unix::new("tag=t");
        drop(unix.listen());
        std::fs::remove_file(unix.folder.path().join("s")).unwrap();
        let first = unix.listen();
        unix.send(b"one", 0);
        drop(first);
        std::fs::remove_file(unix.folder.path().join("s")).unwrap();
        let second = unix.listen();
        unix.send(b"two", 0);
        assert!(receive(&second).unwrap().ends_with(b"t: two"));
        assert!(unix.reports.is_empty());
    }

    #[test]
    fn a_server_that_does_not_read_costs_lines_and_not_the_loop() {
        let mut unix = Unix::new("tag=t");
        let server = unix.listen();
        for _ in 0..10_000 {
            unix.send(b"line", 0);
        }
        assert!(unix.reports.is_empty());
        let mut received = 0;
        while receive(&server).is_some() {
            received += 1;
        }
        unix.send(b"line", 0);
        let lost = 10_000 - received;
        assert!(unix.reports.take()[0].text.starts_with(&format!("{lost} lines to syslog server")));
    }

    #[test]
    fn a_very_long_line_is_cut_and_sent() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut sink =
            SyslogSink::new(SyslogAddress::Udp(server.local_addr().unwrap()), target("nohostname"));
        let mut reports = Reports::default();
        sink.send(Level::Info, &vec![b'x'; 100_000], b"", TIME, 0, &mut reports);
        let mut buffer = vec![0; 100_000];
        assert_eq!(server.recv(&mut buffer).unwrap(), DATAGRAM_MAX);
        assert!(reports.is_empty());
    }
}
