//! A worker without its thread, turned by hand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::*;
use crate::conf::files::MemoryFiles;
use crate::conf::log_target::LogTarget;
use crate::http::build::{BuildOptions, build};
use crate::http::site::Site;
use crate::server::files::faults;
use crate::server::listeners::{ListenerSet, WorkerListener};
use crate::server::pool::Pool;

/// A site of this text with one address, and its listening sockets.
pub(super) struct Ground {
    folder: tempfile::TempDir,
    site: Arc<Site>,
    listeners: ListenerSet,
    address: SocketAddr,
    shared: Arc<SharedState>,
    pool: Arc<Pool>,
}

impl Ground {
    fn new(main: &str, workers: usize) -> Ground {
        let (main, events) = (main.to_owned(), if main.contains("events") { "" } else { "events {}" });
        Ground::of(workers, &|address, _| {
            format!(
                "{events} {main} http {{ access_log off; server {{ listen {address}; location / {{ return 200 fine; }} }} }}"
            )
        })
    }

    /// One of the text that is made of its address and its folder.
    pub(super) fn of(workers: usize, text: &dyn Fn(SocketAddr, &str) -> String) -> Ground {
        let folder = tempfile::tempdir().unwrap();
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        let text = text(address, &folder.path().display().to_string());
        for name in ["body", "proxy"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let start = {
            let plan = faults::present();
            move || {
                faults::follow(plan.clone());
                Ok(())
            }
        };
        let pool = Arc::new(Pool::start(1, 16, start).unwrap());
        let (site, listeners) = site_of(&folder, text, workers);
        Ground { folder, site, listeners, address, shared: Arc::default(), pool }
    }

    pub(super) fn worker(
        &self,
        index: usize,
        workers: usize,
    ) -> (Worker, crossbeam_channel::Sender<WorkerCommand>) {
        worker_of(&self.site, self.listeners.of_worker(index, workers), index, &self.shared, &self.pool)
    }

    /// How many files there are in a folder below its own.
    pub(super) fn files_in(&self, name: &str) -> usize {
        std::fs::read_dir(self.folder.path().join(name)).unwrap().count()
    }

    /// A connection of which nothing was asked yet.
    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }
}

/// The site of this text, and its listening sockets.
pub(super) fn site_of(folder: &tempfile::TempDir, text: String, workers: usize) -> (Arc<Site>, ListenerSet) {
    let prefix = format!("{}/", folder.path().display());
    let mut files = MemoryFiles::new().with("/a.conf", text.into_bytes());
    let built = build(
        &mut files,
        &BuildOptions {
            path: "/a.conf",
            prefix: &prefix,
            command_line: "",
            error_log: &LogTarget::File(b"error.log".to_vec()),
            hostname: b"host",
            privileged: false,
            resolve: None,
            previous_logs: None,
            previous_tls: None,
        },
    );
    let site = Arc::new(built.site.unwrap_or_else(|| panic!("{:?}", built.diagnostics)));
    let listeners = ListenerSet::default()
        .renew(&site.listens.sockets(), workers, &mut |_, text| panic!("{text}"))
        .unwrap();
    (site, listeners)
}

/// A worker that serves this site.
pub(super) fn worker_of(
    site: &Arc<Site>,
    listeners: Vec<WorkerListener>,
    index: usize,
    shared: &Arc<SharedState>,
    pool: &Arc<Pool>,
) -> (Worker, crossbeam_channel::Sender<WorkerCommand>) {
    let poll = mio::Poll::new().unwrap();
    let waker = Arc::new(mio::Waker::new(poll.registry(), WAKE_TOKEN).unwrap());
    let (sender, commands) = crossbeam_channel::unbounded();
    let boot = WorkerBoot {
        index,
        site: Arc::clone(site),
        listeners,
        commands,
        poll,
        shared: Arc::clone(shared),
        waker,
        pool: Arc::clone(pool),
        name_threads: Arc::clone(pool),
        logs: Arc::new(OpenLogs::open(&site.logs, None).unwrap()),
    };
    (Worker::new(boot).unwrap(), sender)
}

impl Worker {
    /// One round of the loop that does not wait long.
    fn round(&mut self) {
        self.round_of(Duration::from_millis(20));
    }

    /// One that does not wait at all.
    pub(super) fn round_at_once(&mut self) {
        self.round_of(Duration::ZERO);
    }

    pub(super) fn round_of(&mut self, patience: Duration) {
        let mut events = Events::with_capacity(64);
        self.poll.poll(&mut events, Some(patience)).unwrap();
        self.serve_events(&events, &mut Vec::new());
    }

    pub(super) fn keys(&self) -> Vec<ClientKey> {
        self.clients
            .iter()
            .map(|(index, client)| ClientKey { index: index as u32, generation: client.generation })
            .collect()
    }
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Asks over this connection while the worker turns.
fn ask(worker: &mut Worker, stream: &mut TcpStream) -> String {
    stream.write_all(REQUEST).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut answer = Vec::new();
    for _ in 0..500 {
        worker.round();
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        if answer.ends_with(b"fine") {
            break;
        }
    }
    stream.set_nonblocking(false).unwrap();
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_panic_in_a_turn_costs_that_connection_and_no_other() {
    let ground = Ground::new("", 1);
    let (mut worker, _commands) = ground.worker(0, 1);
    let (mut unlucky, mut other) = (ground.connect(), ground.connect());
    assert!(ask(&mut worker, &mut unlucky).ends_with("fine"));
    assert!(ask(&mut worker, &mut other).ends_with("fine"));
    let port = unlucky.local_addr().unwrap();
    let keys = worker.keys();
    let key = keys.into_iter().find(|key| {
        let client = &worker.clients[key.index as usize];
        client.facts.peer == crate::http::exchange::Endpoint::Inet(port)
    });
    worker.turn(key.unwrap(), |_, _, res| {
        // As where a turn is in the middle of its work.
        drop(std::mem::take(&mut res.input));
        drop(std::mem::take(&mut res.copy));
        res.out.extend_from_slice(b"HTTP/1.1 200 for nobody");
        std::panic::resume_unwind(Box::new("no words from the hook"))
    });
    assert!(unlucky.read(&mut [0; 64]).is_err(), "it is reset, with nothing sent");
    assert_eq!(worker.keys().len(), 1);
    for _ in 0..3 {
        assert!(ask(&mut worker, &mut other).ends_with("fine"));
    }
    assert!(ask(&mut worker, &mut ground.connect()).ends_with("fine"));
}

#[test]
fn what_waits_in_a_queue_is_served_when_its_socket_is_given_up() {
    let ground = Ground::new("", 1);
    let (mut worker, commands) = ground.worker(0, 1);
    // More than one turn accepts.
    let mut waiting: Vec<TcpStream> = (0..150).map(|_| ground.connect()).collect();
    commands.send(WorkerCommand::Quit { deadline: None }).unwrap();
    worker.take_commands();
    assert_eq!(worker.keys().len(), waiting.len());
    let answer = ask(&mut worker, &mut waiting[149]);
    assert!(answer.contains("Connection: close") && answer.ends_with("fine"), "{answer}");
}

#[test]
fn a_connection_handed_to_a_worker_that_goes_stays_where_it_is() {
    let ground = Ground::new("", 2);
    let (mut busy, _commands) = ground.worker(0, 2);
    let (mut leaving, commands) = ground.worker(1, 2);
    let number = 0;
    let connection = |worker: &mut Worker| {
        // As many as make the other one the better place.
        worker.peer.set_connections(1000);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        worker.place(number, socket.into(), Some(peer), None);
        client
    };
    let mut first = connection(&mut busy);
    assert_eq!((busy.keys().len(), leaving.keys().len()), (0, 0));
    // It was handed over before the other one was told to go.
    commands.send(WorkerCommand::Quit { deadline: None }).unwrap();
    leaving.take_commands();
    assert!(ask(&mut leaving, &mut first).ends_with("fine"));
    let mut second = connection(&mut busy);
    assert!(ask(&mut busy, &mut second).ends_with("fine"));
}

#[test]
fn a_connection_for_an_address_that_a_worker_does_not_have_is_served_by_its_own_site() {
    let ground = Ground::new("", 1);
    let (mut worker, _commands) = ground.worker(0, 1);
    let logs = Arc::clone(&worker.logs);
    worker.configure(Arc::clone(&ground.site), Vec::new(), logs);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, peer) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let plan = Arc::clone(&ground.listeners.of_worker(0, 1)[0].plan);
    worker.take_handed(vec![balance::Handed {
        socket: socket.into(),
        plan,
        site: Arc::clone(&ground.site),
        peer,
        permit: None,
    }]);
    assert!(ask(&mut worker, &mut client).ends_with("fine"));
    // Its listener goes with it.
    drop(client);
    for _ in 0..100 {
        worker.round();
        if worker.keys().is_empty() {
            break;
        }
    }
    assert!(worker.res.listeners.iter().all(Option::is_none));
}

#[test]
fn at_the_limit_the_longest_idle_gives_way_and_without_one_accepting_rests() {
    let ground = Ground::new("events { worker_connections 3; }", 1);
    let (mut worker, _commands) = ground.worker(0, 1);
    let mut streams: Vec<TcpStream> = (0..3).map(|_| ground.connect()).collect();
    for stream in &mut streams {
        assert!(ask(&mut worker, stream).ends_with("fine"));
        std::thread::sleep(Duration::from_millis(3));
    }
    // The first one is idle for the shortest time now.
    assert!(ask(&mut worker, &mut streams[0]).ends_with("fine"));
    let mut fresh = ground.connect();
    assert!(ask(&mut worker, &mut fresh).ends_with("fine"));
    assert_eq!(streams[1].read(&mut [0; 8]).unwrap(), 0, "the longest idle is closed");
    assert!(ask(&mut worker, &mut streams[0]).ends_with("fine"));
    // Now all three are in the middle of a request.
    for mut stream in [&streams[0], &streams[2], &fresh] {
        stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    }
    for _ in 0..5 {
        worker.round();
    }
    let mut waits = ground.connect();
    for _ in 0..5 {
        worker.round();
    }
    assert_eq!(worker.keys().len(), 3);
    assert!(worker.resting_until_ms.is_some());
    // Resting costs no turns: nothing is reported.
    let mut events = Events::with_capacity(8);
    worker.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
    assert!(events.is_empty());
    // One goes, and the one that waits is served at once.
    drop(fresh);
    assert!(ask(&mut worker, &mut waits).ends_with("fine"));
    assert!(worker.resting_until_ms.is_none());
}

#[test]
fn a_jump_of_the_wall_clock_moves_dates_and_no_deadline() {
    let ground = Ground::new("", 1);
    let (mut worker, _commands) = ground.worker(0, 1);
    let mut kept = ground.connect();
    let mut begun = ground.connect();
    let date = |answer: &str| {
        let text = answer.split("Date: ").nth(1).unwrap().lines().next().unwrap();
        crate::base::clock::parse_http_date(text.as_bytes()).unwrap()
    };
    let before = date(&ask(&mut worker, &mut kept));
    begun.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    worker.round();
    for jump in [86_400 * 365, -86_400 * 365 * 3, 7200, -7200, 0] {
        worker.clock.jump_secs = jump;
        for _ in 0..3 {
            worker.round();
        }
        // Neither the idle connection nor the one with half a head was timed out, and both are served.
        assert_eq!(worker.keys().len(), 2, "after {jump} s");
        let now = date(&ask(&mut worker, &mut kept));
        assert!((0..60).contains(&(now - before - jump)), "{before} {jump} {now}");
    }
    begun.write_all(b"Host: a\r\n\r\n").unwrap();
    let mut bytes = [0; 4096];
    begun.set_nonblocking(true).unwrap();
    let answered = (0..500).any(|_| {
        worker.round();
        begun.read(&mut bytes).is_ok_and(|count| bytes[..count].ends_with(b"fine"))
    });
    assert!(answered);
    // A deadline is one of time that has passed.
    let idle = worker.keys().len();
    let now_ms = worker.clock.now().monotonic_ms;
    worker.clock.frozen_ms = Some(now_ms + 80_000);
    for _ in 0..5 {
        worker.round();
    }
    assert!(idle > 0 && worker.keys().is_empty(), "{idle} connections are kept for 75 s");
}
