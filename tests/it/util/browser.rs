//! A real Chromium without a window, driven by the DevTools protocol over a pair of pipes: what a page loads, logs and
//! fails at becomes known, which no client of our own making would do.

use super::server::guard;
use super::{PATIENCE, Signal};
use rustix::process::{Pid, kill_process_group};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Where Debian's package puts it.
const BINARY: &str = "/usr/bin/chromium";

/// How long a page may take. A browser's start on a busy machine is slow.
const PAGE_PATIENCE: Duration = Duration::from_secs(60);

/// Quiet, self-contained, and unable to reach anything but this machine.
const ARGUMENTS: &str = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
    --disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage \
    --disable-extensions --disable-default-apps --metrics-recording-only --no-default-browser-check \
    --remote-debugging-pipe";

/// Whether there is a browser; says so if not.
pub fn available() -> bool {
    let there = std::path::Path::new(BINARY).exists();
    if !there {
        eprintln!("skipped: no {BINARY}");
    }
    there
}

/// What became of one page.
#[derive(Debug, Default)]
pub struct Page {
    /// Statuses and URLs of all responses, in order.
    pub responses: Vec<(u64, String)>,
    /// Requests without a response, console errors, uncaught exceptions.
    pub problems: Vec<String>,
}

/// A browser with one page. Killed with all its processes when dropped.
pub struct Browser {
    child: Child,
    guard: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    last_id: u64,
    page: Page,
    loaded: bool,
    idle: bool,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts it; every host name leads to 127.0.0.1.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Browser {
        Self::start_with("")
    }

    /// The same with a further argument.
    pub fn start_with(argument: &str) -> Browser {
        let profile = tempfile::Builder::new().prefix("thalweg-browser-").tempdir().expect("folder");
        // The protocol is spoken on descriptors 3 and 4, which only a shell can hand over without `unsafe`.
        let script = format!(
            "exec {BINARY} {ARGUMENTS} {argument} --host-resolver-rules='MAP * 127.0.0.1' --user-data-dir=\"$0\" \
             about:blank 3<&0 4>&1 </dev/null >/dev/null 2>\"$0/stderr\""
        );
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .arg(profile.path())
            .env("HOME", profile.path())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the browser");
        let guard = guard(child.id());
        let commands = child.stdin.take().expect("a pipe");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            while output.read_until(0, &mut text).is_ok_and(|count| count > 0) {
                text.pop();
                let Ok(message) = serde_json::from_slice(&text) else { break };
                if sender.send(message).is_err() {
                    break;
                }
                text.clear();
            }
        });
        let mut browser = Browser {
            child,
            guard,
            commands,
            messages,
            session: None,
            last_id: 0,
            page: Page::default(),
            loaded: false,
            idle: false,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Network", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.call("Page.setLifecycleEventsEnabled", json!({ "enabled": true }));
        browser
    }

    /// Goes to a URL and waits until the page is loaded and nothing more is asked for.
    ///
    /// # Panics
    /// When that does not happen within a minute.
    #[track_caller]
    pub fn visit(&mut self, url: &str) -> Page {
        self.page = Page::default();
        (self.loaded, self.idle) = (false, false);
        let result = self.call("Page.navigate", json!({ "url": url }));
        if let Some(error) = result["errorText"].as_str() {
            self.page.problems.push(format!("{error} {url}"));
            return std::mem::take(&mut self.page);
        }
        let deadline = Instant::now() + PAGE_PATIENCE;
        while !(self.loaded && self.idle) {
            self.take_message(deadline);
        }
        std::mem::take(&mut self.page)
    }

    /// The value of an expression on the page.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true });
        self.call("Runtime.evaluate", parameters)["result"]["value"].clone()
    }

    /// What happened since the page was visited.
    pub fn since(&mut self) -> Page {
        std::mem::take(&mut self.page)
    }

    #[track_caller]
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.commands.write_all(&text).expect("tell the browser");
        let deadline = Instant::now() + PAGE_PATIENCE;
        loop {
            let mut reply = self.take_message(deadline);
            if reply["id"] == json!(self.last_id) {
                assert!(reply["error"].is_null(), "{method}: {}", reply["error"]);
                return reply["result"].take();
            }
        }
    }

    /// Waits for one message; what it says of the page is noted.
    #[track_caller]
    fn take_message(&mut self, deadline: Instant) -> Value {
        let left = deadline.saturating_duration_since(Instant::now());
        let message = self.messages.recv_timeout(left).unwrap_or_else(|error| {
            let said = std::fs::read_to_string(self._profile.path().join("stderr")).unwrap_or_default();
            panic!("the browser said nothing more: {error}\n{:?}\n{said}", self.page)
        });
        if let Some(method) = message["method"].as_str() {
            self.note(method, &message["params"]);
        }
        message
    }

    fn note(&mut self, method: &str, event: &Value) {
        match method {
            "Page.loadEventFired" => self.loaded = true,
            "Page.lifecycleEvent" if event["name"] == "init" => self.idle = false,
            "Page.lifecycleEvent" if event["name"] == "networkIdle" => self.idle = true,
            "Network.responseReceived" => {
                let response = &event["response"];
                let url = response["url"].as_str().unwrap_or_default().to_owned();
                self.page.responses.push((response["status"].as_u64().unwrap_or(0), url));
            }
            // A page that is left cancels what it still waits for; that is no failure.
            "Network.loadingFailed" if event["canceled"] != true => {
                self.page.problems.push(format!("a request failed: {event}"));
            }
            "Runtime.exceptionThrown" => self.page.problems.push(format!("an exception: {event}")),
            "Runtime.consoleAPICalled"
                if ["error", "assert"].contains(&event["type"].as_str().unwrap_or_default()) =>
            {
                self.page.problems.push(format!("on the console: {event}"));
            }
            "Log.entryAdded" if event["entry"]["level"] == "error" => {
                self.page.problems.push(format!("in the log: {}", event["entry"]));
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        // The last processes write to the profile until they are gone; then its folder can be removed.
        let deadline = Instant::now() + PATIENCE;
        while kill_process_group(Pid::from_child(&self.child), Signal::KILL).is_ok()
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
