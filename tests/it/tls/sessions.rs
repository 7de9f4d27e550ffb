//! Sessions that are taken up again: by ticket, by the cache, in any worker, over a reload.

use super::*;

/// A connection with a connector, whether it took a session up on both sides' word.
fn is_resumed(connector: &Connector, server: &Server) -> bool {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("connect");
    let (mut client, facts) = connector.try_over(socket, "example.com").expect("a handshake");
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n");
    let body = client.read_response().text();
    assert_eq!(body, if facts.reused { "r" } else { "." }, "both sides agree");
    facts.reused
}

#[test]
fn sessions_are_taken_up_by_ticket_and_by_cache_also_over_a_reload() {
    for setting in [
        "",
        "ssl_session_tickets off; ssl_session_cache shared:s:1m;",
        "ssl_session_cache shared:s:1m;",
        "ssl_session_tickets off; ssl_session_cache builtin;",
        "ssl_session_ticket_key {root}/ticket.key;",
    ] {
        for version in ["TLSv1.2", "TLSv1.3"] {
            let conf = text(&format!("ssl_protocols {version}; {setting} return 200 $ssl_session_reused;"));
            let server = Server::builder(&conf).file("ticket.key", noise(80)).start();
            let connector = Connector::new(&[], None);
            assert!(!is_resumed(&connector, &server), "{version} {setting}");
            assert!(is_resumed(&connector, &server), "{version} {setting}");
            server.configure(&conf.replace("return 200", "add_header A b; return 200"));
            server.reload();
            eventually("the new configuration", || {
                let mut client = connect_tls(server.port(), "example.com", &[]);
                client.send("GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n");
                client.read_response().header("a").is_some()
            });
            if !setting.contains("builtin") {
                assert!(is_resumed(&connector, &server), "over a reload: {version} {setting}");
            }
        }
    }
    let server = Server::start(&text("ssl_session_tickets off; return 200 $ssl_session_reused;"));
    let connector = Connector::new(&[], None);
    assert!(!is_resumed(&connector, &server) && !is_resumed(&connector, &server));
}

#[test]
fn s_client_takes_sessions_up() {
    if !has("openssl") {
        return;
    }
    let server =
        Server::start(&text("ssl_session_cache shared:s:1m; return 200 \"<$ssl_session_reused>\\n\";"));
    let file = server.path("session");
    let file = file.to_str().expect("UTF-8");
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(s_client(&server, &[version, "-sess_out", file], "/").text().contains("<.>"));
        let said = s_client(&server, &[version, "-sess_in", file], "/").text();
        assert!(said.contains("<r>") && said.contains("Reused, "), "{said}");
    }
}

#[test]
fn early_data_is_served_and_named() {
    if !has("openssl") {
        return;
    }
    let server =
        Server::start(&text("ssl_early_data on; return 200 \"<$ssl_early_data:$ssl_session_reused>\\n\";"));
    let session = server.path("session");
    let session = session.to_str().expect("UTF-8");
    assert!(s_client(&server, &["-tls1_3", "-sess_out", session], "/").text().contains("<:.>"));
    let early = server.write("early", "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n");
    let arguments = ["-tls1_3", "-sess_in", session, "-early_data", early.to_str().expect("UTF-8")];
    let said = s_client(&server, &arguments, "/").text();
    assert!(said.contains("Early data was accepted") && said.contains("<1:r>"), "{said}");
}

#[test]
fn every_worker_takes_up_the_sessions_of_the_others() {
    let server = Server::start(&format!(
        "worker_processes 3; http {{ access_log off;
           server {{ listen {{port}} ssl reuseport; server_name example.com; {PAIR}
             ssl_session_tickets off; ssl_session_cache shared:s:1m; return 200 $ssl_session_reused; }} }}"
    ));
    let connector = Connector::new(&[], None);
    assert!(!is_resumed(&connector, &server));
    for _ in 0..20 {
        assert!(is_resumed(&connector, &server));
    }
}

#[test]
fn tickets_are_taken_over_a_rotation_of_their_keys() {
    for (version, length) in [("TLSv1.2", 48), ("TLSv1.3", 80)] {
        let conf = |keys: &[&str]| {
            let names = keys.concat();
            let keys: String =
                keys.iter().map(|key| format!("ssl_session_ticket_key {{root}}/{key}; ")).collect();
            text(&format!(
                "ssl_protocols {version}; {keys} add_header Keys {names}; return 200 $ssl_session_reused;"
            ))
        };
        let reload = |server: &Server, keys: &[&str]| {
            server.configure(&conf(keys));
            server.reload();
            eventually("the new keys", || {
                let mut client = connect_tls(server.port(), "example.com", &[]);
                client.send("GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n");
                client.read_response().header("keys").is_some_and(|names| names == keys.concat())
            });
        };
        let key = |number: u8| noise(length).iter().map(|byte| byte ^ number).collect::<Vec<u8>>();
        let server =
            Server::builder(&conf(&["a", "b"])).file("a", key(1)).file("b", key(2)).file("c", key(3)).start();
        // What one process made is good in another with the same keys: several machines may share a name.
        let other = Server::builder(&conf(&["b", "a"])).file("a", key(1)).file("b", key(2)).start();
        let connector = Connector::new(&[], None);
        assert!(!is_resumed(&connector, &server));
        assert!(is_resumed(&connector, &other), "{version}: by the second key");
        // That connection brought a ticket made with b, which a rotation makes the last one.
        reload(&server, &["c", "b"]);
        assert!(is_resumed(&connector, &server), "{version}: by the old key");
        assert!(is_resumed(&connector, &server), "{version}: by the new key");
        reload(&server, &["a"]);
        assert!(!is_resumed(&connector, &server), "{version}: the key is gone");
    }
}

#[test]
fn sessions_of_a_cache_have_the_identifier_that_clients_see() {
    if !has("openssl") {
        return;
    }
    let server = Server::start(&text(
        "ssl_session_tickets off; ssl_session_cache shared:s:1m; return 200 \"<$ssl_session_id>\\n\";",
    ));
    let file = server.path("session");
    let file = file.to_str().expect("UTF-8");
    for argument in ["-sess_out", "-sess_in"] {
        let said = s_client(&server, &["-tls1_2", argument, file], "/").text();
        let id =
            said.lines().find_map(|line| line.trim().strip_prefix("Session-ID: ")).expect("an identifier");
        assert!(id.len() == 64 && said.contains(&format!("<{}>", id.to_ascii_lowercase())), "{said}");
    }
}
