//! A client that sends exactly the bytes it is given and takes responses apart by RFC 9112, with a bound on every wait.

use super::PATIENCE;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::Duration;

/// A response as it came over the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub version: String,
    pub status: u16,
    pub reason: String,
    /// Field lines in order, names as they were written.
    pub headers: Vec<(String, String)>,
    /// The content, with any chunked coding undone.
    pub body: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: Vec<(String, String)>,
    /// The sizes of the chunks, when it was chunked.
    pub chunks: Option<Vec<usize>>,
    /// 1xx responses that came before this one.
    pub interim: Vec<u16>,
    /// Whether the body ended with the connection, because nothing else delimits it.
    pub until_close: bool,
}

impl Response {
    /// The first field of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// All fields of that name.
    pub fn header_all(&self, name: &str) -> Vec<&str> {
        let same = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
        self.headers.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }

    /// The body as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection to a server.
pub struct Client {
    stream: Box<dyn Stream>,
    /// Read but not yet taken.
    pending: Vec<u8>,
}

/// What a client can talk over.
pub(super) trait Stream: Read + Write + Send {
    fn shut(&self, how: Shutdown) -> std::io::Result<()>;
    fn limit(&self, time: Duration) -> std::io::Result<()>;
    /// Makes the close a reset.
    fn forget(&self) -> std::io::Result<()>;
    fn duplicate(&self) -> std::io::Result<Box<dyn Stream>>;
}

impl Stream for TcpStream {
    fn shut(&self, how: Shutdown) -> std::io::Result<()> {
        self.shutdown(how)
    }
    fn limit(&self, time: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
    fn forget(&self) -> std::io::Result<()> {
        rustix::net::sockopt::set_socket_linger(self, Some(Duration::ZERO))?;
        Ok(())
    }
    fn duplicate(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }
}

impl Stream for std::os::unix::net::UnixStream {
    fn shut(&self, how: Shutdown) -> std::io::Result<()> {
        self.shutdown(how)
    }
    fn limit(&self, time: Duration) -> std::io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
    fn forget(&self) -> std::io::Result<()> {
        rustix::net::sockopt::set_socket_linger(self, Some(Duration::ZERO))?;
        Ok(())
    }
    fn duplicate(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }
}

impl Client {
    /// Connects to a port of 127.0.0.1.
    #[track_caller]
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
        Self::over_tcp(stream)
    }

    /// Connects to a socket in the file system.
    #[track_caller]
    pub fn connect_unix(path: &std::path::Path) -> Self {
        Self::over(Box::new(std::os::unix::net::UnixStream::connect(path).expect("connect")))
    }

    /// Takes a connection that was made elsewhere.
    pub fn over_tcp(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self::over(Box::new(stream))
    }

    pub(super) fn over(stream: Box<dyn Stream>) -> Self {
        stream.limit(PATIENCE).expect("set timeouts");
        Self { stream, pending: Vec::new() }
    }

    /// Bounds each later wait instead of [`PATIENCE`].
    pub fn timeout(self, time: Duration) -> Self {
        self.stream.limit(time).expect("set timeouts");
        self
    }

    /// Bounds each wait from now on.
    pub fn limit(&self, time: Duration) {
        self.stream.limit(time).expect("set timeouts");
    }

    /// Waits for more, which the next reads take; `false` if nothing came in time, or the other side closed.
    pub fn has_more(&mut self) -> bool {
        !self.pending.is_empty() || self.fill().is_ok_and(|count| count > 0)
    }

    /// Sends these bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).expect("send");
        self
    }

    /// Sends these bytes as far as the other side takes them: it may have closed already. Returns whether all went.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends the bytes one by one, each in its own packet as far as the kernel lets us.
    #[track_caller]
    pub fn send_slowly(&mut self, bytes: impl AsRef<[u8]>, pause: Duration) -> &mut Self {
        for byte in bytes.as_ref() {
            self.send([*byte]);
            std::thread::sleep(pause);
        }
        self
    }

    /// Says that nothing more will be sent; responses can still be read.
    pub fn finish_sending(&mut self) -> &mut Self {
        self.stream.shut(Shutdown::Write).expect("shutdown");
        self
    }

    /// The same connection once more, for another thread; what was read already stays here.
    pub fn try_clone(&self) -> Self {
        Self { stream: self.stream.duplicate().expect("dup"), pending: Vec::new() }
    }

    /// Closes with a reset: the other side's next read fails, whatever it had not read yet.
    pub fn reset(self) {
        self.stream.forget().expect("SO_LINGER");
    }

    /// Reads one response to a GET (or any method but HEAD and CONNECT). 1xx responses before it are noted in it.
    ///
    /// # Panics
    /// When what comes is not a complete, well-formed response.
    #[track_caller]
    pub fn read_response(&mut self) -> Response {
        self.response_to("GET").expect("a response")
    }

    /// Reads one response to a HEAD: it has no body, whatever its fields say.
    #[track_caller]
    pub fn read_head_response(&mut self) -> Response {
        self.response_to("HEAD").expect("a response")
    }

    /// Reads the next head, also of a 1xx response, and no body.
    #[track_caller]
    pub fn read_interim(&mut self) -> Response {
        self.head().expect("a response head")
    }

    /// Reads one response to a request with this method, or says what was wrong with it.
    pub fn response_to(&mut self, method: &str) -> Result<Response, String> {
        let mut interim = Vec::new();
        let mut response = loop {
            let head = self.head()?;
            if head.status >= 200 || head.status == 101 {
                break head;
            }
            interim.push(head.status);
        };
        response.interim = interim;
        if method == "HEAD" || matches!(response.status, 101 | 204 | 304) {
            return Ok(response);
        }
        let chunked = response.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        let lengths: Vec<String> =
            response.header_all("content-length").iter().map(|v| v.to_string()).collect();
        match (chunked, lengths.as_slice()) {
            (true, []) => self.chunked(&mut response)?,
            (true, _) => return Err(format!("both codings: {:?}", response.headers)),
            (false, [length]) => {
                let length = length.parse().map_err(|_| format!("bad Content-Length {length:?}"))?;
                response.body = self.take(length)?;
            }
            (false, []) => {
                response.until_close = true;
                response.body = self.rest()?;
            }
            (false, _) => return Err(format!("several lengths: {:?}", response.headers)),
        }
        Ok(response)
    }

    /// Reads until the other side closes; what was read before is not in it.
    ///
    /// # Panics
    /// When it does not close in time. A reset counts as a close.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        self.rest().expect("bytes up to the close")
    }

    /// Reads exactly this many bytes.
    #[track_caller]
    pub fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        self.take(length).expect("bytes")
    }

    /// Reads one byte; `None` at the close.
    pub(super) fn read_one(&mut self) -> Option<[u8; 1]> {
        if self.pending.is_empty() && self.fill().expect("a byte") == 0 {
            return None;
        }
        Some([self.pending.remove(0)])
    }

    /// Reads a chunked body to its end and decodes it.
    pub(super) fn read_chunked_body(&mut self) -> Vec<u8> {
        let mut message = Response::default();
        self.chunked(&mut message).expect("a chunked body");
        message.body
    }

    /// Reads what is there now, up to 64 KiB, waiting for the first byte only; empty at the close.
    #[track_caller]
    pub fn read_some(&mut self) -> Vec<u8> {
        if self.pending.is_empty() {
            self.fill().expect("bytes");
        }
        std::mem::take(&mut self.pending)
    }

    /// Asserts that the other side closes without sending anything more.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let rest = self.rest().expect("a close");
        assert!(rest.is_empty(), "more came before the close: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Waits for so long at most until something can be read, or the other side closes.
    #[track_caller]
    pub fn has_something(&mut self, time: Duration) -> bool {
        if !self.pending.is_empty() {
            return true;
        }
        self.stream.limit(time).expect("set timeouts");
        let mut buffer = [0; 4096];
        let had = match self.stream.read(&mut buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            Ok(count) => {
                self.pending.extend_from_slice(&buffer[..count]);
                true
            }
            Err(_) => true,
        };
        self.stream.limit(PATIENCE).expect("set timeouts");
        had
    }

    /// Asserts that nothing comes and nothing is closed for this long.
    #[track_caller]
    pub fn expect_quiet(&mut self, time: Duration) {
        assert!(self.pending.is_empty(), "unread: {:?}", String::from_utf8_lossy(&self.pending));
        self.stream.limit(time).expect("set timeouts");
        let mut byte = [0; 1];
        match self.stream.read(&mut byte) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(0) => panic!("closed"),
            other => panic!("expected quiet, got {other:?} {byte:?}"),
        }
        self.stream.limit(PATIENCE).expect("set timeouts");
    }

    fn head(&mut self) -> Result<Response, String> {
        let line = self.line()?;
        let mut parts = line.splitn(3, ' ');
        let version = parts.next().unwrap_or_default().to_owned();
        let status = parts.next().unwrap_or_default();
        if !version.starts_with("HTTP/1.") || status.len() != 3 {
            return Err(format!("not a status line: {line:?}"));
        }
        let status = status.parse().map_err(|_| format!("not a status: {line:?}"))?;
        let reason = parts.next().unwrap_or_default().to_owned();
        let headers = self.fields()?;
        Ok(Response { version, status, reason, headers, ..Response::default() })
    }

    fn fields(&mut self) -> Result<Vec<(String, String)>, String> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| format!("no colon in {line:?}"))?;
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    fn chunked(&mut self, response: &mut Response) -> Result<(), String> {
        let mut sizes = Vec::new();
        loop {
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(digits, 16).map_err(|_| format!("bad chunk size {line:?}"))?;
            if size == 0 {
                response.trailers = self.fields()?;
                response.chunks = Some(sizes);
                return Ok(());
            }
            sizes.push(size);
            response.body.extend(self.take(size)?);
            let end = self.take(2)?;
            if end != b"\r\n" {
                return Err(format!("chunk ends with {end:?}"));
            }
        }
    }

    /// One line, which must end with CRLF, without it. Bytes beyond ASCII are kept as Latin-1.
    fn line(&mut self) -> Result<String, String> {
        let mut searched = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.pending[searched..]) {
                let line: Vec<u8> = self.pending.drain(..=searched + at).collect();
                let line = line.strip_suffix(b"\r\n").ok_or_else(|| format!("bare LF after {line:?}"))?;
                return Ok(line.iter().map(|byte| char::from(*byte)).collect());
            }
            searched = self.pending.len();
            if self.fill()? == 0 {
                return Err(format!("closed within a line: {:?}", String::from_utf8_lossy(&self.pending)));
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.pending.len() < length {
            if self.fill()? == 0 {
                return Err(format!("closed after {} of {length} bytes", self.pending.len()));
            }
        }
        let rest = self.pending.split_off(length);
        Ok(std::mem::replace(&mut self.pending, rest))
    }

    fn rest(&mut self) -> Result<Vec<u8>, String> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.pending))
    }

    /// Reads once; 0 means that the other side closed or reset.
    fn fill(&mut self) -> Result<usize, String> {
        let mut buffer = [0; 65536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(count) => {
                    self.pending.extend_from_slice(&buffer[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return Ok(0);
                }
                Err(error) => {
                    let had = String::from_utf8_lossy(&self.pending).into_owned();
                    return Err(format!("{error}; unread so far: {had:?}"));
                }
            }
        }
    }
}

/// One GET on its own connection (HTTP/1.1, `Host: localhost`, `Connection: close`).
#[track_caller]
pub fn get(port: u16, path: &str) -> Response {
    request(port, "GET", path, &[])
}

/// One request without a body on its own connection, with these fields beside `Host` and `Connection: close`.
#[track_caller]
pub fn request(port: u16, method: &str, path: &str, fields: &[(&str, &str)]) -> Response {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str("Host: localhost\r\n");
    }
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("Connection: close\r\n\r\n");
    let mut client = Client::connect(port);
    client.send(text);
    client.response_to(method).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// Sends these bytes on their own connection and reads one response; `None` when it is closed without one.
///
/// # Panics
/// When neither comes in time, or when what comes is no response.
#[track_caller]
pub fn raw(port: u16, bytes: impl AsRef<[u8]>) -> Option<Response> {
    let mut client = Client::connect(port);
    client.try_send(&bytes);
    let method = if bytes.as_ref().starts_with(b"HEAD ") { "HEAD" } else { "GET" };
    match client.response_to(method) {
        Ok(response) => Some(response),
        Err(error) if error == "closed within a line: \"\"" => None,
        Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(bytes.as_ref())),
    }
}

/// The same, of which only the status matters; 0 when it is closed without a response.
#[track_caller]
pub fn raw_status(port: u16, bytes: impl AsRef<[u8]>) -> u16 {
    raw(port, bytes).map_or(0, |response| response.status)
}
