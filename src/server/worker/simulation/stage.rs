//! What several seeds play on: a configuration, the worker that serves it, and the addresses of its upstreams.

use std::sync::Arc;

use super::super::tests::{site_of, worker_of};
use super::super::{Worker, WorkerCommand};
use super::dice::{Dice, files};
use super::line::Address;
use crate::http::site::Site;
use crate::server::listeners::ListenerSet;
use crate::server::pool::{HeldJobs, Pool};

/// When a worker's time begins, in milliseconds.
const START_MS: u64 = 1_000_000;
/// Jobs that the pool holds.
const JOBS: usize = 256;

const ZIP: &str = "gzip on; gzip_types *; gzip_min_length 0; gzip_comp_level 1;";
const SUBSTITUTE: &str = "sub_filter 'reed ' bulrushes; sub_filter_once off; sub_filter_types *;";

/// See the module's documentation.
pub struct Stage {
    pub worker: Worker,
    /// What its pool has to do.
    pub jobs: HeldJobs,
    pub site: Arc<Site>,
    /// Where clients connect to.
    pub front: Address,
    pub upstreams: Vec<Address>,
    /// The configuration, for messages.
    pub text: String,
    pub upstreams_speak_h2: bool,
    /// Peers fail.
    pub faults: bool,
    /// The configuration lets a POST go twice.
    pub may_repeat: bool,
    folder: tempfile::TempDir,
    _listeners: ListenerSet,
    _commands: crossbeam_channel::Sender<WorkerCommand>,
}

impl Stage {
    /// One that a number tells; whether it logs what is worth reading when a single seed is looked at.
    pub fn new(dice: &mut Dice, logs: bool) -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let faults = !dice.one_in(3);
        // Unix sockets deliver at once, but know no reset.
        let is_tcp = dice.one_in(8);
        let front = Address::new(folder.path(), "front", is_tcp);
        let upstreams: Vec<Address> = (0..1 + dice.below(3))
            .map(|number| Address::new(folder.path(), &format!("upstream{number}"), is_tcp))
            .collect();
        let root = folder.path().display().to_string();
        for name in ["body", "proxy", "s"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        for (number, content) in files().iter().enumerate() {
            std::fs::write(folder.path().join(format!("s/{number}")), content).unwrap();
        }
        let text = configuration(&front, &upstreams, &root, faults, dice);
        let log = if logs { format!("error_log {root}/error.log debug;") } else { String::new() };
        let text = format!("{log} {text}");
        let (site, listeners) = site_of(&folder, text.clone(), 1);
        let (pool, jobs) = Pool::by_hand(JOBS);
        let (mut worker, commands) =
            worker_of(&site, listeners.of_worker(0, 1), 0, &Arc::default(), &Arc::new(pool));
        worker.clock.frozen_ms = Some(START_MS);
        Stage {
            worker,
            jobs,
            site,
            front,
            upstreams,
            upstreams_speak_h2: text.contains("proxy_http_version 2"),
            may_repeat: text.contains("non_idempotent"),
            text,
            faults,
            folder,
            _listeners: listeners,
            _commands: commands,
        }
    }

    /// The present time, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.worker.clock.frozen_ms.unwrap_or(START_MS)
    }

    pub fn pass_time(&mut self, ms: u64) {
        self.worker.clock.frozen_ms = Some(self.now_ms() + ms);
    }

    /// A turn of the worker's loop.
    pub fn round(&mut self) {
        self.worker.round_at_once();
    }

    /// Everything that waits for the disk.
    pub fn finish_jobs(&mut self) {
        while self.jobs.run_one() {}
    }

    /// The error log's end.
    pub fn log(&mut self) -> String {
        self.worker.write_logs();
        self.worker.with_log_time(|sinks, time| {
            sinks.flush_all(time);
        });
        std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }

    /// Files that requests have left behind.
    pub fn temporary_files(&self) -> usize {
        let count = |name| std::fs::read_dir(self.folder.path().join(name)).map_or(0, Iterator::count);
        count("body") + count("proxy")
    }
}

fn configuration(
    front: &Address,
    upstreams: &[Address],
    root: &str,
    faults: bool,
    dice: &mut Dice,
) -> String {
    let servers: String = upstreams
        .iter()
        .map(|address| {
            let option =
                *dice.pick(&["", " max_fails=0", " weight=3", if faults { " max_conns=2" } else { "" }]);
            format!("server {}{option};", address.written())
        })
        .collect();
    let flag = |dice: &mut Dice| *dice.pick(&["on", "off"]);
    let http = format!(
        "access_log off; upstream u {{ {servers} {} }}
        proxy_buffering {}; proxy_request_buffering {}; {} proxy_buffer_size 4k; proxy_buffers {} 4k;
        proxy_busy_buffers_size 4k; proxy_max_temp_file_size {}; proxy_next_upstream {};
        proxy_http_version {}; keepalive_requests {}; proxy_read_timeout 5s; proxy_connect_timeout 3s;
        client_body_buffer_size {}; client_max_body_size 0;
        client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;",
        dice.pick(&["keepalive 8;", "keepalive 0;", "", "keepalive 1; keepalive_requests 2;"]),
        flag(dice),
        flag(dice),
        if dice.one_in(4) { "proxy_ignore_client_abort on;" } else { "" },
        dice.pick(&["2", "4", "16"]),
        dice.pick(&["0", "1m", "16k"]),
        dice.pick(&[
            "error timeout",
            "off",
            "error timeout invalid_header http_503",
            "error timeout non_idempotent"
        ]),
        dice.pick(&["1.1", "1.0", "2"]),
        dice.pick(&["1000", "2"]),
        dice.pick(&["1k", "16k"]),
    );
    let call = if http.contains("proxy_http_version 2") { "grpc_pass grpc://u;" } else { "" };
    format!(
        "events {{}} http {{ {http} server {{ listen {}; http2 on;
            location / {{ proxy_pass http://u; }}
            location /s/ {{ root {root}; add_header X-Id $arg_id; }}
            location /t/ {{ alias {root}/s/; add_header X-Id $arg_id; {ZIP} }}
            location /z/ {{ proxy_pass http://u; {ZIP} }}
            location /f/ {{ proxy_pass http://u; {SUBSTITUTE} }}
            location /g/ {{ proxy_pass http://u; {SUBSTITUTE} {ZIP} }}
            location /i/ {{ proxy_pass http://u; ssi on; ssi_types *; {ZIP} }}
            location /q/ {{ proxy_pass http://u; auth_request /check; }}
            location = /check {{
                internal; proxy_pass http://u/check$request_uri;
                proxy_pass_request_body off; proxy_set_header Content-Length \"\";
            }}
            location /m/ {{ proxy_pass http://u; mirror /mirror; }}
            location /p/ {{ {call} }}
            location = /mirror {{ internal; proxy_pass http://u/mirror$request_uri; }}
            location /a/ {{
                proxy_pass http://u; add_before_body /s/1; add_after_body /s/2; addition_types *; {ZIP}
            }}
        }} }}",
        front.written()
    )
}
