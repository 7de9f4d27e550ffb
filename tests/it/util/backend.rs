//! A scripted server whose conduct the test changes while it runs, and which remembers what it was asked.

use super::peer::{Peer, Upstream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a [`Backend`] does with requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conduct {
    /// Answers with this status and its name.
    Answer(u16),
    /// Reads the request and closes.
    Close,
    /// Reads the request and resets.
    Reset,
    /// Reads the request and says nothing, until the conduct is another one: that is followed then.
    Hang,
    /// Sends these bytes and closes.
    Say(Vec<u8>),
    /// Closes before it reads anything.
    Slam,
}

/// Its conduct in general, and that for requests whose target begins with some text.
#[derive(Clone)]
struct Conducts {
    general: Conduct,
    special: Vec<(&'static str, Conduct)>,
}

impl Conducts {
    fn of(&self, head: &str) -> Conduct {
        let target = head.split(' ').nth(1).unwrap_or_default();
        let special = self.special.iter().find(|(beginning, _)| target.starts_with(beginning));
        special.map_or(&self.general, |(_, conduct)| conduct).clone()
    }
}

/// See the module's documentation.
pub struct Backend {
    upstream: Upstream,
    conduct: Arc<Mutex<Conducts>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Backend {
    /// Listens on a free port and answers with 200 and its name.
    pub fn start(name: &'static str) -> Self {
        Self::start_on(0, name)
    }

    /// The same on this port of 127.0.0.1.
    pub fn start_on(port: u16, name: &'static str) -> Self {
        let conduct = Arc::new(Mutex::new(Conducts { general: Conduct::Answer(200), special: Vec::new() }));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let upstream = Upstream::start_on(port, {
            let (conduct, seen) = (conduct.clone(), seen.clone());
            move |peer| serve(peer, name, &conduct, &seen)
        });
        Self { upstream, conduct, seen }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.upstream.port()
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        self.upstream.accepted()
    }

    /// What it does from now on, with all requests.
    pub fn conduct(&self, conduct: Conduct) {
        *self.conduct.lock().unwrap() = Conducts { general: conduct, special: Vec::new() };
    }

    /// What it does from now on with requests whose target begins like this.
    pub fn conduct_for(&self, beginning: &'static str, conduct: Conduct) {
        let special = &mut self.conduct.lock().unwrap().special;
        special.retain(|(known, _)| *known != beginning);
        special.push((beginning, conduct));
    }

    /// The heads of the requests that it got.
    pub fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests it got whose line begins like this.
    pub fn seen(&self, beginning: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|head| head.starts_with(beginning)).count()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Whoever hangs ends.
        self.conduct(Conduct::Close);
    }
}

fn serve(mut peer: Peer, name: &str, conduct: &Mutex<Conducts>, seen: &Mutex<Vec<String>>) {
    if conduct.lock().unwrap().general == Conduct::Slam {
        return;
    }
    while let Some((head, _)) = peer.read_request() {
        let is_head = head.starts_with("HEAD ");
        seen.lock().unwrap().push(head.clone());
        let conduct = loop {
            match conduct.lock().unwrap().of(&head) {
                Conduct::Hang => {}
                conduct => break conduct,
            }
            std::thread::sleep(Duration::from_millis(3));
        };
        match conduct {
            Conduct::Answer(status) => {
                let body = if is_head { "" } else { name };
                let length = name.len();
                let answer = format!("HTTP/1.1 {status} Some\r\nContent-Length: {length}\r\n\r\n{body}");
                if !peer.try_send(answer) {
                    return;
                }
            }
            Conduct::Say(bytes) => {
                peer.try_send(bytes);
                return;
            }
            Conduct::Reset => return peer.reset(),
            Conduct::Close | Conduct::Slam | Conduct::Hang => return,
        }
    }
}
