//! For tests of logs and variables: a site from a few lines of configuration, requests as text, and what was logged.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::base::clock::{Now, RenderedDates};
use crate::base::log::LogQueue;
use crate::conf::diagnostics::{Diagnostics, Severity};
use crate::conf::files::MemoryFiles;
use crate::message::RequestHead;
use crate::proto::h1;

use super::build::{BuildOptions, Built, build};
use super::context::Env;
use super::exchange::{ConnectionFacts, Endpoint, Exchange};
use super::file::{FailureReason, FileAnswer, FileCall, FileFailure};
use super::flow::{Answer, Need, Step};
use super::site::{AddressId, SiteHandle};

/// Monotonic milliseconds of every probe's clock.
pub const NOW_MS: u64 = 50_000;

/// A site, and a worker's side of it.
pub struct Probe {
    /// The site.
    pub site: SiteHandle,
    /// What a worker lends.
    pub env: Env,
    /// The connection of the next requests.
    pub connection: ConnectionFacts,
}

fn built(http: &str) -> Built {
    let text = format!("events {{}}\nhttp {{\n{http}\n}}\n");
    build_whole(&text)
}

fn build_whole(text: &str) -> Built {
    let mut files = MemoryFiles::new().with("/etc/t.conf", text);
    let options = BuildOptions {
        error_log: &crate::conf::log_target::LogTarget::File("logs/error.log".into()),
        previous_logs: None,
        previous_tls: None,
        path: "/etc/t.conf",
        prefix: "/p/",
        command_line: "",
        hostname: b"machine",
        privileged: true,
        resolve: None,
    };
    build(&mut files, &options)
}

fn error_texts(diagnostics: &Diagnostics) -> Vec<String> {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
    errors.map(|diagnostic| diagnostic.message.clone()).collect()
}

/// The errors of a configuration with these directives in its `http` block.
pub fn errors(http: &str) -> Vec<String> {
    error_texts(&built(http).diagnostics)
}

impl Probe {
    /// A site with these directives in its `http` block.
    pub fn new(http: &str) -> Probe {
        Probe::of(built(http))
    }

    /// A site of a whole configuration.
    pub fn whole(text: &str) -> Probe {
        Probe::of(build_whole(text))
    }

    fn of(built: Built) -> Probe {
        assert_eq!(error_texts(&built.diagnostics), Vec::<String>::new());
        let now = Now { monotonic_ms: NOW_MS, wall_secs: 1_795_227_960, wall_ms_part: 7 };
        let dates = RenderedDates::new(TimeZone::UTC, now);
        let address = |text: &str| Endpoint::Inet(text.parse::<SocketAddr>().unwrap());
        Probe {
            site: SiteHandle::new(Arc::new(built.site.unwrap())),
            env: Env::new(now, dates, LogQueue::default(), 1, 4711, b"machine"),
            connection: ConnectionFacts {
                number: 17,
                requests: 3,
                accepted_ms: NOW_MS - 12_345,
                peer: address("192.0.2.1:5000"),
                local: address("192.0.2.99:8080"),
                proxy_protocol: None,
                secure: false,
                lacks_tls: false,
                tls: None,
            },
        }
    }

    /// An exchange for the request in `text`, before its first step. A head that is refused stays as it was read.
    pub fn begin(&mut self, text: &[u8]) -> Exchange {
        let mut head = RequestHead::default();
        let mut input = text;
        let _ = h1::Connection::new().read(&mut input, &h1::HeadLimits::default(), &mut head);
        Exchange::begin(self.site.clone(), AddressId(0), self.connection.clone(), NOW_MS - 5, head)
    }

    /// An exchange whose response is ready; there is no file at all.
    pub fn run(&mut self, text: &[u8]) -> Exchange {
        let mut exchange = self.begin(text);
        let mut answer = None;
        for _ in 0..100 {
            answer = match exchange.step(&mut self.env, answer.take()) {
                Step::Need(Need::File(_)) => Some(Answer::File(FileAnswer::Failed(FileFailure {
                    call: FileCall::Open,
                    errno: 2,
                    reason: FailureReason::NotFound,
                }))),
                Step::Need(_) => Some(Answer::RequestBody(Ok(()))),
                Step::Respond | Step::Close => return exchange,
            };
        }
        panic!("the request never ends");
    }

    /// The access lines of all sinks so far, in order of the sinks; the queue is emptied.
    pub fn access_lines(&mut self) -> String {
        let text: Vec<u8> = self.env.access.sinks().flat_map(|(_, lines)| lines.text.clone()).collect();
        self.env.access.clear();
        String::from_utf8(text).unwrap()
    }

    /// The error lines so far, as `[level] *connection text`; the queue is emptied.
    pub fn error_lines(&mut self) -> Vec<String> {
        let lines = self.env.logs.messages().map(|message| {
            let connection = message.connection.map_or(String::new(), |number| format!("*{number} "));
            format!("[{}] {connection}{}", message.level, String::from_utf8_lossy(message.text))
        });
        let lines = lines.collect();
        self.env.logs.clear();
        lines
    }
}

/// The value of a variable in the log of a request, `-` if it has none; `prepare` changes the exchange before that.
pub fn value_after(name: &str, text: &[u8], prepare: impl FnOnce(&mut Exchange)) -> String {
    let format = format!("log_format v escape=none \"<${name}>\"; log_format d \"<${name}>\";");
    let mut probe =
        Probe::new(&format!("{format} access_log v v; access_log d d; server {{ server_name .s.example; }}"));
    let mut exchange = probe.run(text);
    prepare(&mut exchange);
    exchange.log_access(&mut probe.env);
    let lines = probe.access_lines();
    let (raw, escaped) = lines.split_once('\n').unwrap();
    if escaped == "<->\n" { "-".to_owned() } else { raw[1..raw.len() - 1].to_owned() }
}

/// The value of a variable in the log of a request, `-` if it has none.
pub fn value(name: &str, text: &[u8]) -> String {
    value_after(name, text, |_| ())
}
