use super::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};

fn plan(address: ListenAddress) -> SocketPlan {
    SocketPlan::new(address, SocketOptions::default())
}

/// A plan for a port that was free a moment ago.
fn free_port() -> SocketPlan {
    let probe = TcpListener::bind("127.0.0.1:0").unwrap();
    plan(ListenAddress::Inet(probe.local_addr().unwrap()))
}

fn inet(plan: &SocketPlan) -> SocketAddr {
    match plan.address {
        ListenAddress::Inet(address) => address,
        ListenAddress::Unix(_) => panic!("no address"),
    }
}

fn renew(set: &ListenerSet, plans: &[SocketPlan], workers: usize) -> Result<ListenerSet, String> {
    set.renew(plans, workers, &mut |_, _| {})
}

fn sockets_of(set: &ListenerSet, workers: usize) -> Vec<Vec<i32>> {
    (0..workers)
        .map(|index| {
            set.of_worker(index, workers).iter().map(|listener| listener.socket.as_raw_fd()).collect()
        })
        .collect()
}

#[test]
fn every_worker_has_a_socket_of_its_own() {
    let plan = free_port();
    let set = renew(&ListenerSet::default(), &[plan], 3).unwrap();
    let sockets = sockets_of(&set, 3);
    assert!(sockets.iter().all(|sockets| sockets.len() == 1), "{sockets:?}");
    assert!(sockets[0] != sockets[1] && sockets[1] != sockets[2]);
}

#[test]
fn fewer_workers_take_over_all_sockets_and_more_get_new_ones() {
    let plan = free_port();
    let three = renew(&ListenerSet::default(), std::slice::from_ref(&plan), 3).unwrap();
    let one = renew(&three, std::slice::from_ref(&plan), 1).unwrap();
    assert_eq!(sockets_of(&one, 1)[0].len(), 3);
    let four = renew(&one, &[plan], 4).unwrap();
    assert_eq!(four.descriptors().count(), 4);
    assert_eq!(sockets_of(&four, 4)[0], sockets_of(&three, 3)[0]);
}

#[test]
fn an_address_that_another_listens_on_is_in_use_also_for_the_same_user() {
    let plan = free_port();
    let other = renew(&ListenerSet::default(), std::slice::from_ref(&plan), 2).unwrap();
    let mut lines = Vec::new();
    let result = ListenerSet::default()
        .renew(std::slice::from_ref(&plan), 1, &mut |level, text| lines.push(format!("[{level}] {text}")));
    assert_eq!(result.unwrap_err(), "still could not bind()");
    assert_eq!(lines[0], format!("[emerg] bind() to {} failed (98: Address already in use)", plan.address));
    assert_eq!(lines[1], "[notice] try again to bind() after 500ms");
    assert_eq!(lines.len(), 10, "{lines:?}");
    drop(other);
    assert!(renew(&ListenerSet::default(), &[plan], 1).is_ok());
}

#[test]
fn a_failure_leaves_the_set_as_it_was() {
    let (plan, bad) = (free_port(), plan(ListenAddress::Inet("203.0.113.1:1".parse().unwrap())));
    let set = renew(&ListenerSet::default(), std::slice::from_ref(&plan), 1).unwrap();
    let error = renew(&set, &[plan.clone(), bad], 1).unwrap_err();
    assert_eq!(error, "bind() to 203.0.113.1:1 failed (99: Cannot assign requested address)");
    assert!(TcpStream::connect(inet(&plan)).is_ok());
}

#[test]
fn a_wildcard_and_a_specific_socket_share_a_port() {
    let specific = free_port();
    let any = plan(ListenAddress::Inet(SocketAddr::new([0, 0, 0, 0].into(), inet(&specific).port())));
    let set = renew(&ListenerSet::default(), &[any, specific.clone()], 1).unwrap();
    let mut client = TcpStream::connect(inet(&specific)).unwrap();
    let listeners = set.of_worker(0, 1);
    assert_eq!(listeners[0].socket.accept_from().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let mut server = TcpStream::from(listeners[1].socket.accept_from().unwrap().0);
    client.write_all(b"x").unwrap();
    server.set_nonblocking(false).unwrap();
    server.read_exact(&mut [0]).unwrap();
}

#[test]
fn accepted_connections_inherit_their_options() {
    let mut plan = free_port();
    let seconds = Duration::from_secs;
    let keepalive = crate::conf::listen::KeepAlive {
        idle: Some(seconds(77)),
        interval: Some(seconds(7)),
        count: Some(3),
    };
    plan.options.keepalive = Some(Some(keepalive));
    let set = renew(&ListenerSet::default(), std::slice::from_ref(&plan), 1).unwrap();
    let _client = TcpStream::connect(inet(&plan)).unwrap();
    let accepted = Socket::from(set.of_worker(0, 1)[0].socket.accept_from().unwrap().0);
    assert!(
        accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap() && accepted.nonblocking().unwrap()
    );
    assert_eq!(accepted.tcp_notsent_lowat().unwrap(), NOT_SENT_LOW_WATER);
    assert_eq!(accepted.tcp_keepalive_time().unwrap(), seconds(77));
    assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 3);
}

#[test]
fn a_unix_socket_is_shared_and_a_stale_file_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock").to_str().unwrap().to_owned();
    drop(UnixListener::bind(&path).unwrap());
    let set = renew(&ListenerSet::default(), &[plan(ListenAddress::Unix(path.clone()))], 2).unwrap();
    assert_eq!(sockets_of(&set, 2)[0], sockets_of(&set, 2)[1]);
    assert_eq!(set.descriptors().count(), 1);
    UnixStream::connect(&path).unwrap();
    assert_eq!(set.unix_paths_not_in(&ListenerSet::default()), std::slice::from_ref(&path));
    assert!(set.unix_paths_not_in(&set).is_empty());
    // One that somebody listens on is in use.
    assert!(!remove_stale(&path, &SockAddr::unix(&path).unwrap()) && std::fs::exists(&path).unwrap());
}

#[test]
fn a_file_that_is_no_socket_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file").to_str().unwrap().to_owned();
    std::fs::write(&path, "precious").unwrap();
    assert!(!remove_stale(&path, &SockAddr::unix(&path).unwrap()));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn sockets_that_came_from_elsewhere_are_recognised() {
    let plan = free_port();
    let first = renew(&ListenerSet::default(), std::slice::from_ref(&plan), 2).unwrap();
    let mut descriptors: Vec<OwnedFd> =
        first.descriptors().map(|descriptor| descriptor.try_clone_to_owned().unwrap()).collect();
    descriptors.push(std::fs::File::open("/dev/null").unwrap().into());
    drop(first);
    let held = ListenerSet::from_descriptors(descriptors);
    assert_eq!(count_by_address(&held), std::collections::HashMap::from([(plan.address.to_string(), 2)]));
    let set = renew(&held, std::slice::from_ref(&plan), 2).unwrap();
    drop(held);
    assert_ne!(sockets_of(&set, 2)[0], sockets_of(&set, 2)[1]);
    assert!(TcpStream::connect(inet(&plan)).is_ok());
}
