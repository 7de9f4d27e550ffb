//! The server under attack, the good client beside the attackers, and what is measured.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::attacks::Attack;
use crate::util::Server;

/// How long an attack goes on.
const ATTACK: Duration = Duration::from_millis(2500);
/// How long it goes on where it has come to nothing yet: attackers, too, get little of a busy machine.
const LONGEST_ATTACK: Duration = Duration::from_secs(15);
/// How long memory and descriptors may take to come back.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a process keeps of memory that it once needed, for the next time: heaps in pieces, buffers of workers, compressed
/// forms (`server::compressed` bounds them for each worker).
const KEPT_KIB: usize = 48 << 10;
/// Descriptors that may come and go by themselves.
const SPARE_DESCRIPTORS: usize = 8;

/// The bound of the good client's 99th percentile under `THALWEG_STRICT`.
const P99: Duration = Duration::from_millis(20);
/// The bound of its median without.
const OUTAGE: Duration = Duration::from_millis(500);

/// Whether the figures are to be held to their bounds.
pub fn strict() -> bool {
    std::env::var_os("THALWEG_STRICT").is_some_and(|value| value != "0")
}

/// So many attackers; half as many in a plain run.
pub fn many(count: usize) -> usize {
    if strict() { count } else { count / 2 }
}

/// A line that is seen whatever the harness captures.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// One at a time: the tests of this program measure.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server of two workers. All that is limited by default is so here; times are short and rates are
/// high, so that an attack is long enough for them.
pub fn server(more: &str) -> Server {
    let fixtures = crate::util::tls::FIXTURES;
    let text = format!(
        "worker_processes 2; error_log {{root}}/error.log notice; events {{ worker_connections 9000; }}
         http {{
           client_header_timeout 1500ms; client_body_timeout 1s; send_timeout 2s; keepalive_timeout 5s; keepalive_requests 100000;
           client_body_min_rate 500 grace=1s; send_min_rate 200k grace=500ms; lingering_timeout 500ms; lingering_time 1s;
           client_max_body_size 10m; access_log off; root {{root}}/html; sendfile on; {more}
           server {{
             listen {{port1}} backlog=4096; listen {{port2}} ssl; http2 on;
             ssl_certificate {fixtures}/server-ec.pem; ssl_certificate_key {fixtures}/server-ec.key;
             location / {{ }}
             client_body_early_read $arg_early; location /upload {{ return 204; }}
             location /gzip/ {{ alias {{root}}/html/; gzip on; gzip_types *; gzip_comp_level 6; }}
             location /brotli/ {{ alias {{root}}/html/; brotli on; brotli_types *; brotli_comp_level 5; }}
             location /numbers {{ return 200 \"$connections_slow_bodies $connections_slow_readers $connections_refused\"; }}
           }}
           server {{ listen {{port3}}; client_connections_max 50; location / {{ return 200 ok; }} }}
         }}"
    );
    Server::builder(&text)
        .file("html/small", "x".repeat(1000))
        .file("html/big", vec![b'x'; 16 << 20])
        .file("html/text", compressible(if strict() { 64 << 20 } else { 8 << 20 }))
        .start()
}

/// Text that is worth compressing and not all the same.
fn compressible(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut text = Vec::with_capacity(length + 100);
    while text.len() < length {
        let line = format!("{} the quick brown fox {} jumps over\n", random.u16(..), random.u8(..));
        text.extend_from_slice(line.as_bytes());
    }
    text.truncate(length);
    text
}

/// See the module's documentation.
pub struct Ground {
    pub server: Server,
    /// Memory of the warm server, in KiB.
    warm_kib: usize,
    descriptors: usize,
    _alone: MutexGuard<'static, ()>,
}

/// What an attack may do with.
pub struct Field<'a> {
    pub server: &'a Server,
    stop: &'a AtomicBool,
    /// What the attackers got done, for the table.
    pub done: AtomicUsize,
}

impl Field<'_> {
    /// Whether the attack is over.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// What says so.
    pub fn stop(&self) -> &AtomicBool {
        self.stop
    }

    pub fn port(&self) -> u16 {
        self.server.port()
    }

    pub fn tls_port(&self) -> u16 {
        self.server.port_of(2)
    }

    pub fn limited_port(&self) -> u16 {
        self.server.port_of(3)
    }

    /// Counts something that was done.
    pub fn count(&self, more: usize) {
        self.done.fetch_add(more, Ordering::Relaxed);
    }
}

/// What was measured during one attack.
pub struct Outcome {
    name: &'static str,
    asked: usize,
    errors: Vec<String>,
    /// Sorted.
    times: Vec<Duration>,
    grown_kib: usize,
    bound_kib: usize,
    kept_kib: usize,
    lost_descriptors: usize,
    done: usize,
    counts: &'static str,
    attackers_failed: Option<String>,
}

impl Ground {
    /// Starts the server and warms it up.
    pub fn start() -> Ground {
        let alone = alone();
        let server = server("");
        let mut ground = Ground { server, warm_kib: 0, descriptors: 0, _alone: alone };
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let good = scope.spawn(|| GoodClient::new(ground.server.port()).run(&stop));
            for path in ["/big", "/gzip/text", "/brotli/text"] {
                crate::attacks::download(ground.server.port(), path, &stop);
            }
            stop.store(true, Ordering::Relaxed);
            let _ = good.join();
        });
        ground.warm_kib = ground.resident_kib();
        ground.descriptors = ground.descriptors();
        ground
    }

    /// Runs an attack beside a good client.
    pub fn run(&mut self, attack: &Attack) -> Outcome {
        let stop = AtomicBool::new(false);
        let field = Field { server: &self.server, stop: &stop, done: AtomicUsize::new(0) };
        let before_kib = self.resident_kib();
        let mut peak_kib = before_kib;
        let (good, failed) = std::thread::scope(|scope| {
            let attackers: Vec<_> = (0..attack.threads)
                .map(|number| {
                    let field = &field;
                    scope.spawn(move || {
                        step_back();
                        (attack.run)(field, number);
                    })
                })
                .collect();
            let good = scope.spawn(|| GoodClient::new(self.server.port()).run(&stop));
            let began = Instant::now();
            while began.elapsed() < ATTACK
                || (began.elapsed() < LONGEST_ATTACK && (attack.judge)(&field).is_some())
            {
                std::thread::sleep(Duration::from_millis(50));
                peak_kib = peak_kib.max(self.resident_kib());
            }
            stop.store(true, Ordering::Relaxed);
            let good = good.join().expect("the good client does not panic");
            let panicked = attackers.into_iter().any(|attacker| attacker.join().is_err());
            let failed =
                if panicked { Some("an attacker failed".to_owned()) } else { (attack.judge)(&field) };
            (good, failed)
        });
        let done = field.done.load(Ordering::Relaxed);
        let (kept_kib, lost_descriptors) = self.settle();
        let mut times = good.times;
        times.sort_unstable();
        Outcome {
            name: attack.name,
            asked: times.len(),
            errors: good.errors,
            times,
            grown_kib: peak_kib.saturating_sub(before_kib),
            bound_kib: (attack.bound_kib)(),
            kept_kib,
            lost_descriptors,
            done,
            counts: attack.counts,
            attackers_failed: failed,
        }
    }

    /// Waits until the server is as it was; what it kept nevertheless.
    fn settle(&self) -> (usize, usize) {
        let until = Instant::now() + PATIENCE;
        loop {
            let kept_kib = self.resident_kib().saturating_sub(self.warm_kib);
            let lost = self.descriptors().saturating_sub(self.descriptors + SPARE_DESCRIPTORS);
            if (kept_kib <= KEPT_KIB && lost == 0) || Instant::now() > until {
                return (kept_kib, lost);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What is wrong with the server in the end.
    pub fn complaints(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        if !self.server.is_running() {
            complaints.push("the server is gone".to_owned());
        }
        let log = self.server.error_log();
        let is_bad = |line: &&str| {
            ["[error]", "[crit]", "[alert]", "[emerg]", "panicked"].iter().any(|word| line.contains(word))
        };
        let bad: Vec<&str> = log.lines().filter(is_bad).take(10).collect();
        if !bad.is_empty() {
            complaints.push(format!("the error log has\n{}", bad.join("\n")));
        }
        complaints
    }

    /// Resident memory of the server's processes.
    fn resident_kib(&self) -> usize {
        let resident = |pid: &rustix::process::Pid| -> Option<usize> {
            let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse().ok()
        };
        self.server.children().iter().filter_map(resident).sum()
    }

    fn descriptors(&self) -> usize {
        let of = |pid: &rustix::process::Pid| {
            std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).map_or(0, Iterator::count)
        };
        self.server.children().iter().map(of).sum()
    }
}

/// Lets everybody else go first: see the program's documentation.
fn step_back() {
    let thread = rustix::thread::gettid();
    // Where it is not allowed, the figures are worse and no more.
    let _ = rustix::process::setpriority_process(Some(thread), 10);
}

/// Who is to be served.
struct GoodClient {
    port: u16,
    stream: Option<TcpStream>,
    times: Vec<Duration>,
    errors: Vec<String>,
}

impl GoodClient {
    fn new(port: u16) -> GoodClient {
        GoodClient { port, stream: None, times: Vec::new(), errors: Vec::new() }
    }

    fn run(mut self, stop: &AtomicBool) -> GoodClient {
        while !stop.load(Ordering::Relaxed) {
            if self.times.len() % 16 == 15 {
                self.stream = None;
            }
            let began = Instant::now();
            match self.ask() {
                Ok(()) => self.times.push(began.elapsed()),
                Err(error) => {
                    self.stream = None;
                    self.errors.push(error.to_string());
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self
    }

    fn ask(&mut self) -> std::io::Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(15)))?;
                // So that ports are not used up.
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
                self.stream.insert(stream)
            }
        };
        stream.write_all(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            answer.extend_from_slice(&buffer[..count]);
            if let Some(end) = memchr::memmem::find(&answer, b"\r\n\r\n") {
                if !answer.starts_with(b"HTTP/1.1 200 ") {
                    return Err(std::io::Error::other(String::from_utf8_lossy(&answer[..end]).into_owned()));
                }
                if answer.len() == end + 4 + 1000 {
                    return Ok(());
                }
            }
        }
    }
}

impl Outcome {
    pub fn header() -> String {
        format!(
            "{:<34} {:>6} {:>8} {:>8} {:>8} {:>11} {:>10} {:>9} {:>6}  {}\n{}",
            "attack",
            "asked",
            "p50 ms",
            "p99 ms",
            "max ms",
            "grown KiB",
            "bound",
            "kept KiB",
            "fds",
            "attackers",
            "-".repeat(130)
        )
    }

    fn percentile(&self, hundredths: usize) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times.get(last * hundredths / 100).copied().unwrap_or(Duration::MAX)
    }

    /// A line of the table.
    pub fn row(&self) -> String {
        let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1000.0);
        let mut row = format!("{:<34} {:>6}", self.name, self.asked);
        for percent in [50, 99, 100] {
            let _ = write!(row, " {:>8}", ms(self.percentile(percent).min(Duration::from_secs(999))));
        }
        let _ = write!(
            row,
            " {:>11} {:>10} {:>9} {:>6}  {} {}",
            self.grown_kib, self.bound_kib, self.kept_kib, self.lost_descriptors, self.done, self.counts
        );
        row
    }

    /// What is not as it must be.
    pub fn failures(&self) -> Vec<String> {
        let mut failures: Vec<String> = self.attackers_failed.iter().cloned().collect();
        if !self.errors.is_empty() {
            failures.push(format!(
                "{} requests of the good client failed: {}",
                self.errors.len(),
                self.errors[0]
            ));
        }
        if self.asked == 0 || self.percentile(50) > OUTAGE {
            failures.push(format!("the good client's median is {:?}", self.percentile(50)));
        }
        if strict() && self.percentile(99) > P99 {
            failures.push(format!("the good client's p99 is {:?}", self.percentile(99)));
        }
        if self.grown_kib > self.bound_kib {
            failures.push(format!("memory grew by {} KiB, {} are allowed", self.grown_kib, self.bound_kib));
        }
        if self.kept_kib > KEPT_KIB {
            failures.push(format!("{} KiB of memory did not come back", self.kept_kib));
        }
        if self.lost_descriptors > 0 {
            failures.push(format!("{} descriptors did not come back", self.lost_descriptors));
        }
        failures.into_iter().map(|failure| format!("{}: {failure}", self.name)).collect()
    }
}
